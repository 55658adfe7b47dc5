package handler_test

import (
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
)

// What a request costs with token, contract, planner and SQLite, over TCP.
func BenchmarkARequest(b *testing.B) {
	r := newRig(b)
	made := r.schedule(nightly("s", r.vms[0].ID))
	for name, c := range map[string]call{
		"read":           {method: "GET", path: "/v1/backup-schedules/" + made.ID, role: auth.Viewer},
		"1000 timeslots": {method: "GET", path: "/v1/timeslots?who=true&limit=1000&from=2026-12-01T01:00:00Z&to=2027-12-01T00:00:00Z&vcenter_id=" + r.vcenter.ID, role: auth.Viewer},
		"a calendar":     {method: "GET", path: "/v1/backup-schedules/" + made.ID + "/occurrences.ics", role: auth.Viewer},
		"check":          {method: "POST", path: "/v1/backup-schedules:check", role: auth.Viewer, body: api.BackupScheduleCheck{Schedule: nightly("t", r.vms[1].ID)}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if a := r.do(c); a.status != 200 {
					b.Fatalf("%d: %s", a.status, a.body)
				}
			}
		})
	}
}
