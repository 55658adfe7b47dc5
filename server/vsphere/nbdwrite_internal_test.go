package vsphere

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// writableOverNBD is a session whose program serves the file disk of dir.
func writableOverNBD(t *testing.T, args string) (s *Session, dir string) {
	t.Helper()
	l, err := lab.New(lab.Config{Dir: t.TempDir(), VMs: 1, DiskSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	dir = t.TempDir()
	program := filepath.Join(dir, "serve")
	text := fmt.Sprintf("#!/bin/sh\necho \"$KURA_WRITABLE:$KURA_SNAPSHOT_MOREF:$KURA_DISK_FILE\" >%s/call\nexec nbdkit -f -U \"$KURA_NBD_SOCKET\" %s\n", dir, strings.ReplaceAll(args, "DISK", dir+"/disk"))
	for name, content := range map[string][]byte{program: []byte(text), filepath.Join(dir, "disk"): make([]byte, 1<<20)} {
		if err := os.WriteFile(name, content, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c := New(Config{NBDCommand: program, Stall: 20 * time.Second})
	t.Cleanup(func() { _ = c.Close() })
	opened, err := c.Connect(t.Context(), backup.VCenter{Meta: backup.Meta{ID: "vc1"}, Endpoint: "https://" + l.URL().Host,
		Username: l.User(), Password: backup.Secret(l.Password()), Thumbprint: l.Thumbprint()})
	if err != nil {
		t.Fatal(err)
	}
	return opened.(*Session), dir
}

var oneDisk = writeDraft{MOID: "vm-1", Disks: []writeDisk{{Key: 2000, Label: "Hard disk 1", File: "[ds] vm/vm.vmdk", Capacity: 1 << 20}}}

func TestADiskOverNBDIsWrittenInPlace(t *testing.T) {
	s, dir := writableOverNBD(t, "file DISK")
	w, err := overNBD{s}.write(t.Context(), oneDisk)
	if err != nil {
		t.Fatal(err)
	}
	d := w.disk(2000)
	want := make([]byte, 1<<20)
	for _, off := range []int64{0, 300_000, 1<<20 - 6} {
		copy(want[off:], "inside")
		if _, err := d.WriteAt([]byte("inside"), off); err != nil {
			t.Fatal(err)
		}
	}
	got, err := io.ReadAll(io.NewSectionReader(d, 0, 1<<20))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes are read than were written (%v)", err)
	}
	if err := w.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "disk")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes are on the disk than were written (%v)", err)
	}
	if said, err := os.ReadFile(filepath.Join(dir, "call")); err != nil || string(said) != "1::[ds] vm/vm.vmdk\n" {
		t.Errorf("the program was told %q, %v", said, err)
	}
	if w.disk(2001) != nil {
		t.Error("there is a disk that was not asked for")
	}
}

func TestADiskThatIsServedReadOnlyIsNotTakenForWriting(t *testing.T) {
	s, _ := writableOverNBD(t, "-r file DISK")
	if _, err := (overNBD{s}).write(t.Context(), oneDisk); backup.CodeOf(err) != backup.PreflightFailed {
		t.Errorf("error = %v, want %s", err, backup.PreflightFailed)
	}
}

func TestADiskThatCannotBeFlushedIsNoSuccess(t *testing.T) {
	s, _ := writableOverNBD(t, `eval get_size='echo 1048576' pread='cat /dev/zero | head -c $3' pwrite='cat >/dev/null' can_write='exit 0' can_flush='exit 0' flush='echo EIO lost >&2; exit 1'`)
	w, err := overNBD{s}.write(t.Context(), oneDisk)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.close(t.Context()); backup.CodeOf(err) != backup.Unavailable {
		t.Errorf("error = %v, want %s", err, backup.Unavailable)
	}
}

func TestWritingEndsWithItsContext(t *testing.T) {
	s, _ := writableOverNBD(t, "--filter=delay memory 1M wdelay=600")
	ctx, cancel := context.WithCancel(t.Context())
	w, err := overNBD{s}.write(ctx, oneDisk)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := w.disk(2000).WriteAt([]byte{1}, 0)
		failed <- err
	}()
	cancel()
	if err := <-failed; err == nil {
		t.Error("a write ended well that cannot have")
	}
	if err := w.close(context.WithoutCancel(ctx)); err == nil {
		t.Error("what was cut off was closed well")
	}
}

// nothing is a disk of an image in which nothing was ever written.
type nothing struct{ backup.DiskReader }

func (nothing) Next(off int64) (start, n int64) { return off, 0 }

func TestAHoleOf62TiBIsNeitherReadNorCompared(t *testing.T) {
	s, _ := writableOverNBD(t, "null 62T")
	d := writeDisk{Key: 2000, Label: "Hard disk 1", Capacity: 62 << 40}
	w, err := overNBD{s}.write(t.Context(), writeDraft{MOID: "vm-1", Disks: []writeDisk{d}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	got, err := s.level(t.Context(), d, w.disk(2000), nothing{}, math.MaxInt64, func(int64) {})
	if err != nil || got.compared != d.Capacity || got.written != 0 {
		t.Errorf("compared %d bytes and wrote %d, %v", got.compared, got.written, err)
	}
	served := w.disk(2000).(*nbdDevice)
	read, err := s.sendAreas(t.Context(), served, d, served.known.of(whole(d.Capacity)), nil)
	if err != nil || read != 0 {
		t.Errorf("read %d bytes, %v", read, err)
	}
	if took := time.Since(began); took > 2*62*time.Second {
		t.Errorf("it took %s, more than a second a TiB each", took)
	}
	if err := w.close(t.Context()); err != nil {
		t.Error(err)
	}
}
