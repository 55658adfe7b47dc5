package vsphere_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/vsphere"
)

// rig is a lab and a session with it.
type rig struct {
	*testing.T
	lab     *lab.Lab
	session backup.VSphereSession
	now     *time.Time

	connector *vsphere.Connector    // where a test needs more than the session
	tune      func(*vsphere.Config) // of further sessions; nil = they are as any
}

func newLab(t *testing.T, c lab.Config) *lab.Lab {
	t.Helper()
	c.Dir = t.TempDir()
	l, err := lab.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func vcenter(l *lab.Lab) backup.VCenter {
	return backup.VCenter{
		Meta: backup.Meta{ID: "vc1"}, Name: "lab", Endpoint: "https://" + l.URL().Host,
		Username: l.User(), Password: backup.Secret(l.Password()), Thumbprint: l.Thumbprint(),
	}
}

func quick() vsphere.Config {
	c := vsphere.Config{Retry: 20 * time.Millisecond, GiveUp: 5 * time.Second, Stall: 20 * time.Second, Settle: time.Minute}
	if os.Getenv("KURA_TEST_LOG") != "" {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return c
}

func connector(t *testing.T, c vsphere.Config) *vsphere.Connector {
	t.Helper()
	k := vsphere.New(c)
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func setup(t *testing.T, c lab.Config) *rig {
	t.Helper()
	l := newLab(t, c)
	config := quick()
	now := time.Now()
	config.Now = func() time.Time { return now }
	s, err := connector(t, config).Connect(t.Context(), vcenter(l))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{T: t, lab: l, session: s, now: &now}
}

// small is a lab in which disks are quick to read.
func small() lab.Config { return lab.Config{VMs: 4, DiskSize: 8 << 20} }

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, want backup.Code) *backup.Error {
	t.Helper()
	if got := backup.CodeOf(err); got != want {
		t.Fatalf("code = %q (%v), want %q", got, err, want)
	}
	return backup.AsError(err)
}

func marker(job string) string { return "kura:inst:" + job + ":1" }

func nobody(string, int) bool { return false }

// image is an image in memory.
type image struct {
	manifest backup.Manifest
	disks    map[int32][]byte
	files    map[string][]byte
}

var _ backup.ImageReader = (*image)(nil)

func (i *image) Manifest() backup.Manifest { return i.manifest }
func (i *image) Files() []string           { return slices.Sorted(maps.Keys(i.files)) }
func (i *image) Close() error              { return nil }

func (i *image) File(_ context.Context, name string) ([]byte, error) {
	if b, ok := i.files[name]; ok {
		return b, nil
	}
	return nil, backup.Errorf(backup.NotFound, "", "The image has no file %q.", name)
}

func (i *image) EachChange(context.Context, string, int32, func(off, n int64) error) error {
	return backup.Errorf(backup.NotFound, "", "The image has no other to be compared with.")
}

func (i *image) Disk(_ context.Context, key int32) (backup.DiskReader, error) {
	if b, ok := i.disks[key]; ok {
		return &memory{bytes.NewReader(b), b}, nil
	}
	return nil, backup.Errorf(backup.NotFound, "", "The image has no disk %d.", key)
}

// memory is a disk in memory; ranges are runs of 4 KiB blocks, so they do not lie on grains.
type memory struct {
	io.ReaderAt
	b []byte
}

func (m *memory) Capacity() int64 { return int64(len(m.b)) }
func (m *memory) Close() error    { return nil }

func (m *memory) Next(off int64) (start, n int64) {
	const block = 4096
	zero := make([]byte, block)
	data := func(at int64) bool {
		p := m.b[at:min(at+block, int64(len(m.b)))]
		return !bytes.Equal(p, zero[:len(p)])
	}
	at := off / block * block
	for at < int64(len(m.b)) && !data(at) {
		at += block
	}
	if at >= int64(len(m.b)) {
		return off, 0
	}
	end := at
	for end < int64(len(m.b)) && data(end) {
		end += block
	}
	at = max(at, off)
	return at, min(end, int64(len(m.b))) - at
}

// canvas takes a disk's bytes and holds the writer to its contract.
type canvas struct {
	mu   sync.Mutex
	b    []byte
	next int64
	err  error
}

func (c *canvas) WriteAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if off < c.next {
		c.err = fmt.Errorf("write at %d after %d", off, c.next)
	}
	c.next = off + int64(len(p))
	return copy(c.b[off:], p), c.err
}

// take backs up a VM into memory, the way the worker does.
func (r *rig) take(vm, job string) *image {
	r.Helper()
	moid := r.lab.Moid(vm)
	m, err := r.session.Machine(r.Context(), moid)
	r.ok(err)
	snap, err := r.session.CreateSnapshot(r.Context(), backup.SnapshotDraft{MOID: moid, Name: marker(job)})
	r.ok(err)
	img := r.read(snap)
	r.ok(r.session.RemoveSnapshot(r.Context(), moid, marker(job)))
	img.manifest.Machine = m.Config
	img.manifest.Image.VMName = m.Name
	img.manifest.VCenterUUID, _ = r.session.About()
	if m.NVRAM != nil {
		img.files[vsphere.NVRAM] = m.NVRAM
	}
	return img
}

func (r *rig) read(snap backup.Snapshot) *image {
	r.Helper()
	img := &image{disks: map[int32][]byte{}, files: map[string][]byte{}}
	img.manifest.Machine = snap.Config
	var keys []int32
	for _, d := range snap.Disks {
		keys = append(keys, d.Key)
	}
	src, err := r.session.ReadDisks(r.Context(), snap, backup.ReadDraft{Keys: keys})
	r.ok(err)
	for _, d := range snap.Disks {
		c := &canvas{b: make([]byte, d.Capacity)}
		_, err := src.ReadDisk(r.Context(), d.Key, c)
		r.ok(err)
		img.disks[d.Key] = c.b
		img.manifest.Image.Disks = append(img.manifest.Image.Disks, backup.ImageDisk{Key: d.Key, Label: d.Label, Capacity: d.Capacity, UUID: d.UUID})
	}
	r.ok(src.Close(r.Context()))
	return img
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// guestSum is the checksum of a disk as its guest sees it.
func (r *rig) guestSum(vm string, key int32) string {
	r.Helper()
	s, err := r.lab.DiskSHA256(r.Context(), vm, key)
	r.ok(err)
	return s
}

func (r *rig) vm(id string) lab.VM {
	r.Helper()
	v, err := r.lab.VM(id)
	r.ok(err)
	return v
}

// scribble changes a disk all over.
func (r *rig) scribble(vm string, key int32, seed uint64) {
	r.Helper()
	for off := int64(0); off < 8<<20; off += 1 << 20 {
		r.ok(r.lab.GuestWriteRandom(vm, key, off+12345, 300_000, seed+uint64(off)))
	}
}
