package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// ModifyPlan refuses at plan what the server would refuse at apply: retentions
// that it does not allow, hours that have no room.
func (r *scheduleResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if !r.reachable() {
		return
	}
	var m scheduleModel
	if req.Plan.Raw.IsNull() {
		resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
		r.conn.ledger.drops(m.ID.ValueString())
		return
	}
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	id := m.ID.ValueString() // none while it is not made
	if req.Plan.Raw.Equal(req.State.Raw) {
		r.conn.ledger.stays(id)
		return
	}
	if r.conn.serverErr != nil {
		resp.Diagnostics.AddWarning("Schedule is not checked", fmt.Sprintf(
			"%s did not answer, so this plan cannot tell whether schedule %q finds room: %s\nThe server checks it at apply.", r.conn.endpoint, m.Name.ValueString(), sentence(r.conn.serverErr)))
		return
	}
	r.checkRetention(m, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	if !req.Config.Raw.IsFullyKnown() {
		r.sayUnchecked(m, &resp.Diagnostics)
		return
	}
	body := m.wire(ctx, &resp.Diagnostics)
	if resp.Diagnostics.HasError() {
		return
	}
	r.check(ctx, plannedSchedule{id: id, body: body, refused: r.refusal(req.Plan.Schema.(schema.Schema), body)}, &resp.Diagnostics)
}

// sayUnchecked tells that the seats are booked at apply only: what they are for
// does not exist yet.
func (r *scheduleResource) sayUnchecked(m scheduleModel, diags *diag.Diagnostics) {
	at := path.Root("group_id")
	if m.VirtualMachineID.IsUnknown() {
		at = path.Root("virtual_machine_id")
	} else if !m.GroupID.IsUnknown() {
		return
	}
	diags.AddAttributeWarning(at, "Seats are booked at apply", fmt.Sprintf(
		"What schedule %q backs up is known only when this plan is applied, so its hours could not be checked for room.\nThe server books them exactly at apply.", m.Name.ValueString()))
}

// checkRetention applies the server's choices, also where the rest of the
// schedule is not known yet.
func (r *scheduleResource) checkRetention(m scheduleModel, diags *diag.Diagnostics) {
	if m.RetentionDays.IsUnknown() {
		return
	}
	days, all := int(m.RetentionDays.ValueInt64()), r.conn.server.RetentionChoices
	for kind, choices := range map[string]struct {
		days  types.Object
		among []int
	}{
		"one_time": {m.OneTime, all.OneTime}, "daily": {m.Daily, all.Daily}, "weekly": {m.Weekly, all.Weekly}, "monthly": {m.Monthly, all.Monthly},
	} {
		if choices.days.IsNull() || len(choices.among) == 0 || slices.Contains(choices.among, days) {
			continue
		}
		nearest := slices.MinFunc(choices.among, func(a, b int) int { return cmp.Compare(max(a-days, days-a), max(b-days, days-b)) })
		diags.AddAttributeError(path.Root("retention_days"), "Retention is not allowed", fmt.Sprintf(
			"retention_days is %d.\nThe server's retention profile (%s) allows a %s schedule %s days.\nNearest: retention_days = %d. The general profile (kura serve --retention-profile general) allows any number.",
			days, r.conn.server.RetentionProfile, kind, strings.Trim(list("%d", choices.among), "[]"), nearest))
	}
}

// plannedSchedule is what a check is about.
type plannedSchedule struct {
	id      string
	body    api.BackupSchedule
	refused refusal
}

// check asks the server for room, with what else this run plans.
func (r *scheduleResource) check(ctx context.Context, p plannedSchedule, diags *diag.Diagnostics) {
	l := r.conn.ledger
	key := l.wants(p.id, p.body)
	before := l.news()
	var result api.BackupScheduleCheckResult
	counted := 0
	err := l.retry(ctx, func() (err error) {
		others := l.others(key, false)
		counted = len(others)
		result, err = r.ask(ctx, p, others)
		return err
	})
	if api.CodeOf(err) == api.ErrorCodeSlotFull && l.open(key) {
		if _, free := r.ask(ctx, p, l.others(key, true)); free == nil {
			p.refused.warn(diags, depends(err))
			return
		}
	}
	switch {
	case err == nil:
		r.warnOf(result, p, diags)
	case outlives(err):
		p.refused.warn(diags, err)
	default:
		alone := l.news() == before
		l.forget(key)
		p.refused.add(diags, counting(err, counted, alone))
	}
}

func (r *scheduleResource) ask(ctx context.Context, p plannedSchedule, others []api.PlannedSchedule) (api.BackupScheduleCheckResult, error) {
	return found(r.conn.client.CheckBackupScheduleWithResponse(ctx, api.BackupScheduleCheck{ID: p.id, Schedule: p.body, Others: others}))
}

// warnOf passes on what may surprise in a schedule that finds room.
func (r *scheduleResource) warnOf(result api.BackupScheduleCheckResult, p plannedSchedule, diags *diag.Diagnostics) {
	surprises(result.Warnings, diags)
	if want, got := p.body.Repository, result.Schedule.Repository; want != "" && got != "" && want != got {
		diags.AddAttributeError(path.Root("repository"), "Repository is named by its name", fmt.Sprintf(
			"%q is the repository %q.\nThe server answers a schedule's repository by name, so an id would differ in every plan.\nSet repository = %q.", want, got, got))
	}
	namesOf(p.body.CopyTo, result.Schedule.CopyTo, diags)
}

// surprises shows the server's warnings, each at what it is about. Those of one
// kind are one: core folds warnings of the same summary.
func surprises(warnings []string, diags *diag.Diagnostics) {
	kinds := []struct {
		sign, at, summary, remedy string
		lines                     []string
	}{
		{"No run in", "monthly", "Some months have no run", "\nTo run in every month: monthly = { last_day = true }, or short_months = \"last_day\" beside days_of_month.", nil},
		{"duration_hours", "duration_hours", "Backups take another time", "", nil},
		{"only the server keeps the lock", "lock", "The storage does not enforce all of the lock", "", nil},
		{"cannot be backed up", "unprotectable_disks", "Not all can be backed up", "", nil},
		{"", "start_time", "Schedule may surprise", "", nil},
	}
	for _, w := range warnings {
		for i := range kinds {
			if strings.Contains(w, kinds[i].sign) {
				kinds[i].lines = append(kinds[i].lines, w)
				break
			}
		}
	}
	for _, k := range kinds {
		if len(k.lines) > 0 {
			diags.AddAttributeWarning(path.Root(k.at), k.summary, strings.Join(k.lines, "\n")+k.remedy)
		}
	}
}

// counting adds to a refused booking what it was counted with. Alone means that
// while it waited, this run planned no other schedule.
func counting(err error, others int, alone bool) error {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok || p.Code != api.ErrorCodeSlotFull {
		return err
	}
	c := *p
	switch {
	case others == 1:
		c.Detail += "\nCounted in: the seats that 1 other schedule of this plan takes and gives up."
	case others > 1:
		c.Detail += fmt.Sprintf("\nCounted in: the seats that %d other schedules of this plan take and give up.", others)
	}
	if alone {
		c.Detail += "\nNo other schedule was planned beside it. If one of this configuration gives seats up there, let Terraform plan both at once: -parallelism=2 or more."
	}
	return &c
}

// depends tells that room depends on schedules that are not planned yet.
func depends(err error) error {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok {
		return err
	}
	c := *p
	c.Title = "Timeslot depends on other changes"
	c.Detail += "\nOther schedules of this plan hold seats there and may give them up. The server decides at apply."
	return &c
}

// keepStartTime keeps the hour that the server picked, or that the
// configuration named before, unless the start window leaves it out.
type keepStartTime struct{}

func (keepStartTime) Description(context.Context) string {
	return "The hour stays while the start window holds it."
}

func (v keepStartTime) MarkdownDescription(c context.Context) string { return v.Description(c) }

func (keepStartTime) PlanModifyString(ctx context.Context, req planmodifier.StringRequest, resp *planmodifier.StringResponse) {
	if !req.ConfigValue.IsNull() || !req.PlanValue.IsUnknown() || req.StateValue.IsNull() {
		return
	}
	var o types.Object
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, path.Root("start_window"), &o)...)
	if o.IsUnknown() {
		return
	}
	if w := read[startWindowModel](ctx, o, &resp.Diagnostics); w != nil {
		hour := req.StateValue.ValueString()
		if w.Earliest.IsUnknown() || w.Latest.IsUnknown() ||
			hour < cmp.Or(w.Earliest.ValueString(), firstHour) || hour > cmp.Or(w.Latest.ValueString(), lastHour) {
			return
		}
	}
	resp.PlanValue = req.StateValue
}

// shortMonths plans the word that the server answers: skip beside days of the
// month where none is given, none beside other days.
type shortMonths struct{}

func (shortMonths) Description(context.Context) string {
	return "Beside days_of_month it is skip where it is not given."
}

func (v shortMonths) MarkdownDescription(c context.Context) string { return v.Description(c) }

func (shortMonths) PlanModifyString(ctx context.Context, req planmodifier.StringRequest, resp *planmodifier.StringResponse) {
	if !req.ConfigValue.IsNull() {
		return
	}
	var days types.Set
	resp.Diagnostics.Append(req.Config.GetAttribute(ctx, req.Path.ParentPath().AtName("days_of_month"), &days)...)
	switch {
	case days.IsUnknown():
		resp.PlanValue = types.StringUnknown()
	case days.IsNull():
		resp.PlanValue = types.StringNull()
	default:
		resp.PlanValue = types.StringValue(string(api.ShortMonthsSkip))
	}
}
