package vsphere_test

import (
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// seed:N6 seed:N7
func TestABackupEqualsTheDiskAtTheSnapshotsInstantWhileTheGuestWritesOn(t *testing.T) {
	r := setup(t, small())
	stop, err := r.lab.KeepWriting("vm02", time.Millisecond)
	r.ok(err)
	defer stop()
	snap, err := r.session.CreateSnapshot(t.Context(), r.draft("vm02", "j1"))
	r.ok(err)
	first := r.read(snap)
	for _, d := range snap.Disks {
		r.scribble("vm02", d.Key, 99)
	}
	second := r.read(snap)
	for _, d := range snap.Disks {
		if sum(first.disks[d.Key]) != sum(second.disks[d.Key]) {
			t.Errorf("%s: two reads of one snapshot differ", d.Label)
		}
		if sum(first.disks[d.Key]) == r.guestSum("vm02", d.Key) {
			t.Errorf("%s: the guest wrote, but the snapshot shows it", d.Label)
		}
	}
	r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
}

func TestAStillDiskIsReadByteForByte(t *testing.T) {
	r := setup(t, small())
	img := r.take("vm02", "j1")
	for _, d := range r.vm("vm02").Disks {
		if sum(img.disks[d.Key]) != r.guestSum("vm02", d.Key) {
			t.Errorf("%s: the image differs from the disk", d.Label)
		}
	}
}

func TestAStreamThatIsNotWholeIsAnErrorWorthAnotherTry(t *testing.T) {
	r := setup(t, small())
	for _, kind := range []string{"export_cut", "export_short", "lease_expire", "export_corrupt"} {
		t.Run(kind, func(t *testing.T) {
			snap, err := r.session.CreateSnapshot(t.Context(), r.draft("vm01", kind))
			r.ok(err)
			r.ok(r.lab.Arm(lab.Fault{Kind: kind, After: 600_000}))
			src, err := r.session.ReadDisks(t.Context(), snap, backup.ReadDraft{Keys: []int32{snap.Disks[0].Key}})
			r.ok(err)
			_, err = src.ReadDisk(t.Context(), snap.Disks[0].Key, &canvas{b: make([]byte, snap.Disks[0].Capacity)})
			if err == nil {
				t.Fatal("a broken stream passed for a disk")
			}
			if !backup.CodeOf(err).Transient() {
				t.Errorf("%v is not worth another try", err)
			}
			r.ok(src.Close(t.Context()))
			r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name)) // no lease holds it
		})
	}
}

func TestALeaseIsKeptAliveWhileTheReaderIsSlow(t *testing.T) {
	c := small()
	c.LeaseTimeout = 3 * time.Second
	r := setup(t, c)
	snap, err := r.session.CreateSnapshot(t.Context(), r.draft("vm01", "j1"))
	r.ok(err)
	key := snap.Disks[0].Key
	src, err := r.session.ReadDisks(t.Context(), snap, backup.ReadDraft{Keys: []int32{key}})
	r.ok(err)
	defer func() { r.ok(src.Close(t.Context())) }()
	idle := time.NewTimer(4 * time.Second)
	<-idle.C // longer than the lease lives by itself
	w := &canvas{b: make([]byte, snap.Disks[0].Capacity)}
	if _, err := src.ReadDisk(t.Context(), key, w); err != nil {
		t.Error(err)
	}
	if src.Transport() != backup.TransportNFC {
		t.Errorf("transport = %s", src.Transport())
	}
}

func TestTheBandwidthOfAVCenterIsHeld(t *testing.T) {
	c := small()
	c.Fill = 1
	l := newLab(t, c)
	v := vcenter(l)
	v.Limits.BytesPerSecond = 4 << 20
	s, err := connector(t, quick()).Connect(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, lab: l, session: s}
	snap, err := s.CreateSnapshot(t.Context(), r.draft("vm01", "j1"))
	r.ok(err)
	began, before := time.Now(), l.Traffic()
	r.read(snap)
	sent := l.Traffic() - before
	if least := time.Duration(float64(sent-2<<20) / float64(4<<20) * float64(time.Second)); time.Since(began) < least {
		t.Errorf("%d bytes took %s, want at least %s", sent, time.Since(began), least)
	}
}
