package vsphere_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// served is a lab whose disks an nbdkit serves: those of one snapshot, from files.
type served struct {
	*rig
	dir string
}

// withNBD is a lab of which nbdkit serves the disks, called with these
// arguments before its own. Each call leaves a line in the file calls.
func withNBD(t *testing.T, c lab.Config, filters, config string) *served {
	t.Helper()
	s := &served{dir: t.TempDir()}
	s.rig = s.connect(t, newLab(t, c), s.script(t, fmt.Sprintf(
		`exec nbdkit -f --exit-with-parent -U "$KURA_NBD_SOCKET" --filter=log %s file "%s/$KURA_DISK_KEY" logfile=%s/requests logappend=true %s`, filters, s.dir, s.dir, config)))
	return s
}

// script is a program that notes what it was given, and then does what it is told.
func (s *served) script(t *testing.T, does string) string {
	t.Helper()
	path := filepath.Join(s.dir, "serve")
	text := fmt.Sprintf("#!/bin/sh\nset -eu\n(env | grep -v PWD | sort; read -r p <\"$KURA_PASSWORD_FILE\"; echo \"password=$p\"; echo \"pid=$$\") >>%s/calls\n%s\n", s.dir, does)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *served) connect(t *testing.T, l *lab.Lab, program string) *rig {
	t.Helper()
	config := quick()
	config.NBDCommand, config.CallTimeout, config.NBDStop = program, 5*time.Second, 200*time.Millisecond
	v := vcenter(l)
	v.Transport = backup.TransportNBD
	session, err := connector(t, config).Connect(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{T: t, lab: l, session: session}
}

// spread writes the disks of a snapshot to files, with holes where they are zero.
func (s *served) spread(snap backup.Snapshot) *image {
	s.Helper()
	img := s.read(snap)
	for _, d := range snap.Disks {
		f, err := os.Create(filepath.Join(s.dir, strconv.Itoa(int(d.Key))))
		s.ok(err)
		m := &memory{b: img.disks[d.Key]}
		for off, n := m.Next(0); n > 0; off, n = m.Next(off + n) {
			_, err := f.WriteAt(m.b[off:off+n], off)
			s.ok(err)
		}
		s.ok(errors.Join(f.Truncate(d.Capacity), f.Close()))
	}
	return img
}

// said is what is in a file of the folder.
func (s *served) said(name string) string {
	s.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	s.ok(err)
	return string(b)
}

// requested is how many bytes nbdkit was asked to Read, or to Write.
func (s *served) requested(what string) (total int64) {
	s.Helper()
	for _, m := range regexp.MustCompile(` `+what+` id=\d+ offset=\S+ count=0x([0-9a-f]+)`).FindAllStringSubmatch(s.said("requests"), -1) {
		n, err := strconv.ParseInt(m[1], 16, 64)
		s.ok(err)
		total += n
	}
	return total
}

// wantNoneLeft fails if a program that was started still runs.
func (s *served) wantNoneLeft(started int) {
	s.Helper()
	pids := regexp.MustCompile(`(?m)^pid=(\d+)$`).FindAllStringSubmatch(s.said("calls"), -1)
	if len(pids) != started {
		s.Errorf("%d programs were started, want %d", len(pids), started)
	}
	for _, m := range pids {
		pid, err := strconv.Atoi(m[1])
		s.ok(err)
		_, state, _ := strings.Cut(tryRead(fmt.Sprintf("/proc/%d/stat", pid)), ") ")
		if state != "" && state[0] != 'Z' { // a dead one may wait for whoever inherits it
			s.Errorf("the program %d still runs: %s", pid, state)
		}
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "kura-nbd-*")); err != nil || len(left) > 0 && s.socketOf(left) {
		s.Errorf("left behind: %v, %v", left, err)
	}
}

// socketOf says whether one of the folders was given to a program of this test.
func (s *served) socketOf(dirs []string) bool {
	for _, dir := range dirs {
		if strings.Contains(s.said("calls"), "KURA_NBD_SOCKET="+dir+"/") {
			return true
		}
	}
	return false
}

// seed:N6
func TestNBDReadsTheDiskAtTheSnapshotsInstantAndNoHole(t *testing.T) {
	r := withNBD(t, small(), "", "")
	snap := r.snapshot("vm03", "j1")
	want := r.spread(snap)
	src, err := r.open(snap, backup.TransportNBD)
	r.ok(err)
	if src.Transport() != backup.TransportNBD || !src.CanReadAreas() {
		t.Errorf("transport %s, areas %v", src.Transport(), src.CanReadAreas())
	}
	var read int64
	for _, d := range snap.Disks {
		c := &canvas{b: make([]byte, d.Capacity)}
		n, err := src.ReadDisk(t.Context(), d.Key, c)
		r.ok(err)
		if read += n; n >= d.Capacity || sum(c.b) != sum(want.disks[d.Key]) {
			t.Errorf("%s: %d bytes that differ from the disk at the snapshot", d.Label, n)
		}
	}
	r.ok(src.Close(t.Context()))
	if asked := r.requested("Read"); asked != read {
		t.Errorf("nbdkit was asked for %d bytes, and %d are said to have been read", asked, read)
	}
	r.wantNoneLeft(len(snap.Disks))
}

