package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/resourcevalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var (
	_ resource.ResourceWithConfigure        = (*scheduleResource)(nil)
	_ resource.ResourceWithConfigValidators = (*scheduleResource)(nil)
	_ resource.ResourceWithIdentity         = (*scheduleResource)(nil)
	_ resource.ResourceWithImportState      = (*scheduleResource)(nil)
	_ resource.ResourceWithModifyPlan       = (*scheduleResource)(nil)
)

type scheduleResource struct{ resourceConnection }

func (r *scheduleResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "kura_backup_schedule"
}

func (r *scheduleResource) IdentitySchema(_ context.Context, _ resource.IdentitySchemaRequest, resp *resource.IdentitySchemaResponse) {
	resp.IdentitySchema = identitySchema("schedule")
}

func (r *scheduleResource) ConfigValidators(context.Context) []resource.ConfigValidator {
	return []resource.ConfigValidator{
		resourcevalidator.ExactlyOneOf(path.MatchRoot("group_id"), path.MatchRoot("virtual_machine_id")),
		resourcevalidator.ExactlyOneOf(path.MatchRoot("one_time"), path.MatchRoot("daily"), path.MatchRoot("weekly"), path.MatchRoot("monthly")),
		resourcevalidator.Conflicting(path.MatchRoot("start_time"), path.MatchRoot("start_window")),
	}
}

func (r *scheduleResource) refusal(s schema.Schema, body api.BackupSchedule) refusal {
	var short api.ShortMonths
	if body.Monthly != nil {
		short = body.Monthly.ShortMonths
	}
	return refusal{
		conn: r.conn, schema: &s, fallback: path.Root("start_time"), short: short,
		renamed: map[string]string{"short_months": "monthly.short_months"},
		advice: map[api.ErrorCode]string{
			api.ErrorCodeConflict: "Choose another name, or import the schedule that has it: terraform import kura_backup_schedule.NAME name/<name>",
			api.ErrorCodeInUse:    "Apply deletion_protection = false first, then destroy it.",
			api.ErrorCodeVMGone:   "Name another machine, or destroy the schedule; images of the machine stay.",
		},
	}
}

func (r *scheduleResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var body api.BackupSchedule
	createObject(ctx, r.refuser(&body), req, resp, func(ctx context.Context, m *scheduleModel) (s api.BackupSchedule, err error) {
		if body = m.wire(ctx, &resp.Diagnostics); resp.Diagnostics.HasError() {
			return s, nil
		}
		r.conn.ledger.begins()
		err = r.conn.ledger.retry(ctx, func() (err error) {
			s, err = made(r.conn.client.CreateBackupScheduleWithResponse(ctx, &api.CreateBackupScheduleParams{IdempotencyKey: newKey()}, body))
			return err
		})
		r.conn.ledger.forget(byName + body.Name) // from here on the server knows
		warnOfUnbooked(s, &resp.Diagnostics)
		return s, err
	})
}

// refuser knows the schedule that was asked for, once there is one.
func (r *scheduleResource) refuser(body *api.BackupSchedule) refuser {
	return func(s schema.Schema) refusal { return r.refusal(s, *body) }
}

func (r *scheduleResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	readObject[scheduleModel](ctx, r.resourceConnection, r.refuser(&api.BackupSchedule{}), req, resp, func(ctx context.Context, id string) (api.BackupSchedule, error) {
		s, err := found(r.conn.client.GetBackupScheduleWithResponse(ctx, id))
		if err == nil {
			r.conn.ledger.read(s.ID)
		}
		return s, err
	})
}

func (r *scheduleResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var body api.BackupSchedule
	updateObject(ctx, r.refuser(&body), req, resp, func(ctx context.Context, m *scheduleModel) (s api.BackupSchedule, err error) {
		if body = m.wire(ctx, &resp.Diagnostics); resp.Diagnostics.HasError() {
			return s, nil
		}
		id := m.ID.ValueString()
		r.conn.ledger.begins()
		r.conn.ledger.wants(id, body)
		err = r.conn.ledger.retry(ctx, func() (err error) {
			if s, err = found(r.conn.client.UpdateBackupScheduleWithResponse(ctx, id, &api.UpdateBackupScheduleParams{}, body)); api.CodeOf(err) == api.ErrorCodeSlotFull {
				s, err = r.moved(ctx, id, err)
			}
			return err
		})
		r.conn.ledger.forget(id) // from here on the server knows
		warnOfUnbooked(s, &resp.Diagnostics)
		return s, err
	})
}

// moved changes the schedule together with those that wait for seats like it
// does, for they may hold each other's. Who finds no room even so is left out.
// refused is why the schedule cannot be changed alone.
func (r *scheduleResource) moved(ctx context.Context, id string, refused error) (api.BackupSchedule, error) {
	all := r.conn.ledger.waits(id)
	for len(all) > 1 {
		done, err := found(r.conn.client.MoveBackupSchedulesWithResponse(ctx, &api.MoveBackupSchedulesParams{IdempotencyKey: newKey()}, api.BackupScheduleMove{Schedules: all}))
		if err == nil && len(done.Items) == len(all) {
			return done.Items[0], nil
		}
		i := placeIn(err)
		if i <= 0 || i >= len(all) {
			break
		}
		all = slices.Delete(all, i, i+1)
	}
	return api.BackupSchedule{}, refused
}

// placeIn is which one of several schedules was refused, negative for none: its
// field is written as schedules.1.start_time.
func placeIn(err error) int {
	p, ok := errors.AsType[*api.Problem](err)
	if !ok {
		return -1
	}
	rest, named := strings.CutPrefix(p.Field, "schedules.")
	number, _, _ := strings.Cut(rest, ".")
	if i, err := strconv.Atoi(number); named && err == nil {
		return i
	}
	return -1
}

// warnOfUnbooked tells of machines that came into the group when its hours were
// full. That is no error: they are backed up when the hour has room.
func warnOfUnbooked(s api.BackupSchedule, diags *diag.Diagnostics) {
	if s.UnbookedSeats == 0 {
		return
	}
	diags.AddAttributeWarning(path.Root("group_id"), "Some machines have no seat", fmt.Sprintf(
		"The group of schedule %q has grown: %d of its machines found no room in its hours (%s).\nThose machines start only while fewer backups run than the hour has seats, so some may start late or be missed.\n"+
			"Make room: another start_time, more window_hours, or a larger slot_capacity of the vcenter.", s.Name, s.UnbookedSeats, s.Summary))
}

func (r *scheduleResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	deleteObject(ctx, r.refuser(&api.BackupSchedule{}), req, resp, func(ctx context.Context, m *scheduleModel) error {
		r.conn.ledger.begins()
		defer r.conn.ledger.forget(m.ID.ValueString())
		return gone(r.conn.client.DeleteBackupScheduleWithResponse(ctx, m.ID.ValueString()))
	})
}

func (r *scheduleResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	importObject(ctx, r.resourceConnection, "schedule", func(name string) ([]string, error) {
		page, err := found(r.conn.client.ListBackupSchedulesWithResponse(ctx, &api.ListBackupSchedulesParams{Name: name}))
		var ids []string
		for _, s := range page.Items {
			ids = append(ids, s.ID)
		}
		return ids, err
	}, req, resp)
}
