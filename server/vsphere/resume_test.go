package vsphere_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// attempt overwrites vm02 as an attempt of the job r1 and starts it.
func (r *rig) attempt(img *image, n int, safety backup.Safety) ([]string, error) {
	r.Helper()
	_, messages, err := r.session.OverwriteVM(r.Context(), backup.OverwriteDraft{Marker: fmt.Sprintf("kura:inst:r1:%d", n), MOID: r.lab.Moid("vm02"),
		InPlace: backup.RestoreInPlace{PowerOn: true, Safety: safety}}, img, func(int64) {})
	return messages, err
}

// A server that dies after it has started the VM leaves nothing but the VM to
// tell the next attempt that all was done: it must neither be refused, because
// the VM runs, nor overwrite what the guest has written since.
func TestARestoreThatIsWholeIsNotDoneAgainByTheNextAttempt(t *testing.T) {
	for name, connected := range map[string]func(*testing.T, lab.Config) *rig{"nfc": setup, "hotadd": withProxy} {
		for _, safety := range []backup.Safety{backup.SafetyNone, backup.SafetyQuick} {
			t.Run(name+", "+string(safety), func(t *testing.T) {
				t.Parallel()
				r := connected(t, lab.Config{VMs: 3, DiskSize: 1 << 20})
				img := r.take("vm02", "b1")
				r.ok(r.lab.SetPower(t.Context(), "vm02", false))
				r.ok(r.lab.GuestWriteRandom("vm02", 2000, 0, 300_000, 1))
				_, err := r.attempt(img, 1, safety)
				r.ok(err)
				r.wantDisks("vm02", img)
				r.ok(r.lab.GuestWriteRandom("vm02", 2000, 0, 1000, 2))
				files, guest := r.files("vm02"), r.guestSum("vm02", 2000)
				messages, err := r.attempt(img, 2, safety)
				r.ok(err)
				if strings.Contains(strings.Join(messages, " "), "NVRAM") {
					t.Errorf("messages = %q", messages)
				}
				// After the dead server's sweep, or after it died before the start.
				*r.now = r.now.Add(25 * time.Hour)
				_, err = r.session.Sweep(t.Context(), "inst", nobody)
				r.ok(err)
				r.ok(r.lab.SetPower(t.Context(), "vm02", false))
				_, err = r.attempt(img, 3, safety)
				r.ok(err)
				if v := r.vm("vm02"); v.PowerState != "poweredOn" || r.guestSum("vm02", 2000) != guest || name == "nfc" && !slices.Equal(r.files("vm02"), files) {
					t.Errorf("the VM is %s, its disks %v, want it on and its guest's writes kept", v.PowerState, r.files("vm02"))
				}
				_, _, err = r.overwrite(img, "vm02", "r2", backup.RestoreInPlace{})
				wantCode(t, err, backup.VMRunning) // another restore is another matter
			})
		}
	}
}

func TestADiskThatIsReplacedIsNotReplacedAgainByTheNextAttempt(t *testing.T) {
	r := setup(t, lab.Config{VMs: 2, DiskSize: 1 << 20})
	img := r.take("vm02", "b1")
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	r.ok(r.lab.GuestWriteRandom("vm02", 2001, 0, 300_000, 1))
	replace := func(attempt int) error {
		_, _, err := r.session.RestoreDisk(t.Context(), backup.DiskRestoreDraft{Marker: fmt.Sprintf("kura:inst:r1:%d", attempt), MOID: r.lab.Moid("vm02"),
			Disk: backup.RestoreDisk{SourceKey: 2001, Mode: backup.DiskReplace}}, img, func(int64) {})
		return err
	}
	r.ok(replace(1))
	r.wantDisks("vm02", img)
	files := r.files("vm02")
	r.ok(r.lab.SetPower(t.Context(), "vm02", true)) // its owner saw that it was done
	r.ok(replace(2))
	if v := r.vm("vm02"); v.PowerState != "poweredOn" || !slices.Equal(r.files("vm02"), files) {
		t.Errorf("the VM is %s with %v, want it as it was with %v", v.PowerState, r.files("vm02"), files)
	}
}

