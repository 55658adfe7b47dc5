package server_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// lie is a way in which vSphere's change tracking tells something else than
// what has changed, or nothing.
type lie struct {
	name   string
	before func(v *liar) // before the image that is built upon
	then   func(v *liar) // between the guest's writes and the backup
	disk   int64         // bytes of the disk; default 8 MiB
	either bool          // what comes of it has nothing to do with the transport
}

// lies are all that the lab can tell. An order of the table as well.
func lies() []lie {
	fault := func(kind string, count int) func(*liar) {
		return func(v *liar) { v.done(v.lab.Arm(lab.Fault{Kind: kind, VM: v.vm, Count: count})) }
	}
	return []lie{
		{name: "the truth"},
		{name: "an answer in pages of one area", then: fault("cbt_truncate", -1)},
		{name: "an empty page in the middle", then: fault("cbt_empty", 1)},
		{name: "changed blocks left out", then: fault("cbt_wrong", 1)},
		{name: "an area behind the disk's end", either: true, then: fault("cbt_beyond", 1)},
		{name: "areas that go back", either: true, then: fault("cbt_unordered", 1)},
		{name: "a page of no length", either: true, then: fault("cbt_stuck", 1)},
		{name: "a fault instead of an answer", then: fault("cbt_fault", 1)},
		{name: "no permission to ask", either: true, then: func(v *liar) {
			v.done(v.lab.Arm(lab.Fault{Kind: "permission_denied", VM: v.vm, Method: "QueryChangedDiskAreas"}))
		}},
		{name: "a reset, as by a crash of the host", then: func(v *liar) { v.done(v.lab.ResetChanges(v.vm)) }},
		{name: "a reset at the snapshot itself", either: true, then: fault("cbt_reset", 1)},
		{name: "tracking switched off and on by others", either: true, then: func(v *liar) {
			v.done(v.lab.SetTracking(v.vm, false))
			v.done(v.lab.Snapshot(v.vm, "stun"))
			v.done(v.lab.RemoveSnapshots(v.vm))
			v.done(v.lab.SetTracking(v.vm, true))
		}},
		{name: "tracking switched off by others", either: true, then: func(v *liar) { v.done(v.lab.SetTracking(v.vm, false)) }},
		{name: "a revert to a snapshot", either: true, before: standing, then: func(v *liar) { v.done(v.lab.Revert(v.vm)) }},
		{name: "a revert that leaves the change ids as they were", before: standing, then: func(v *liar) {
			v.done(v.lab.Arm(lab.Fault{Kind: "cbt_revert", VM: v.vm}))
			v.done(v.lab.Revert(v.vm))
		}},
		{name: "tracking switched on while a snapshot stood", before: func(v *liar) {
			v.done(v.lab.Snapshot(v.vm, "standing"))
			v.done(v.lab.SetTracking(v.vm, true))
		}},
		{name: "a snapshot of others that comes and stays", either: true, then: func(v *liar) { v.done(v.lab.Snapshot(v.vm, "standing")) }},
		{name: "a restore in place, and no word of it", then: func(v *liar) {
			r := v.restore(api.Restore{ImageID: v.steps[0].image, InPlace: &api.RestoreInPlace{PowerOff: true, Safety: api.SafetyNone}})
			if r.Status != api.JobStateSucceeded {
				v.Fatalf("%s: restore: %+v", v.name, r.Error)
			}
		}},
		{name: "a disk extended past 128 GiB", either: true, disk: 120 << 30, then: func(v *liar) { v.done(v.lab.ExtendDisk(v.vm, 0, 130<<30)) }},
	}
}

// standing makes a snapshot under tracking, and changes what it froze.
func standing(v *liar) {
	v.done(v.lab.SetTracking(v.vm, true))
	v.done(v.lab.Snapshot(v.vm, "standing"))
	v.write(7)
}

// liar is a VM whose change tracking lies.
type liar struct {
	*world
	lie
	vm, id string
	steps  []*told
}

// told is what one backup of it did and said.
type told struct {
	want, run, image, restore, copied string

	detected, said string
	same           bool
}

func (v *liar) done(err error) {
	v.Helper()
	if err != nil {
		v.Fatalf("%s: %v", v.name, err)
	}
}

// write is what the guest writes, a little at each of these MiB.
func (v *liar) write(mib ...int64) {
	v.Helper()
	for _, at := range mib {
		v.done(v.lab.GuestWriteRandom(v.vm, 0, at<<20, 1000, uint64(at)))
	}
}

// start begins a backup of the disk as it is.
func (v *liar) start() {
	v.Helper()
	want, err := v.lab.DataSHA256(v.ctx, v.vm, 0)
	v.done(err)
	v.steps = append(v.steps, &told{want: want, run: v.startBackup(v.id), copied: fmt.Sprintf("%s-%d", v.vm, len(v.steps))})
}

// finished waits for the backup, and notes what it did.
func (v *liar) finished() {
	v.Helper()
	s := v.steps[len(v.steps)-1]
	run := v.finish(s.run)
	if run.State != api.RunStateSucceeded {
		v.Fatalf("%s: backup ended %s: %+v", v.name, run.State, run.Jobs[0].Error)
	}
	i := v.image(run.Jobs[0].ImageID)
	s.image, s.detected = i.ID, string(i.Disks[0].ChangeDetection)
	for _, m := range run.Jobs[0].Messages {
		if strings.Contains(m, "CBT") || strings.Contains(m, "ompared") {
			s.said = strings.TrimSpace(s.said + " " + m)
		}
	}
}

// bringBack begins the restore of what was backed up.
func (v *liar) bringBack() {
	v.Helper()
	s := v.steps[len(v.steps)-1]
	c, err := v.api.CreateRestoreWithResponse(v.ctx, nil, api.Restore{ImageID: s.image, NewVM: &api.RestoreNewVM{Name: s.copied}})
	v.ok(c, err)
	s.restore = c.JSON201.ID
}

