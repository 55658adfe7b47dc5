package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// refusal turns what the API client returns into a diagnostic: a short summary,
// then what, why and how to fix it, and the code and request id as last line.
type refusal struct {
	conn     *connection
	schema   *schema.Schema    // resolves the problem's field; nil = always fallback
	fallback path.Path         // the attribute to point at when the problem names none
	renamed  map[string]string // attributes that the API knows by another name
	advice   map[api.ErrorCode]string
	short    api.ShortMonths // of the schedule that is refused; goes with recommended days of the month
}

func (r refusal) add(diags *diag.Diagnostics, err error) {
	if err == nil {
		return
	}
	summary, detail := r.text(err)
	diags.AddAttributeError(r.path(err), summary, detail)
}

func (r refusal) warn(diags *diag.Diagnostics, err error) {
	summary, detail := r.text(err)
	diags.AddAttributeWarning(r.path(err), summary, detail)
}

func (r refusal) text(err error) (summary, detail string) {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p.Title, r.detail(p)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "Kura server took too long", fmt.Sprintf("%s did not answer in time: %s\nTry again, or raise request_timeout in the provider block and the resource's timeouts.", r.conn.endpoint, sentence(err))
	case errors.Is(err, context.Canceled):
		return "Interrupted", "The run was interrupted before the server's answer was there. Run it again."
	}
	return "Kura server not reachable", fmt.Sprintf("%s gave no usable answer: %s\nCheck that the server runs (GET /readyz), the endpoint, and what stands between.", r.conn.endpoint, sentence(err))
}

func (r refusal) detail(p *api.Problem) string {
	lines := []string{p.Detail}
	if book := bookings(p.Recommendations, r.short); book != "" {
		lines = []string{withoutFree(p.Detail), book}
	}
	if hint := r.hint(p.Code); hint != "" {
		lines = append(lines, hint)
	}
	last := "Code " + string(p.Code)
	if p.RequestID != "" {
		last += ", request " + p.RequestID
	}
	return strings.Join(append(lines, last), "\n")
}

// hint says what to do where the server, which knows nothing of Terraform, cannot.
func (r refusal) hint(code api.ErrorCode) string {
	if hint := r.advice[code]; hint != "" {
		return hint
	}
	switch code {
	case api.ErrorCodeUnauthenticated:
		return "Give a token that is valid: the variable KURA_TOKEN, or token_file in the provider block. Make one with: kura token create"
	case api.ErrorCodeForbidden:
		return "Use a token of a role that may do it: kura token create --role operator"
	case api.ErrorCodeStale:
		return "Somebody else changed it at the same time. Plan again."
	case api.ErrorCodeUnavailable, api.ErrorCodeRateLimited:
		return "Try again later, or raise max_retries in the provider block."
	case api.ErrorCodeInternal:
		return "The server's log has the cause under this request id."
	}
	return ""
}

// withoutFree leaves out what the server says of the recommendations, at the end
// of its line, for they follow as configuration.
func withoutFree(detail string) string {
	line, more, several := strings.Cut(detail, "\n")
	if i := strings.LastIndex(line, " Free: "); i > 0 {
		line = line[:i]
	}
	if several {
		line += "\n" + more
	}
	return line
}

// bookings lists recommendations as configuration to paste, best first.
func bookings(recs []api.Recommendation, short api.ShortMonths) string {
	if len(recs) == 0 {
		return ""
	}
	lines := []string{"Book one of these instead:"}
	for _, r := range recs {
		lines = append(lines, fmt.Sprintf("  %s # %s, %s free after it", booking(r, short), kindText(r.Kind), seats(r.FreeSeats)))
	}
	return strings.Join(lines, "\n")
}

func kindText(k api.RecommendationKind) string {
	if k == api.RecommendationKindSameDay {
		return "same days"
	}
	return "same hour"
}

func seats(n int) string {
	if n == 1 {
		return "1 seat"
	}
	return fmt.Sprintf("%d seats", n)
}

func booking(r api.Recommendation, short api.ShortMonths) string {
	switch {
	case r.Kind == api.RecommendationKindSameDay:
		return fmt.Sprintf("start_time = %q", r.StartTime)
	case r.Date != "":
		return fmt.Sprintf("one_time = { date = %q }", r.Date)
	case r.StartDate != "":
		return fmt.Sprintf("daily = { start_date = %q }", r.StartDate)
	case len(r.DaysOfWeek) > 0:
		return "weekly = { days_of_week = " + list("%q", r.DaysOfWeek) + " }"
	case len(r.DaysOfMonth) > 0 && short == api.ShortMonthsLastDay:
		return fmt.Sprintf("monthly = { days_of_month = %s, short_months = %q }", list("%d", r.DaysOfMonth), short)
	case len(r.DaysOfMonth) > 0:
		return "monthly = { days_of_month = " + list("%d", r.DaysOfMonth) + " }"
	case r.WeekDayOfMonth != nil:
		return fmt.Sprintf("monthly = { week_day_of_month = { week_of_month = %q, day_of_week = %q } }", r.WeekDayOfMonth.WeekOfMonth, r.WeekDayOfMonth.DayOfWeek)
	}
	return fmt.Sprintf("start_time = %q", r.StartTime)
}

func list[T any](verb string, items []T) string {
	out := make([]string, len(items))
	for i, item := range items {
		out[i] = fmt.Sprintf(verb, item)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// path is the attribute at fault: as much of the problem's field as the schema
// knows.
func (r refusal) path(err error) path.Path {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok || p.Field == "" || r.schema == nil {
		return r.fallback
	}
	field := p.Field
	if to, ok := r.renamed[field]; ok {
		field = to
	}
	found := path.Empty()
	for step := range strings.SplitSeq(field, ".") {
		next := found.AtName(step)
		if _, diags := r.schema.AttributeAtPath(context.Background(), next); diags.HasError() {
			break
		}
		found = next
	}
	if found.Equal(path.Empty()) {
		return r.fallback
	}
	return found
}