func TestANewVMIsFoundByTheNextAttemptThoughThereIsNoRoomForAnother(t *testing.T) {
	r := setup(t, lab.Config{VMs: 1, DiskSize: 8 << 20})
	img := r.take("vm01", "b1")
	var held int64
	for _, b := range img.disks {
		m := &memory{b: b}
		for off, n := m.Next(0); n > 0; off, n = m.Next(off + n) {
			held += n
		}
	}
	r = setup(t, lab.Config{VMs: -1, Datastores: 1, DatastoreSize: held + held/2})
	imported := func(attempt int) (backup.RestoredVM, error) {
		done, messages, err := r.session.ImportVM(t.Context(), backup.ImportDraft{Marker: fmt.Sprintf("kura:inst:r1:%d", attempt), NewVM: backup.RestoreNewVM{Name: "new", AsTemplate: true}}, img, func(int64) {})
		if strings.Contains(strings.Join(messages, " "), "template") {
			t.Errorf("attempt %d: messages = %q", attempt, messages)
		}
		return done, err
	}
	first, err := imported(1)
	r.ok(err)
	if _, _, err := r.session.ImportVM(t.Context(), backup.ImportDraft{Marker: marker("r2"), NewVM: backup.RestoreNewVM{Name: "another"}}, img, func(int64) {}); backup.CodeOf(err) != backup.NoSpace {
		t.Fatalf("a further VM: %v, want no room for it", err)
	}
	again, err := imported(2)
	if err != nil || again.MOID != first.MOID {
		t.Errorf("the second attempt made %+v (%v), want the first's %+v", again, err, first)
	}
}

func TestARestoreInPlaceFindsAnotherWayWhereDisksCannotBeAttached(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	img := r.take("vm01", "b1")
	r.fewWrites("vm01", 0)
	r.ok(r.lab.Arm(lab.Fault{Kind: "device_missing", Count: -1}))
	messages, err := r.level(img, "vm01", "r1", backup.SafetyNone)
	r.ok(err)
	r.wantDisks("vm01", img)
	if v := r.vm("vm01"); v.PowerState != "poweredOn" || len(v.Snapshots) != 0 || len(messages) == 0 || !strings.Contains(messages[0], "could not be written over hotadd: ") {
		t.Errorf("the VM is %s with snapshots %v after %q", v.PowerState, v.Snapshots, messages)
	}
	r.wantBare(own)
	r.noTrace()
}

// A program may serve disks for reading only: that is found when the VM is off
// and its snapshot made, and must not cost the restore.
func TestARestoreInPlaceFindsAnotherWayWhereDisksCannotBeWritten(t *testing.T) {
	l := newLab(t, lab.Config{VMs: 2, DiskSize: 1 << 20})
	s := &served{dir: t.TempDir()}
	s.rig = s.connect(t, l, s.script(t, fmt.Sprintf(`exec nbdkit -r -f --exit-with-parent -U "$KURA_NBD_SOCKET" file "%s/$KURA_DISK_KEY"`, s.dir)))
	snap := s.snapshot("vm02", "j1")
	s.spread(snap)
	s.ok(s.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
	for _, x := range []struct {
		transport backup.Transport
		want      backup.Code
	}{{backup.TransportNBD, backup.PreflightFailed}, {backup.TransportAuto, ""}} {
		v := vcenter(l)
		v.Transport = x.transport
		config := quick()
		config.NBDCommand, config.CallTimeout = filepath.Join(s.dir, "serve"), 5*time.Second
		session, err := connector(t, config).Connect(t.Context(), v)
		s.ok(err)
		r := &rig{T: t, lab: l, session: session}
		img := r.take("vm02", "b1")
		r.ok(l.GuestWriteRandom("vm02", 2000, 0, 300_000, 1))
		old := r.guestSum("vm02", 2000)
		_, messages, err := r.overwrite(img, "vm02", "r1", backup.RestoreInPlace{PowerOff: true, Safety: backup.SafetyNone})
		if backup.CodeOf(err) != x.want {
			t.Fatalf("%s: error = %v, want the code %q", x.transport, err, x.want)
		}
		if x.want != "" {
			if v := r.vm("vm02"); r.guestSum("vm02", 2000) != old || v.PowerState != "poweredOn" || len(v.Snapshots) != 0 {
				t.Errorf("the VM that could not be written is %s with snapshots %v", v.PowerState, v.Snapshots)
			}
			continue
		}
		r.wantDisks("vm02", img)
		if v := r.vm("vm02"); v.PowerState != "poweredOff" || len(v.Snapshots) != 0 || len(messages) == 0 || !strings.Contains(messages[0], "could not be written over nbd: ") {
			t.Errorf("the VM is %s with snapshots %v after %q", v.PowerState, v.Snapshots, messages)
		}
		r.noTrace()
	}
}

// A server's clock that leaps must not delete what is kept for a day.
func TestDisksAreKeptByTheVCentersClock(t *testing.T) {
	l := newLab(t, lab.Config{VMs: 1, DiskSize: 1 << 20})
	session, err := connector(t, quick()).Connect(t.Context(), vcenter(l))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, lab: l, session: session}
	img := r.take("vm01", "b1")
	r.ok(l.SetPower(t.Context(), "vm01", false))
	_, _, err = r.overwrite(img, "vm01", "r1", backup.RestoreInPlace{})
	r.ok(err)
	for _, x := range []struct {
		ahead time.Duration
		swept int
	}{{23 * time.Hour, 0}, {25 * time.Hour, 1}} {
		r.ok(l.Arm(lab.Fault{Kind: "clock_skew", Delay: x.ahead, Count: -1}))
		lines, err := session.Sweep(t.Context(), "inst", nobody)
		r.ok(err)
		if len(lines) != x.swept {
			t.Errorf("%s later %q is swept", x.ahead, lines)
		}
		l.ClearFaults()
	}
}