func TestNBDReadsNoMoreThanTheAreasAndOfThemNoHole(t *testing.T) {
	r := withNBD(t, lab.Config{VMs: 1, DiskSize: 16 << 20}, "", "")
	base := r.take("vm01", "j0")
	const key = 2000
	changed := []backup.Extent{{Off: 64 << 10, N: 64 << 10}, {Off: 7 << 20, N: 3 << 20}, {Off: 16<<20 - 512, N: 512}}
	for i, e := range changed {
		r.ok(r.lab.GuestWriteRandom("vm01", key, e.Off, e.N, uint64(i)))
	}
	r.ok(r.lab.GuestWrite("vm01", key, 8<<20, make([]byte, 1<<20))) // zero amid what changed
	snap := r.snapshot("vm01", "j1")
	want := r.spread(snap)
	src, err := r.open(snap, backup.TransportAuto) // which takes nbd, as there is no proxy
	r.ok(err)
	c := &canvas{b: bytes.Clone(base.disks[key])}
	clear(c.b[8<<20 : 9<<20]) // as an image does with what is left out of an area
	read, err := src.ReadAreas(t.Context(), key, areas(changed...), c)
	r.ok(err)
	r.ok(src.Close(t.Context()))
	if sum(c.b) != sum(want.disks[key]) {
		t.Error("the disk is another than the guest's")
	}
	asked := r.requested("Read")
	if most := int64(64<<10 + 2<<20 + 512); read != asked || read > most {
		t.Errorf("%d bytes read, nbdkit was asked for %d, want at most the %d that changed and are not zero", read, asked, most)
	}
}

// seed:N4
func TestARestoreInPlaceOverNBDWritesOnlyWhatDiffersAndReadsNoHole(t *testing.T) {
	r := withNBD(t, lab.Config{VMs: 1, DiskSize: 16 << 20}, "", "")
	img := r.take("vm01", "b1")
	const key = 2000
	zero, hole, used := make([]byte, 128<<10), int64(0), int64(0)
	for off := int64(0); off < 16<<20; off += 1 << 20 {
		if bytes.Equal(img.disks[key][off:off+int64(len(zero))], zero) {
			hole = off // the image has nothing there
		} else {
			used = off
		}
	}
	r.ok(r.lab.GuestWriteRandom("vm01", key, hole, 64<<10, 3))
	r.ok(r.lab.GuestWriteRandom("vm01", key, used+777, 64<<10, 4))
	snap := r.snapshot("vm01", "now")
	r.spread(snap)
	r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
	messages, err := r.level(img, "vm01", "r1", backup.SafetyNone)
	r.ok(err)
	if got := r.said(strconv.Itoa(key)); sum([]byte(got)) != sum(img.disks[key]) {
		t.Error("what was served is not as in the image now")
	}
	if written := r.requested("Write"); written != 2<<16 {
		t.Errorf("wrote %d bytes, want the two units of 64 KiB that differ and are not zero in the image", written)
	}
	if read := r.requested("Read"); read == 0 || read > 14<<20 {
		t.Errorf("read %d bytes to compare a disk of 16 MiB with holes", read)
	}
	if !strings.Contains(strings.Join(messages, " "), "Over nbd, 16777216 bytes were compared") {
		t.Errorf("messages = %q", messages)
	}
	if said := r.said("calls"); !strings.Contains(said, "KURA_WRITABLE=1") || !strings.Contains(said, "KURA_SNAPSHOT_MOREF=\n") {
		t.Errorf("the program was told\n%s", said)
	}
	r.wantNoneLeft(1)
	if vm := r.vm("vm01"); vm.PowerState != "poweredOn" || len(vm.Snapshots) != 0 {
		t.Errorf("the VM is %s with the snapshots %v", vm.PowerState, vm.Snapshots)
	}
}