// compare holds what was restored against what the guest had.
func (v *liar) compare() {
	v.Helper()
	s := v.steps[len(v.steps)-1]
	if r := v.restored(s.restore); r.Status != api.JobStateSucceeded {
		v.Fatalf("%s: restore: %+v", v.name, r.Error)
	}
	got, err := v.lab.DataSHA256(v.ctx, s.copied, 0)
	v.done(err)
	if s.same = got == s.want; !s.same {
		v.Errorf("%s: backup %d, which found its changes by %s, is not as the guest's disk was", v.name, len(v.steps), s.detected)
	}
}

// row is what became of a lie.
func (v *liar) row() string {
	yes := map[bool]string{true: "yes", false: "no"}
	lied, after := v.steps[1], v.steps[2]
	if lied.said == "" {
		lied.said = "-"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", v.name, lied.detected, lied.said, yes[lied.same], after.detected)
}

// TestNoLieAboutChangedBlocksReachesAnImage tells every lie that the lab knows,
// over a transport that sends whole disks and over one that reads areas, and
// compares what is restored with the guest's disk. docs/dev/changes.md shows it.
//
// seed:W6 seed:W7 seed:W8 seed:H11 seed:N4
func TestNoLieAboutChangedBlocksReachesAnImage(t *testing.T) {
	tables := []struct {
		head string
		rows []string
	}{{head: "hotadd"}, {head: "nfc"}}
	t.Run("over", func(t *testing.T) {
		for n := range tables {
			t.Run(tables[n].head, func(t *testing.T) {
				t.Parallel()
				tables[n].rows = tell(t, tables[n].head == "hotadd")
			})
		}
	})
	if t.Failed() {
		return
	}
	var b bytes.Buffer
	for _, table := range tables {
		fmt.Fprintf(&b, "\n### Over %s\n\n| what is told | the next backup | its message | same bytes | the backup after |\n|---|---|---|---|---|\n%s", table.head, strings.Join(table.rows, ""))
	}
	golden(t, "changes.md", b.Bytes())
}

// tell tells the lies to a server, each about a VM of its own; those that are
// found before anything is read only once.
func tell(t *testing.T, areas bool) []string {
	all := slices.DeleteFunc(lies(), func(l lie) bool { return l.either && !areas })
	l := newLab(t, lab.Config{VMs: 1, DiskSize: 8 << 20})
	var c server.Config
	transport := api.TransportNfc
	if areas {
		uuid, err := l.MakeProxy("vm01")
		if err != nil {
			t.Fatal(err)
		}
		c.ProxyUUID, transport = uuid, api.TransportAuto
		c.OpenDevice = func(ctx context.Context, uuid string, writable bool) (server.Device, error) {
			return l.OpenDevice(ctx, "vm01", uuid, writable)
		}
	}
	for n, lie := range all {
		fill := 0.2
		s := lab.VMSpec{Name: fmt.Sprintf("liar%02d", n), Fill: &fill}
		if lie.disk > 0 {
			fill, s.Disks = 0, []int64{lie.disk}
		}
		if _, err := l.AddVM(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	srv := start(t, c)
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, srv.URL(), srv.OperatorTokenFile())}
	v := w.vcenterWith(api.VCenter{Name: "lab", Transport: transport, Limits: &api.VCenterLimits{JobsPerDatastore: 100}})
	liars := make([]*liar, len(all))
	for n, lie := range all {
		name := fmt.Sprintf("liar%02d", n)
		liars[n] = &liar{world: w, lie: lie, vm: name, id: w.vm(v.ID, name).ID}
	}
	each := func(steps ...func(*liar)) { // all VMs at the same time
		for _, do := range steps {
			for _, v := range liars {
				do(v)
			}
		}
	}
	each(func(v *liar) {
		if v.before != nil {
			v.before(v)
		}
	})
	each((*liar).start, (*liar).finished)
	each(func(v *liar) {
		v.write(1, 3, 5)
		if v.then != nil {
			v.then(v)
		}
	})
	each((*liar).start, (*liar).finished, (*liar).bringBack, (*liar).compare)
	each(func(v *liar) { v.write(2, 6) }, (*liar).start, (*liar).finished)
	if got, want := scrape(t, srv, "kura_cbt_lies_total"), "kura_cbt_lies_total 1"; got != want {
		t.Errorf("the metric is %q, want %q", got, want)
	}
	if got, want := scrape(t, srv, `kura_cbt_distrust_total{reason="fault"}`), `kura_cbt_distrust_total{reason="fault"} 1`; got != want {
		t.Errorf("the metric is %q, want %q", got, want)
	}
	rows := make([]string, len(all))
	for n, v := range liars {
		rows[n] = v.row()
	}
	return rows
}

// golden compares a page's end, from its line "generated" on, with what the
// test has found, or writes it.
func golden(t *testing.T, page string, found []byte) {
	t.Helper()
	const mark = "<!-- generated: KURA_UPDATE_DOCS=1 go test ./server -run TestNoLie -->\n"
	name := filepath.Join("..", "docs", "dev", page)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, tail, ok := bytes.Cut(b, []byte(mark))
	if !ok {
		t.Fatalf("%s has no line %s", page, mark)
	}
	if os.Getenv(updateDocs) != "" {
		if err := os.WriteFile(name, bytes.Join([][]byte{head, found}, []byte(mark)), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(tail, found) {
		t.Errorf("docs/dev/%s tells\n%s\nand the test found\n%s\nWrite it anew with KURA_UPDATE_DOCS=1.", page, tail, found)
	}
}
