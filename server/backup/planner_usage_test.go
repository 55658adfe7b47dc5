package backup_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// usage is what the account tells.
func (h *house) usage(q backup.UsageQuery) backup.UsageReport {
	h.Helper()
	return must(h.Usage(h.ctx, q))(h.T)
}

// imageOf puts an image of that size into the catalogue.
func (h *house) imageOf(vm backup.VirtualMachine, started time.Time, days int, change func(*backup.Image)) backup.Image {
	h.Helper()
	i := backup.Image{ID: backup.NewID(started), VCenterID: vm.VCenterID, VMID: vm.ID, VMName: vm.Name, RepositoryID: h.repository.ID, Status: backup.ImageGood,
		StartedAt: started, PointInTime: started, ExpiresAt: backup.ExpiresAt(started, days), Sizes: backup.Sizes{Provisioned: 1 << 30, Read: 1 << 29, Stored: 1 << 28}}
	if change != nil {
		change(&i)
	}
	h.update(func(tx backup.Tx) error { return tx.InsertImage(h.ctx, i) })
	return i
}

// lines tells a report's items as text.
func usageLines(r backup.UsageReport) []string {
	out := []string{}
	for _, i := range r.Items {
		line := fmt.Sprintf("%s: %d images, %d h, %g GiB h", i.Name, i.Images, i.Hours, i.GiBHours())
		if !i.From.IsZero() {
			line = i.From.Format("2006-01-02T15-") + i.To.Format("2006-01-02T15") + line
		}
		if i.Vanished {
			line += ", vanished"
		}
		out = append(out, line)
	}
	return out
}

// seed:N86 1 April 00:00 in Tokyo, kept for one day.
func TestADayInTokyoLiesOnTwoDaysAndInTwoMonthsOfUTC(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	tokyo := time.FixedZone("JST", 9*3600)
	h.imageOf(vm, time.Date(2026, 4, 1, 0, 0, 0, 0, tokyo), 1, nil)
	q := backup.UsageQuery{From: time.Date(2026, 3, 31, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 4, 2, 0, 0, 0, 0, time.UTC), By: backup.UsageByDay}
	r := h.usage(q)
	want := []string{"2026-03-31T00-2026-04-01T00: 1 images, 9 h, 9 GiB h", "2026-04-01T00-2026-04-02T00: 1 images, 15 h, 15 GiB h"}
	if diff := cmp.Diff(want, usageLines(r)); diff != "" {
		t.Errorf("by day (-want +got):\n%s", diff)
	}
	if r.Total.Images != 1 || r.Total.Hours != 24 {
		t.Errorf("total = %+v, want one image and 24 hours", r.Total)
	}
	q.By = backup.UsageByMonth
	want = []string{"2026-03-31T00-2026-04-01T00: 1 images, 9 h, 9 GiB h", "2026-04-01T00-2026-04-02T00: 1 images, 15 h, 15 GiB h"}
	if diff := cmp.Diff(want, usageLines(h.usage(q))); diff != "" {
		t.Errorf("by month (-want +got):\n%s", diff)
	}
}