func TestTheProgramGetsAllItNeedsAndNoSecretInItsEnvironment(t *testing.T) {
	t.Setenv("KURA_DATABASE", "postgres://kura:secret@db/kura")
	r := withNBD(t, small(), "", "")
	snap := r.snapshot("vm01", "j1")
	r.spread(snap)
	src, err := r.open(snap, backup.TransportNBD)
	r.ok(err)
	r.ok(src.Close(t.Context()))
	said := r.said("calls")
	u := r.lab.URL()
	for _, want := range []string{
		"KURA_VCENTER=" + u.Hostname(), "KURA_VCENTER_PORT=" + u.Port(), "KURA_VCENTER_USER=" + r.lab.User(), "KURA_VCENTER_THUMBPRINT=" + r.lab.ThumbprintSHA1(),
		"KURA_VM_MOID=" + snap.MOID, "KURA_SNAPSHOT_MOREF=" + snap.Ref, "KURA_DISK_KEY=2000", "KURA_DISK_FILE=[", "KURA_WRITABLE=0", "password=" + r.lab.Password(),
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the program was not told %s, but\n%s", want, said)
		}
	}
	if env, _, _ := strings.Cut(said, "password="); strings.Contains(env, "secret") || strings.Contains(env, "="+r.lab.Password()+"\n") {
		t.Errorf("there is a secret in its environment:\n%s", env)
	}
}

func TestSeveralDisksAreReadAtOnceOverASlowLink(t *testing.T) {
	r := withNBD(t, lab.Config{VMs: 1, DiskSize: 1 << 20}, "--filter=delay", "rdelay=20ms")
	_, err := r.lab.AddVM(t.Context(), lab.VMSpec{Name: "many", Disks: []int64{3 << 20, 3 << 20, 3 << 20}})
	r.ok(err)
	snap := r.snapshot("many", "j1")
	want := r.spread(snap)
	src, err := r.open(snap, backup.TransportNBD)
	r.ok(err)
	g, ctx := errgroup.WithContext(t.Context())
	for _, d := range snap.Disks {
		g.Go(func() error {
			c := &canvas{b: make([]byte, d.Capacity)}
			_, err := src.ReadDisk(ctx, d.Key, c)
			if err == nil && sum(c.b) != sum(want.disks[d.Key]) {
				err = fmt.Errorf("%s has other bytes", d.Label)
			}
			return err
		})
	}
	r.ok(g.Wait())
	r.ok(src.Close(t.Context()))
}

func TestAnErrorOfTheServedDiskNamesItAndThePlace(t *testing.T) {
	r := withNBD(t, small(), "--filter=error", "error-pread=EIO error-pread-rate=100%")
	snap := r.snapshot("vm01", "j1")
	r.spread(snap)
	src, err := r.open(snap, backup.TransportNBD)
	r.ok(err)
	d := snap.Disks[0]
	_, err = src.ReadDisk(t.Context(), d.Key, &canvas{b: make([]byte, d.Capacity)})
	e := wantCode(t, err, backup.Unavailable)
	for _, want := range []string{d.Label, "offset", "input/output error"} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("message %q does not name %q", e.Message, want)
		}
	}
	r.ok(src.Close(t.Context()))
	r.wantNoneLeft(1)
}

func TestAProgramThatDiesIsAnErrorWorthAnotherTryWithANewOne(t *testing.T) {
	r := withNBD(t, small(), "", "")
	snap := r.snapshot("vm01", "j1")
	want := r.spread(snap)
	src, err := r.open(snap, backup.TransportNBD)
	r.ok(err)
	r.await("calls", "pid=")
	pid, err := strconv.Atoi(regexp.MustCompile(`pid=(\d+)`).FindStringSubmatch(r.said("calls"))[1])
	r.ok(err)
	r.ok(syscall.Kill(pid, syscall.SIGKILL))
	d := snap.Disks[0]
	c := &canvas{b: make([]byte, d.Capacity)}
	if _, err := src.ReadDisk(t.Context(), d.Key, c); !backup.CodeOf(err).Transient() || backup.AsError(err) == nil {
		t.Errorf("error = %v, want one that is worth another try", err)
	}
	c.next = 0
	_, err = src.ReadDisk(t.Context(), d.Key, c)
	r.ok(err)
	r.ok(src.Close(t.Context()))
	if sum(c.b) != sum(want.disks[d.Key]) {
		t.Error("the second try read other bytes")
	}
	r.wantNoneLeft(2)
}

func TestADiskOfWhichExtentsCannotBeToldIsReadWhole(t *testing.T) {
	for name, filters := range map[string][2]string{
		"not offered": {"--filter=noextents", ""},
		"refused":     {"--filter=error", "error-extents=EIO error-extents-rate=100%"},
	} {
		t.Run(name, func(t *testing.T) {
			r := withNBD(t, small(), filters[0], filters[1])
			snap := r.snapshot("vm01", "j1")
			want := r.spread(snap)
			src, err := r.open(snap, backup.TransportNBD)
			r.ok(err)
			d := snap.Disks[0]
			c := &canvas{b: make([]byte, d.Capacity)}
			n, err := src.ReadDisk(t.Context(), d.Key, c)
			r.ok(err)
			r.ok(src.Close(t.Context()))
			if n != d.Capacity || sum(c.b) != sum(want.disks[d.Key]) {
				t.Errorf("read %d bytes of %d, or others", n, d.Capacity)
			}
		})
	}
}

