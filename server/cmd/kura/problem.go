package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// What the program may end with.
const (
	statusDone        = 0
	statusFailed      = 1
	statusWrongUse    = 2
	statusUnreachable = 3
)

// wrongUse is an error of the command line, not of what it asks for.
type wrongUse string

func (w wrongUse) Error() string { return string(w) }

func usef(format string, args ...any) error { return wrongUse(fmt.Sprintf(format, args...)) }

// failure is an error in a sentence of its own.
type failure string

func (f failure) Error() string { return string(f) }

func failf(format string, args ...any) error { return failure(fmt.Sprintf(format, args...)) }

// unknown says that nothing has a name.
type unknown string

func (u unknown) Error() string { return string(u) }

// hinted is an error with what to do about it, on a line of its own.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

func status(ctx context.Context, err error) int {
	var use wrongUse
	var parse *kong.ParseError
	switch {
	case errors.As(err, &use), errors.As(err, &parse):
		return statusWrongUse
	case ctx.Err() == nil && unreachable(err):
		return statusUnreachable
	}
	return statusFailed
}

// unreachable says whether no kura server answered: nobody did, a proxy that
// found none, or somebody else.
func unreachable(err error) bool {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p.Type == "about:blank" && (p.Code == api.ErrorCodeUnavailable || p.Code == api.ErrorCodeInternal)
	}
	return api.Unreachable(err)
}

// report tells why the command failed.
func report(w io.Writer, err error) {
	var use wrongUse
	var parse *kong.ParseError
	problem, refused := errors.AsType[*api.Problem](err)
	switch {
	case errors.As(err, &parse):
		fmt.Fprintf(w, "kura: %s\n", clean(err.Error()))
		fmt.Fprintf(w, "Run \"%s --help\" for more.\n", commandOf(parse))
	case errors.As(err, &use):
		fmt.Fprintf(w, "kura: %s\n", clean(use.Error()))
	case refused:
		reportProblem(w, problem)
	case unreachable(err):
		fmt.Fprintf(w, "kura: The server cannot be reached: %s\n", clean(err.Error()))
		fmt.Fprintln(w, "Name it with --endpoint or KURA_ENDPOINT; --ca-certificate makes its certificate trusted.")
	default:
		fmt.Fprintf(w, "kura: %s\n", clean(err.Error()))
	}
	if h, ok := errors.AsType[hinted](err); ok {
		if h.hint != "" {
			fmt.Fprintln(w, clean(h.hint))
		}
	}
}

func commandOf(err *kong.ParseError) string {
	if err.Context != nil {
		if selected := err.Context.Selected(); selected != nil {
			return selected.FullPath()
		}
	}
	return "kura"
}

func reportProblem(w io.Writer, p *api.Problem) {
	fmt.Fprintf(w, "kura: %s\n", clean(p.Title))
	if p.Detail != "" && p.Detail != p.Title {
		fmt.Fprintf(w, "  %s\n", clean(p.Detail))
	}
	for _, r := range p.Recommendations {
		fmt.Fprintf(w, "  Free: %s.\n", clean(recommendation(r)))
	}
	if p.Code == api.ErrorCodeUnauthenticated {
		fmt.Fprintln(w, "  Give a token with KURA_TOKEN, --token-file or --token.")
	}
	line := "  Code: " + string(p.Code)
	if p.Field != "" {
		line += "   Field: " + p.Field
	}
	if p.RequestID != "" {
		line += "   Request: " + p.RequestID
	}
	fmt.Fprintln(w, clean(line))
}

// recommendation says in words what can be booked instead.
func recommendation(r api.Recommendation) string {
	text := r.StartTime
	switch {
	case r.Kind == api.RecommendationKindSameDay:
		text += " on the same day"
	case r.Date != "":
		text += " on " + r.Date
	case r.StartDate != "":
		text += " from " + r.StartDate + " on"
	case len(r.DaysOfWeek) > 0:
		text += " on " + join(r.DaysOfWeek)
	case len(r.DaysOfMonth) > 0:
		text += " on day " + join(r.DaysOfMonth) + " of the month"
	case r.WeekDayOfMonth != nil:
		text += fmt.Sprintf(" on the %s %s of the month", r.WeekDayOfMonth.WeekOfMonth, r.WeekDayOfMonth.DayOfWeek)
	}
	return text + ", " + count(r.FreeSeats, "seat") + " left after it"
}

func join[T any](items []T) string {
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = fmt.Sprint(item)
	}
	return strings.Join(words, ", ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if stem, ok := strings.CutSuffix(what, "y"); ok && what != "day" {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
