package backup_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestAChangeIdIsTrustedOnlyWhereNothingSpeaksAgainstIt(t *testing.T) {
	t.Parallel()
	base := backup.ImageDisk{Key: 2000, Capacity: 1 << 30, UUID: "u", ChangeID: "52 aa/3", File: "[ds] a/a.vmdk"}
	now := backup.DiskDraft{Key: 2000, Capacity: 1 << 30, UUID: "u", ChangeID: "52 aa/7", File: "[ds] a/a.vmdk"}
	cases := map[string]struct {
		change func(base *backup.ImageDisk, now *backup.DiskDraft)
		want   backup.DoubtReason
	}{
		"nothing":                        {func(*backup.ImageDisk, *backup.DiskDraft) {}, ""},
		"the base lacks the disk":        {func(b *backup.ImageDisk, _ *backup.DiskDraft) { *b = backup.ImageDisk{} }, backup.DoubtBase},
		"the base skipped the disk":      {func(b *backup.ImageDisk, _ *backup.DiskDraft) { b.SkippedReason = "independent" }, backup.DoubtBase},
		"the disk has grown":             {func(_ *backup.ImageDisk, d *backup.DiskDraft) { d.Capacity++ }, backup.DoubtCapacity},
		"the disk has shrunk":            {func(_ *backup.ImageDisk, d *backup.DiskDraft) { d.Capacity-- }, backup.DoubtCapacity},
		"another disk is at the key":     {func(_ *backup.ImageDisk, d *backup.DiskDraft) { d.UUID = "v" }, backup.DoubtDisk},
		"tracking is off":                {func(_ *backup.ImageDisk, d *backup.DiskDraft) { d.ChangeID = "" }, backup.DoubtOff},
		"tracking was off":               {func(b *backup.ImageDisk, _ *backup.DiskDraft) { b.ChangeID = "" }, backup.DoubtFresh},
		"another epoch":                  {func(_ *backup.ImageDisk, d *backup.DiskDraft) { d.ChangeID = "52 ab/7" }, backup.DoubtEpoch},
		"another file":                   {func(_ *backup.ImageDisk, d *backup.DiskDraft) { d.File = "[ds] a/a-000002.vmdk" }, backup.DoubtFile},
		"the snapshot speaks against it": {func(_ *backup.ImageDisk, d *backup.DiskDraft) { d.Doubt = backup.Doubtf(backup.DoubtSnapshot, "s") }, backup.DoubtSnapshot},
		"it lied before":                 {func(b *backup.ImageDisk, _ *backup.DiskDraft) { b.TrackingDoubt = backup.DoubtLie }, backup.DoubtBefore},
	}
	for name, c := range cases {
		b, d := base, now
		c.change(&b, &d)
		var got backup.DoubtReason
		if doubt := d.Since(b); doubt != nil {
			got = doubt.Reason
			if doubt.Text == "" {
				t.Errorf("%s: the doubt has no text", name)
			}
		}
		if got != c.want {
			t.Errorf("%s: doubted for %q, want %q", name, got, c.want)
		}
	}
}

func TestAFullCompareIsDueByTurnsAndNeverAfter35Days(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	first := map[int]int{}
	for key := range int32(200) {
		d := backup.ImageDisk{Key: key, FullCompareAt: at}
		for n := 1; ; n++ {
			now := at.Add(time.Duration(n) * day)
			due := d.DueForCompare(backup.Image{VMInstanceUUID: "u", StartedAt: now.Add(-day)}, now)
			if due != backup.CompareNot {
				first[n]++
				break
			}
		}
		for gap, want := range map[time.Duration]backup.CompareDue{time.Hour: backup.CompareNot, 7 * day: backup.CompareNot, 15 * day: backup.CompareMust} {
			now := at.Add(21 * day)
			if got := d.DueForCompare(backup.Image{VMInstanceUUID: "u", StartedAt: now.Add(-gap)}, now); got != want {
				t.Errorf("21 days after, with images every %s: %d, want %d", gap, got, want)
			}
		}
		if got := d.DueForCompare(backup.Image{VMInstanceUUID: "u", StartedAt: at.Add(34 * day)}, at.Add(35*day)); got != backup.CompareMust {
			t.Errorf("at 35 days: %d, want it done regardless", got)
		}
		if got := (backup.ImageDisk{Key: key}).DueForCompare(backup.Image{StartedAt: at}, at); got != backup.CompareMust {
			t.Errorf("of a disk of which it is not known: %d, want it done", got)
		}
	}
	for n := 28; n <= 34; n++ {
		if first[n] < 200/7/2 || first[n] > 200/7*2 {
			t.Errorf("disks by the day on which they may first be compared: %s; want about as many each day", fmt.Sprint(first))
			break
		}
	}
}

func TestAnImageTellsTheWorstOfItsDisks(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	cbt := backup.ImageDisk{ChangeDetection: backup.DetectCBT, FullCompareAt: at}
	compare := backup.ImageDisk{ChangeDetection: backup.DetectCompare, FullCompareAt: at.Add(time.Hour)}
	full := backup.ImageDisk{ChangeDetection: backup.DetectFull, FullCompareAt: at.Add(2 * time.Hour)}
	skipped := backup.ImageDisk{SkippedReason: "independent"}
	for _, c := range []struct {
		disks []backup.ImageDisk
		want  backup.ChangeDetection
		at    time.Time
	}{
		{[]backup.ImageDisk{cbt, skipped}, backup.DetectCBT, at},
		{[]backup.ImageDisk{skipped, compare, cbt}, backup.DetectCompare, at},
		{[]backup.ImageDisk{compare, full}, backup.DetectFull, at.Add(time.Hour)},
		{[]backup.ImageDisk{cbt, full}, backup.DetectFull, at},
		{[]backup.ImageDisk{skipped}, backup.DetectFull, time.Time{}},
	} {
		i := backup.Image{Disks: c.disks}
		if i.Summarize(); i.ChangeDetection != c.want || !i.FullCompareAt.Equal(c.at) {
			t.Errorf("%v: found by %q, last compared %s; want %q and %s", c.disks, i.ChangeDetection, i.FullCompareAt, c.want, c.at)
		}
	}
}
