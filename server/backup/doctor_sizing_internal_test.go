package backup

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// fleet is that many VMs of one disk each, of which half holds data.
func fleet(n int, capacity int64) sizingInput {
	in := sizingInput{vcenter: VCenter{Meta: Meta{ID: "vc"}}.Defaulted(), ids: map[string]string{}, history: map[string][]Image{}, booked: map[string]time.Duration{}, rate: 100 << 20}
	for i := range n {
		vm := SurveyedVM{Transport: TransportNFC, Allocated: capacity / 2}
		vm.MOID, vm.Name, vm.Host = fmt.Sprintf("vm-%d", i), fmt.Sprintf("vm%d", i), fmt.Sprintf("esx%d", i%2)
		vm.Disks = []VMDisk{{Key: 2000, Capacity: capacity, File: "[ds] a.vmdk"}}
		vm.Datastores = []string{fmt.Sprintf("ds%d", i)}
		in.vms = append(in.vms, vm)
		in.ids[vm.MOID] = "id-" + vm.Name
	}
	return in
}

func TestANightIsAsLongAsTheLimitsMakeIt(t *testing.T) {
	const each = 100 * time.Second // 10,000 MiB at 100 MiB/s
	capacity := int64(20_000 << 20)
	for name, c := range map[string]struct {
		vms    int
		change func(*sizingInput)
		want   time.Duration
	}{
		"one VM":                      {1, nil, each},
		"as many as run at once":      {8, nil, each},
		"one more than run at once":   {9, nil, 2 * each},
		"one disk per host at a time": {4, func(in *sizingInput) { in.vcenter.Limits.DisksPerHost = 1 }, 2 * each},
		"one disk of the vcenter":     {4, func(in *sizingInput) { in.vcenter.Limits.Disks = 1 }, 4 * each},
		"all on one datastore": {8, func(in *sizingInput) {
			for i := range in.vms {
				in.vms[i].Datastores = []string{"ds"}
			}
		}, 2 * each},
		"two servers' worth of slots":     {16, func(in *sizingInput) { in.slots = 16 }, each},
		"bandwidth is what limits":        {8, func(in *sizingInput) { in.vcenter.Limits.BytesPerSecond = 100 << 20 }, 8 * each},
		"only what is scheduled counts":   {8, func(in *sizingInput) { in.booked["id-vm0"], in.slots = time.Hour, 1 }, each},
		"templates are not backed up":     {2, func(in *sizingInput) { in.vms[0].Template, in.slots = true, 1 }, each},
		"nor what nothing can be read of": {2, func(in *sizingInput) { in.vms[0].Disks[0].Unprotectable, in.slots = "no", 1 }, each},
	} {
		in := fleet(c.vms, capacity)
		if c.change != nil {
			c.change(&in)
		}
		if got := size(in).Night.Round(time.Second); got != c.want {
			t.Errorf("%s: the night takes %s, want %s", name, got, c.want)
		}
	}
}

func TestAVMIsReckonedByItsOwnBackupsWhereThereAreAny(t *testing.T) {
	in := fleet(3, 20<<30)
	in.rate = 0
	at := doctorNow
	image := func(read int64, took time.Duration) Image {
		return Image{StartedAt: at, EndedAt: at.Add(took), Sizes: Sizes{Read: read}}
	}
	in.history["id-vm0"] = []Image{image(4<<30, 40*time.Second), image(5<<30, 50*time.Second), image(1<<30, time.Second)}
	in.history["id-vm1"] = []Image{image(1<<20, time.Second)} // tells nothing of others
	s := size(in)
	rows := map[string]SizingRow{}
	for _, r := range s.Rows {
		rows[r.Name] = r
	}
	if r := rows["vm0"]; !r.Measured || r.Takes != 40*time.Second || r.Read != 4<<30 || r.Lease != r.Takes {
		t.Errorf("vm0 = %+v, want the median of its own three", r)
	}
	want := int64(4<<30) / 40
	if r := rows["vm2"]; r.Measured || r.Rate != want || r.Read != 10<<30 || s.Rate != want {
		t.Errorf("vm2 = %+v, want what is allocated at the rate of vm0, %d", r, want)
	}
	if s.Measured != 2 {
		t.Errorf("%d measured, want 2", s.Measured)
	}
	in.history = nil
	if s := size(in); s.Rate != assumedRate {
		t.Errorf("rate = %d, want the assumption %d", s.Rate, int64(assumedRate))
	}
}

func TestWhatDoesNotFitIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*sizingInput)
		check  string
		misfit string
	}{
		"a lease of five hours": {func(in *sizingInput) { in.vms[0].Disks[0].Capacity, in.vms[0].Allocated = 4<<40, 5*3600*100<<20 }, "sizing.lease", "longer than 4 h"},
		"nine hours without a lease": {func(in *sizingInput) {
			in.vms[0].Disks[0].Capacity, in.vms[0].Allocated, in.vms[0].Transport = 4<<40, 9*3600*100<<20, TransportNBD
		}, "sizing.window", "window of 8 h"},
		"two hours where one is held": {func(in *sizingInput) {
			in.vms[0].Disks[0].Capacity, in.vms[0].Allocated, in.booked["id-vm0"] = 4<<40, 2*3600*100<<20, time.Hour
		}, "sizing.booked", "books 1 h"},
	} {
		in := fleet(2, 1<<30)
		c.change(&in)
		s := size(in)
		if !strings.Contains(s.Rows[0].Misfit, c.misfit) || s.Rows[0].Name != "vm0" || s.Rows[1].Misfit != "" {
			t.Errorf("%s: rows = %+v, want that of vm0 %q", name, s.Rows, c.misfit)
		}
		var f findings
		f.examineSizing(s)
		if f.all[0].Check != c.check || f.all[0].Severity != FindingWarning || !strings.Contains(f.all[0].Seen, "vm0") {
			t.Errorf("%s: findings = %+v, want a warning of %s that names vm0", name, f.all, c.check)
		}
	}
}

func TestTheNightOfThousandsOfVMsIsReckoned(t *testing.T) {
	const vms = 4000
	in := fleet(vms, 2<<30) // ten seconds each, eight at a time
	if s := size(in); len(s.Rows) != vms || s.Night.Round(time.Second) != vms/8*1024*time.Second/100 {
		t.Errorf("night = %s of %d, want that of %d", s.Night, len(s.Rows), vms)
	}
}
