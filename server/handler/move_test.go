package handler_test

import (
	"slices"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
)

// TestSchedulesOfFullHoursChangePlaces over the API: one by one they are
// refused, as one they are done, and who finds no room is named.
func TestSchedulesOfFullHoursChangePlaces(t *testing.T) {
	r := newRig(t) // three seats
	listed := func(name, start string, vms ...string) api.BackupSchedule {
		g := into[api.BackupGroup](r, r.do(call{method: "POST", path: "/v1/backup-groups", role: auth.Backup,
			body: api.BackupGroup{Name: name, VirtualMachineIDs: vms}}), 201)
		s := nightly(name, "")
		s.GroupID, s.StartTime = g.ID, start
		return r.schedule(s)
	}
	a := listed("a", "02:00", r.vms[0].ID, r.vms[1].ID)
	b := listed("b", "03:00", r.vms[2].ID, r.vms[3].ID)
	a.StartTime, b.StartTime = b.StartTime, a.StartTime
	if one := r.do(call{method: "PUT", path: "/v1/backup-schedules/" + a.ID, role: auth.Backup, body: a}); one.status != 409 {
		t.Errorf("one by one: %d, want 409: %s", one.status, one.body)
	}
	move := api.BackupScheduleMove{Schedules: []api.ScheduleMove{{ID: a.ID, Schedule: a}, {ID: b.ID, Schedule: b}}}
	done := into[api.BackupScheduleList](r, r.do(call{method: "POST", path: "/v1/backup-schedules:move", role: auth.Backup, body: move}), 200)
	if len(done.Items) != 2 || done.Items[0].StartTime != "03:00" || done.Items[1].StartTime != "02:00" {
		t.Errorf("changed places: %+v", done.Items)
	}
	move.Schedules[0].Schedule.StartTime = "02:00"
	refused := r.do(call{method: "POST", path: "/v1/backup-schedules:move", role: auth.Backup, body: move})
	if refused.status != 409 || refused.problem.Code != api.ErrorCodeSlotFull || refused.problem.Field != "schedules.0.start_time" || len(refused.problem.Recommendations) == 0 {
		t.Errorf("both at 02:00: %d %+v", refused.status, refused.problem)
	}
	for name, body := range map[string]api.BackupScheduleMove{
		"schedules.1.id":             {Schedules: slices.Repeat(move.Schedules[:1], 2)},
		"schedules.0.retention_days": {Schedules: []api.ScheduleMove{{ID: a.ID, Schedule: api.BackupSchedule{Name: "a", GroupID: a.GroupID, StartTime: "02:00", RetentionDays: 9, Daily: &api.Daily{}}}}},
	} {
		if bad := r.do(call{method: "POST", path: "/v1/backup-schedules:move", role: auth.Backup, body: body}); bad.status != 400 && bad.status != 422 || bad.problem.Field != name {
			t.Errorf("%s: %d %+v", name, bad.status, bad.problem)
		}
	}
}