// The clock stands at noon of 23 November. seed:N46 seed:N51
func TestUsageIsToldForEachNounAndOfVanishedVMs(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	g := h.addGroup("erp", vms[:1])
	s := nightly("erp nightly", 2)
	s.GroupID = g.ID
	s = h.add(s)
	night := time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC)
	h.imageOf(vms[0], night, 7, func(i *backup.Image) { i.ScheduleID, i.GroupID = s.ID, g.ID }) // counts until 13:00 of today
	h.imageOf(vms[0], night, 1, func(i *backup.Image) { i.ScheduleID, i.GroupID = s.ID, g.ID })
	h.imageOf(vms[1], night.Add(10*time.Minute), 1, func(i *backup.Image) { i.Sizes.Provisioned, i.ScheduleID = 5<<29, "01GONE" })
	h.leave(vms[1])
	h.imageOf(vms[0], time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC), 1, nil) // of another month
	for by, want := range map[backup.UsageBy][]string{
		"":                       {vms[1].Name + ": 1 images, 25 h, 62.5 GiB h, vanished", vms[0].Name + ": 2 images, 59 h, 59 GiB h"},
		backup.UsageBySchedule:   {": 1 images, 25 h, 62.5 GiB h", "erp nightly: 2 images, 59 h, 59 GiB h"},
		backup.UsageByGroup:      {": 1 images, 25 h, 62.5 GiB h", "erp: 2 images, 59 h, 59 GiB h"},
		backup.UsageByRepository: {"default: 3 images, 84 h, 121.5 GiB h"},
		backup.UsageByMonth:      {"2026-11-01T00-2026-11-23T13: 3 images, 84 h, 121.5 GiB h"},
	} {
		r := h.usage(backup.UsageQuery{By: by})
		if diff := cmp.Diff(want, usageLines(r)); diff != "" {
			t.Errorf("by %q (-want +got):\n%s", by, diff)
		}
		if r.Total.Images != 3 || r.Total.Hours != 84 || r.Vanished.Images != 1 || r.Vanished.GiBHours() != 62.5 {
			t.Errorf("by %q: total = %+v, vanished = %+v, want 3 images with 84 hours, one with 62.5 GiB hours", by, r.Total, r.Vanished)
		}
		if want := (backup.Sizes{Provisioned: 9 << 29, Read: 3 << 29, Stored: 3 << 28}); r.Total.Sizes != want || math.Abs(r.Total.Savings()-5.0/6) > 1e-12 {
			t.Errorf("by %q: sizes = %+v, savings %g, want %+v, five sixths", by, r.Total.Sizes, r.Total.Savings(), want)
		}
	}
	r := h.usage(backup.UsageQuery{By: backup.UsageBySchedule})
	if r.Items[0].ID != "01GONE" {
		t.Errorf("usage of a schedule that is gone has id %q, want its id", r.Items[0].ID)
	}
}

// Images of the day are deleted with their job; their hours stay. seed:N53: a
// backup that fails makes no image and so counts nothing.
func TestAnImageThatIsGoneStillCountsForTheHoursThatItWasThere(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	run := must(h.BackupVM(h.ctx, vm.ID, backup.RunOptions{RetentionDays: 1}))(t)
	h.finish(h.claim(), backup.Ending{State: backup.JobFailed, Code: backup.NoSpace, Error: "full"})
	if r := h.usage(backup.UsageQuery{}); len(r.Items) != 0 || r.Total != (backup.Usage{}) {
		t.Fatalf("usage after the failure of run %s = %+v, want none", run.ID, r)
	}
	i := h.imageOf(vm, noon, 7, nil)
	h.clock.pass(3*time.Hour + time.Minute)
	must(h.DeleteImage(h.ctx, i.ID))(t)
	h.clock.pass(48 * time.Hour)
	h.update(func(tx backup.Tx) error { return tx.DeleteImage(h.ctx, i.ID) })
	if got := h.usage(backup.UsageQuery{}).Total; got.Hours != 4 || got.Images != 1 {
		t.Errorf("usage = %+v, want one image for 4 hours", got)
	}
}

// seed:N89
func TestAnImageThatWaitsPastItsDateForANewerOneIsNotCountedMeanwhile(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	s := nightly("s", 2)
	s.VMID = vm.ID
	s = h.add(s)
	h.imageOf(vm, noon, 1, func(i *backup.Image) { i.ScheduleID = s.ID })
	h.clock.pass(24 * time.Hour)
	for range 5 { // the clock is looked at each day, so that it does not leap
		h.clock.pass(23 * time.Hour)
		if e := must(h.Expire(h.ctx))(t); e.Jobs != 0 || e.Kept > 1 {
			t.Fatalf("Expire() = %+v, want the last good image kept", e)
		}
	}
	if len(h.images()) != 1 {
		t.Fatal("the last good image has gone")
	}
	if got := h.usage(backup.UsageQuery{}).Total.Hours; got != 24 {
		t.Errorf("%d hours, want the 24 of its retention", got)
	}
}

