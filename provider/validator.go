package provider

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Field rules that can be told without the server. Those of the calendar are
// the domain's own, so that plan and server never disagree.

// startTime is a whole hour.
func startTime() validator.String {
	return stringvalidator.RegexMatches(regexp.MustCompile(`^([01][0-9]|2[0-3]):00$`),
		`must be a whole hour from "00:00" to "23:00", for a backup starts within an hour and not at a minute`)
}

// nameLength is the length of the names of groups, schedules and vcenters.
func nameLength() validator.String { return stringvalidator.UTF8LengthBetween(1, 128) }

// timeZone is the name of an IANA zone, checked against the embedded tzdata.
type timeZone struct{}

func (timeZone) Description(context.Context) string             { return "must be an IANA time zone" }
func (v timeZone) MarkdownDescription(c context.Context) string { return v.Description(c) }

func (timeZone) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if _, err := (backup.Recurrence{TimeZone: req.ConfigValue.ValueString()}).Location(); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Time zone is not valid", domainText(err))
	}
}

// date is a day that exists, as YYYY-MM-DD.
type date struct{}

func (date) Description(context.Context) string             { return "must be a day as YYYY-MM-DD" }
func (v date) MarkdownDescription(c context.Context) string { return v.Description(c) }

func (date) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if _, err := backup.ParseDate(req.Path.String(), req.ConfigValue.ValueString()); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Date is not valid", domainText(err))
	}
}

// duration is a positive span of time such as 30s.
type duration struct{}

func (duration) Description(context.Context) string             { return "must be a duration such as 30s" }
func (v duration) MarkdownDescription(c context.Context) string { return v.Description(c) }

func (duration) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if d, err := time.ParseDuration(req.ConfigValue.ValueString()); err != nil || d <= 0 {
		resp.Diagnostics.AddAttributeError(req.Path, "Duration is not valid",
			fmt.Sprintf("A duration is written as 30s, 2m or 1h30m, got %q.", req.ConfigValue.ValueString()))
	}
}

// nameRegex is a regular expression in Go's syntax.
type nameRegex struct{}

func (nameRegex) Description(context.Context) string             { return "must be a regular expression" }
func (v nameRegex) MarkdownDescription(c context.Context) string { return v.Description(c) }

func (nameRegex) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if _, err := regexp.Compile(req.ConfigValue.ValueString()); err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "Regular expression is not valid",
			fmt.Sprintf("%s\nThe syntax is Go's (RE2); write backslashes twice, or once within a heredoc.", sentence(err)))
	}
}

// imageOnly explains why the other kind of backup is refused.
type imageOnly struct{}

func (imageOnly) Description(context.Context) string             { return `must be "image"` }
func (v imageOnly) MarkdownDescription(c context.Context) string { return v.Description(c) }

func (imageOnly) ValidateString(_ context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() || req.ConfigValue.ValueString() == "image" {
		return
	}
	resp.Diagnostics.AddAttributeError(req.Path, "Only image backups are made", fmt.Sprintf(
		"backup_type is %q.\nKura keeps images of whole virtual machines, read from outside the guest; it has no agent inside that could read single files.\nSet backup_type = \"image\" or leave it out. A restored copy of a machine (kura_restore with new_vm) gives its files back.",
		req.ConfigValue.ValueString()))
}

func domainText(err error) string {
	if e := backup.AsError(err); e != nil {
		return e.Message
	}
	return sentence(err)
}

// oneForm asks for exactly one of the named attributes of a nested object.
type oneForm []string

func (v oneForm) Description(context.Context) string {
	return "needs exactly one of " + strings.Join(v, ", ")
}
func (v oneForm) MarkdownDescription(c context.Context) string { return v.Description(c) }

func (v oneForm) ValidateObject(_ context.Context, req validator.ObjectRequest, resp *validator.ObjectResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	var given []string
	unknown := false
	for _, name := range v {
		a := req.ConfigValue.Attributes()[name]
		switch {
		case a.IsUnknown():
			unknown = true
		case !a.IsNull():
			given = append(given, name)
		}
	}
	if len(given) == 1 || len(given) == 0 && unknown {
		return
	}
	got := "none of them is"
	if len(given) > 1 {
		got = strings.Join(given, " and ") + " are"
	}
	resp.Diagnostics.AddAttributeError(req.Path, "Days are not named once", fmt.Sprintf(
		"The days are named by exactly one of %s; %s set.\nKeep one of them.", strings.Join(v, ", "), got))
}