func TestASnapshotThatKuraIsAboutToRemoveIsWorthAnotherTry(t *testing.T) {
	r := setup(t, lab.Config{VMs: 1, DiskSize: 1 << 20})
	img := r.take("vm01", "b1")
	_, err := r.session.CreateSnapshot(t.Context(), backup.SnapshotDraft{MOID: r.lab.Moid("vm01"), Name: marker("dead")})
	r.ok(err)
	in := backup.RestoreInPlace{PowerOff: true}
	_, looked := r.look(img, "vm01", backup.RestoreCheck{InPlace: &in})
	_, _, tried := r.overwrite(img, "vm01", "r1", in)
	for _, err := range []error{looked, tried} {
		if e := wantCode(t, err, backup.VMBusy); !strings.Contains(e.Message, marker("dead")) {
			t.Errorf("message = %q", e.Message)
		}
	}
	_, err = r.session.Sweep(t.Context(), "inst", nobody)
	r.ok(err)
	_, _, err = r.overwrite(img, "vm01", "r1", in)
	r.ok(err)
	r.sameDisks(img, "vm01")
	_, err = r.session.CreateSnapshot(t.Context(), backup.SnapshotDraft{MOID: r.lab.Moid("vm01"), Name: "kura:another:job:1"})
	r.ok(err)
	_, _, err = r.overwrite(img, "vm01", "r2", in)
	wantCode(t, err, backup.PreflightFailed)
}

func TestAMappingOfANetworkThatNoCardIsOnIsToldOf(t *testing.T) {
	r := setup(t, lab.Config{VMs: 1, DiskSize: 1 << 20})
	img := r.take("vm01", "b1")
	n := backup.RestoreNewVM{Name: "copy", NetworkMappings: map[string]string{"DC0_DVPG0": "VM Network", "Production": "VM Network"}}
	found, err := r.look(img, "", backup.RestoreCheck{NewVM: &n})
	r.ok(err)
	if text := strings.Join(found.Warnings, "\n"); !strings.Contains(text, `network_mappings names "Production", and no network card of the image is on a network of that name: they are on DC0_DVPG0.`) || strings.Contains(text, `names "DC0_DVPG0"`) {
		t.Errorf("warnings = %q", text)
	}
}

// What is left when the disks have changed takes seconds: a stop that comes then
// must leave no VM off that was to be on.
func TestAStopThatComesWhenTheDisksHaveChangedIsTooLate(t *testing.T) {
	for name, connected := range map[string]func(*testing.T, lab.Config) *rig{"nfc": setup, "hotadd": withProxy} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := connected(t, lab.Config{VMs: 3, DiskSize: 1 << 20})
			img := r.take("vm02", "b1")
			for why, want := range map[error]string{errors.New("cancelled"): "poweredOn", backup.ErrLeaseLost: ""} {
				r.ok(r.lab.SetPower(t.Context(), "vm02", true))
				r.ok(r.lab.GuestWriteRandom("vm02", 2000, 0, 300_000, 1))
				ctx, stop := context.WithCancelCause(t.Context())
				s := r.over(&wire{at: -1, heard: func(text []byte) {
					if bytes.Contains(text, []byte("kura.made")) {
						stop(why)
					}
				}})
				job := fmt.Sprintf("kura:inst:%x:1", why.Error())
				_, _, err := s.OverwriteVM(ctx, backup.OverwriteDraft{Marker: job, MOID: r.lab.Moid("vm02"), InPlace: backup.RestoreInPlace{PowerOff: true, PowerOn: true, Safety: backup.SafetyNone}}, img, func(int64) {})
				if context.Cause(ctx) == nil {
					t.Fatal("the restore was not stopped")
				}
				if (err == nil) != (want != "") {
					t.Errorf("%v: error = %v", why, err)
				}
				if v := r.vm("vm02"); want != "" && v.PowerState != want {
					t.Errorf("%v: the VM is %s, want %s", why, v.PowerState, want)
				}
				if want != "" {
					r.wantDisks("vm02", img)
				}
				r.swept()
			}
			r.noTrace()
		})
	}
}