func TestUsageIsForgottenAfterThirteenMonthsAndNotBefore(t *testing.T) {
	h := newHouse(t, 10)
	vm := h.addVMs(h.vcenter.ID, 1)[0]
	i := h.imageOf(vm, noon, 1, nil)
	h.update(func(tx backup.Tx) error { return tx.DeleteImage(h.ctx, i.ID) })
	look := func() int {
		h.Helper()
		must(h.Expire(h.ctx))(t) // a leap of the clock: nothing is forgotten for a day
		h.clock.pass(24 * time.Hour)
		must(h.Expire(h.ctx))(t)
		n := 0
		h.update(func(tx backup.Tx) error {
			n = 0
			return tx.EachUsage(h.ctx, time.Time{}, h.clock.Now(), func(backup.UsageEntry) error { n++; return nil })
		})
		return n
	}
	h.clock.set(time.Date(2027, 12, 30, 0, 0, 0, 0, time.UTC))
	if n := look(); n != 1 {
		t.Errorf("%d entries after 13 months, want 1", n)
	}
	h.clock.set(time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC))
	if n := look(); n != 0 {
		t.Errorf("%d entries in the month after, want none", n)
	}
}

// The clock stands at noon of 23 November 2026.
func TestATimeOfWhichThereIsNoAccountIsRefused(t *testing.T) {
	h := newHouse(t, 10)
	begin := time.Date(2025, 10, 1, 0, 0, 0, 0, time.UTC)
	for field, q := range map[string]backup.UsageQuery{
		"from":     {From: begin.Add(-time.Second)},
		"to":       {From: noon, To: noon},
		"group_by": {By: "moon"},
	} {
		_, err := h.Usage(h.ctx, q)
		refused(t, err, backup.Invalid, field)
	}
	for name, c := range map[string]struct{ ask, want backup.UsageQuery }{
		"nothing said": {backup.UsageQuery{}, backup.UsageQuery{From: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), To: noon.Add(time.Hour)}},
		"whole hours":  {backup.UsageQuery{From: begin.Add(59 * time.Minute), To: begin.Add(61 * time.Minute)}, backup.UsageQuery{From: begin, To: begin.Add(2 * time.Hour)}},
		"to come":      {backup.UsageQuery{From: noon.AddDate(0, 1, 0)}, backup.UsageQuery{From: noon.AddDate(0, 1, 0), To: noon.AddDate(0, 1, 0)}},
	} {
		if r := h.usage(c.ask); !r.From.Equal(c.want.From) || !r.To.Equal(c.want.To) {
			t.Errorf("%s: usage of %s to %s, want %s to %s", name, r.From, r.To, c.want.From, c.want.To)
		}
	}
}

// A recount of the hours of random images, day by day.
func TestUsageByDayIsThatOfARecount(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 3)
	dice := rand.New(rand.NewPCG(3, 4))
	begin := time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC)
	days := map[string][2]int64{} // images and hours
	for range 60 {
		started := begin.Add(time.Duration(dice.Int64N(int64(80 * 24 * time.Hour))))
		i := h.imageOf(vms[dice.IntN(3)], started, 1+dice.IntN(20), nil)
		seen := map[string]bool{}
		for hour := i.StartedAt.Truncate(time.Hour); hour.Before(i.ExpiresAt) && !hour.After(noon); hour = hour.Add(time.Hour) {
			d := days[hour.Format(time.DateOnly)]
			if d[1]++; !seen[hour.Format(time.DateOnly)] {
				d[0]++
			}
			seen[hour.Format(time.DateOnly)] = true
			days[hour.Format(time.DateOnly)] = d
		}
	}
	r := h.usage(backup.UsageQuery{From: begin, By: backup.UsageByDay})
	if len(r.Items) != 84 {
		t.Errorf("%d days, want the 84 until today", len(r.Items))
	}
	for _, i := range r.Items {
		want := days[i.From.Format(time.DateOnly)]
		if i.Images != want[0] || i.Hours != want[1] || i.GiBHours() != float64(want[1]) {
			t.Errorf("%s: %d images, %d hours, want %d", i.From.Format(time.DateOnly), i.Images, i.Hours, want)
		}
	}
}