func TestAProgramThatDoesNotServeIsToldOf(t *testing.T) {
	l := newLab(t, small())
	for name, c := range map[string]struct{ does, want string }{
		"fails":                 {"echo 'nbdkit: error: VixDiskLib: thumbprint differs' >&2; exit 3", "(exit status 3). It said: nbdkit: error: VixDiskLib: thumbprint differs."},
		"ends well":             {"exit 0", "(exit status 0)"},
		"serves another disk":   {`exec nbdkit -f --exit-with-parent -U "$KURA_NBD_SOCKET" memory 1M`, "what is served has 1048576 bytes, and the disk 8388608."},
		"speaks something else": {`exec nbdkit -f --exit-with-parent -U "$KURA_NBD_SOCKET" --oldstyle memory 1M`, "breaks the protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &served{dir: t.TempDir()}
			r.rig = r.connect(t, l, r.script(t, c.does))
			snap := r.snapshot("vm01", "j1")
			_, err := r.open(snap, backup.TransportNBD)
			if e := wantCode(t, err, backup.Unavailable); !strings.Contains(e.Message, c.want) || !strings.Contains(e.Message, snap.Disks[0].Label) {
				t.Errorf("message %q does not say %q", e.Message, c.want)
			}
			r.wantNoneLeft(1)
			src, err := r.open(snap, backup.TransportAuto) // which has another choice
			r.ok(err)
			if src.Transport() != backup.TransportNFC {
				t.Errorf("transport = %s", src.Transport())
			}
			r.ok(src.Close(t.Context()))
		})
	}
}

func TestAProgramThatHangsIsGivenUpAndEnded(t *testing.T) {
	l := newLab(t, small())
	r := &served{dir: t.TempDir()}
	// It will not be asked to end; what it started must go, too.
	r.rig = r.connect(t, l, r.script(t, "trap '' TERM; sleep 600 & echo \"pid=$!\" >>"+r.dir+"/calls; wait; wait"))
	snap := r.snapshot("vm01", "j1")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the job was taken away")
	go func() {
		r.await("calls", "pid=")
		cancel(gone)
	}()
	if _, err := r.session.ReadDisks(ctx, snap, backup.ReadDraft{Keys: []int32{2000}, Transport: backup.TransportNBD}); !errors.Is(err, gone) {
		t.Errorf("error = %v, want the cause", err)
	}
	config := quick()
	config.NBDCommand, config.CallTimeout, config.NBDStop = r.dir+"/serve", 2*time.Second, 50*time.Millisecond
	s, err := connector(t, config).Connect(t.Context(), vcenter(l))
	r.ok(err)
	_, err = s.ReadDisks(t.Context(), snap, backup.ReadDraft{Keys: []int32{2000}, Transport: backup.TransportNBD})
	if e := wantCode(t, err, backup.Unavailable); !strings.Contains(e.Message, "did not answer at KURA_NBD_SOCKET") {
		t.Errorf("message = %q", e.Message)
	}
	r.wantNoneLeft(4)
}

// await waits until another process has written that into a file.
func (s *served) await(name, text string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(tryRead(filepath.Join(s.dir, name)), text) {
		select {
		case <-tick.C:
		case <-s.Context().Done():
			return
		}
	}
}

func tryRead(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

func TestAReadingThatIsCalledOffLeavesNothingRunning(t *testing.T) {
	r := withNBD(t, small(), "--filter=delay", "rdelay=600")
	snap := r.snapshot("vm01", "j1")
	r.spread(snap)
	ctx, cancel := context.WithCancel(t.Context())
	src, err := r.open(snap, backup.TransportNBD)
	r.ok(err)
	go func() {
		r.await("requests", " Read id=")
		cancel()
	}()
	if _, err := src.ReadDisk(ctx, 2000, &canvas{b: make([]byte, 8<<20)}); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	r.ok(src.Close(t.Context()))
	r.wantNoneLeft(1)
}

func TestWithoutAProgramThereIsNoNBD(t *testing.T) {
	r := setup(t, small())
	snap := r.snapshot("vm01", "j1")
	_, err := r.open(snap, backup.TransportNBD)
	if e := wantCode(t, err, backup.PreflightFailed); !strings.Contains(e.Message, "--nbd-command") {
		t.Errorf("message = %q", e.Message)
	}
	s := &served{dir: t.TempDir()}
	s.rig = s.connect(t, r.lab, filepath.Join(s.dir, "nothing"))
	if _, err := s.open(snap, backup.TransportNBD); backup.CodeOf(err) != backup.PreflightFailed {
		t.Errorf("error = %v", err)
	}
}
