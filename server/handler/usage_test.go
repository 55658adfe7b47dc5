package handler_test

import (
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// countedImages are of 40 GiB: one of 1 April in Tokyo, kept for a day, and two
// of VMs with names that a spreadsheet would run.
func countedImages(r *rig) {
	r.t.Helper()
	tokyo := time.FixedZone("JST", 9*3600)
	for n, name := range []string{"vm01", "=cmd()", "\t@sum, of \"all\""} {
		vm := r.vms[n]
		vm.Name = name
		r.must(r.db.Update(r.t.Context(), func(tx backup.Tx) error { return tx.SaveMachines(r.t.Context(), []backup.VirtualMachine{vm}) }))
		r.image(vm, func(i *backup.Image) {
			i.StartedAt = time.Date(2026, 4, 1, 0, 0, 0, 0, tokyo).AddDate(0, 0, 10*n)
			i.ExpiresAt = backup.ExpiresAt(i.StartedAt, 1)
			i.Sizes = backup.Sizes{Provisioned: 40 << 30, Read: 4 << 30, Changed: 2 << 30, Stored: 1 << 30}
		})
	}
}

// seed:N85 seed:N86: days are those of UTC, and tell their beginning in Tokyo.
func TestUsageOfADayInTokyoIsToldInUTC(t *testing.T) {
	r := newRig(t)
	countedImages(r)
	const asked = "from=2026-03-31T00:00:00Z&to=2026-04-02T00:00:00Z&group_by=day&time_zone=Asia/Tokyo"
	a := r.do(call{method: "GET", path: "/v1/usage?" + asked, role: auth.Viewer})
	got := into[api.Usage](r, a, 200)
	item := api.UsageItem{Images: 1, ProvisionedBytes: 40 << 30, ReadBytes: 4 << 30, ChangedBytes: 2 << 30, StoredBytes: 1 << 30, Savings: 0.975}
	march, april := item, item
	march.ImageHours, march.GiBHours, april.ImageHours, april.GiBHours = 9, 360, 15, 600
	midnight := time.Date(2026, 3, 31, 0, 0, 0, 0, time.UTC)
	march.StartsAt, march.EndsAt = midnight, midnight.AddDate(0, 0, 1)
	april.StartsAt, april.EndsAt = march.EndsAt, midnight.AddDate(0, 0, 2)
	march.StartsAtLocal, april.StartsAtLocal = march.StartsAt, april.StartsAt // the same instants
	want := api.Usage{From: midnight, To: april.EndsAt, GroupBy: api.UsageGroupByDay, Items: []api.UsageItem{march, april},
		Total: api.UsageSum{Images: 1, ImageHours: 24, GiBHours: 960, ProvisionedBytes: 40 << 30, ReadBytes: 4 << 30, ChangedBytes: 2 << 30, StoredBytes: 1 << 30, Savings: 0.975}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	if !strings.Contains(string(a.body), `"starts_at_local":"2026-03-31T09:00:00+09:00"`) {
		t.Errorf("answer %s, want the beginning of the day in Tokyo", a.body)
	}
	table := r.do(call{method: "GET", path: "/v1/usage.csv?" + asked, role: auth.Viewer})
	const lines = "group_by,id,name,starts_at,starts_at_local,ends_at,vanished,images,image_hours,gib_hours,provisioned_bytes,read_bytes,stored_bytes,savings,changed_bytes\r\n" +
		"day,,,2026-03-31T00:00:00Z,2026-03-31T09:00:00+09:00,2026-04-01T00:00:00Z,,1,9,360,42949672960,4294967296,1073741824,0.975,2147483648\r\n" +
		"day,,,2026-04-01T00:00:00Z,2026-04-01T09:00:00+09:00,2026-04-02T00:00:00Z,,1,15,600,42949672960,4294967296,1073741824,0.975,2147483648\r\n"
	if got := string(table.body); table.status != 200 || table.header.Get("Content-Type") != "text/csv" || got != lines {
		t.Errorf("%d %s:\n%s\nwant text/csv:\n%s", table.status, table.header.Get("Content-Type"), got, lines)
	}
}

func TestNoNameOfAVMRunsAsAFormulaInASpreadsheet(t *testing.T) {
	r := newRig(t)
	countedImages(r)
	a := r.do(call{method: "GET", path: "/v1/usage.csv?from=2026-03-01T00:00:00Z", role: auth.Viewer})
	lines, err := csv.NewReader(strings.NewReader(string(a.body))).ReadAll()
	if err != nil || len(lines) != 4 {
		t.Fatalf("%d lines (%v), want the head and three VMs: %s", len(lines), err, a.body)
	}
	names := map[string]string{}
	for _, l := range lines[1:] {
		names[l[1]] = l[2]
	}
	want := map[string]string{r.vms[0].ID: "vm01", r.vms[1].ID: "'=cmd()", r.vms[2].ID: `'@sum, of "all"`}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// The clock stands at 00:30 of 1 December.
func TestWhatCannotBeToldOfUsageIsRefusedByItsParameter(t *testing.T) {
	r := newRig(t)
	for field, query := range map[string]string{
		"group_by":  "group_by=colour",
		"time_zone": "time_zone=Mars/Crater",
		"from":      "from=2025-10-31T23:59:59Z",
		"to":        "from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z",
		"month":     "month=2026-11",
	} {
		for _, path := range []string{"/v1/usage?", "/v1/usage.csv?"} {
			a := r.do(call{method: "GET", path: path + query, role: auth.Viewer})
			if a.status != 400 && a.status != 422 || a.problem.Code != api.ErrorCodeInvalid || a.problem.Field != field {
				t.Errorf("%s%s: %d %s of %q, want invalid of %q", path, query, a.status, a.problem.Code, a.problem.Field, field)
			}
		}
	}
	u := into[api.Usage](r, r.do(call{method: "GET", path: "/v1/usage", role: auth.Viewer}), 200)
	month := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	if !u.From.Equal(month) || !u.To.Equal(month.Add(time.Hour)) || u.Items == nil || len(u.Items) != 0 || u.GroupBy != api.UsageGroupByVM {
		t.Errorf("usage without images = %+v, want none of the month so far", u)
	}
}
