package worker_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
	"github.com/kura-backup/terraform-provider-kura/server/repository/keytest"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
	"github.com/kura-backup/terraform-provider-kura/server/worker"
)

const mib = 1 << 20

func TestMain(m *testing.M) {
	keytest.Remember()
	os.Exit(m.Run())
}

// opener is a process that opens real repositories.
func opener(t *testing.T) *repository.Repositories {
	t.Helper()
	rs := repository.New(repository.Config{Installation: installation, Dir: t.TempDir()})
	t.Cleanup(func() {
		if err := rs.Close(context.Background()); err != nil {
			t.Errorf("close the repositories: %v", err)
		}
	})
	return rs
}

// folder is a record of a repository in a folder of its own, with a key of its own.
func folder(t *testing.T, name string) backup.RepositoryRecord {
	t.Helper()
	return backup.RepositoryRecord{Name: name, Kind: repository.KindFilesystem, Settings: map[string]string{"path": filepath.Join(t.TempDir(), name)}, Password: backup.NewPassword()}
}

// sites gives the house a real repository in place of the one in memory, with
// an image of a VM with a disk of that size, and a second one.
func (h *house) sites(size int64, second backup.RepositoryRecord) (vm backup.VirtualMachine, to backup.RepositoryRecord, stop func()) {
	h.Helper()
	rs := opener(h.T)
	h.config.Repositories = rs
	first := folder(h.T, "first")
	first.Meta, first.Default = h.record.Meta, true
	for _, r := range []*backup.RepositoryRecord{&first, &second} {
		if r == &second {
			r.ID = backup.NewID(h.clock.Now())
		}
		id, err := rs.Create(h.ctx, *r)
		if err != nil {
			h.Fatal(err)
		}
		r.UniqueID = id
	}
	h.update(func(tx backup.Tx) error {
		if err := tx.UpdateRepository(h.ctx, &first); err != nil {
			return err
		}
		return tx.InsertRepository(h.ctx, &second)
	})
	h.record = first
	vm = h.addVM("real", size)
	stop = h.start()
	if j := h.ended(h.ask(vm)); j.State != backup.JobSucceeded {
		h.Fatalf("the backup is %s: %s", j.State, j.Error)
	}
	h.clock.pass(time.Minute)
	return vm, second, stop
}

// stored are the bytes in a folder.
func (h *house) stored(r backup.RepositoryRecord) (sum int64) {
	h.Helper()
	err := filepath.WalkDir(r.Settings["path"], func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		i, err := e.Info()
		if err == nil {
			sum += i.Size()
		}
		return err
	})
	if err != nil {
		h.Fatal(err)
	}
	return sum
}

// holdsCopy fails unless an installation that knows nothing but the repository
// finds the image there, with these bytes.
func (h *house) holdsCopy(r backup.RepositoryRecord, c backup.Image, want map[int32][]byte) {
	h.Helper()
	repo, err := opener(h.T).Repository(h.ctx, r)
	if err != nil {
		h.Fatal(err)
	}
	all, err := repo.Images(h.ctx)
	if err != nil {
		h.Fatal(err)
	}
	var ref string
	for _, m := range all {
		if m.Image.ID == c.ID {
			ref = m.Image.Ref
		}
	}
	i, err := repo.Image(h.ctx, ref)
	if err != nil {
		h.Fatalf("of %d images: %v", len(all), err)
	}
	if m := i.Manifest().Image; m.CopyOf != c.CopyOf || m.VMName != c.VMName || m.RepositoryID != r.ID {
		h.Errorf("manifest %+v, want that of copy %+v", m, c)
	}
	if nvram, err := i.File(h.ctx, "vm.nvram"); err != nil || string(nvram) != "nvram of real" {
		h.Errorf("NVRAM %q, %v", nvram, err)
	}
	for key, b := range want {
		d, err := i.Disk(h.ctx, key)
		if err != nil {
			h.Fatal(err)
		}
		got := make([]byte, len(b))
		if _, err := d.ReadAt(got, 0); err != nil {
			h.Fatal(err)
		}
		if !bytes.Equal(got, b) {
			h.Errorf("disk %d has other bytes in the copy", key)
		}
		if err := d.Close(); err != nil {
			h.Error(err)
		}
	}
}

// seed:K2 seed:K4 seed:A23
func TestACopyStandsAloneWithAKeyOfItsOwn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	vm, second, stop := h.sites(6*mib, folder(t, "second"))
	first, before := h.images()[0], h.content(vm.MOID)
	if j := h.ended(h.copyImage(first.ID, second)); j.State != backup.JobSucceeded {
		t.Fatalf("the copy is %s: %s", j.State, j.Error)
	}
	one, full := h.copies()[0], h.stored(second)
	h.vsphere.with(vm.MOID, func(vm *fakeVM) { copy(vm.disks[2000][3*mib:], bytes.Repeat([]byte("changed "), mib/8)) })
	h.ended(h.ask(vm))
	next := h.images()[0]
	if j := h.ended(h.copyImage(next.ID, second)); j.State != backup.JobSucceeded {
		t.Fatalf("the second copy is %s: %s", j.State, j.Error)
	}
	two := h.copies()[0]
	if grown := h.stored(second) - full; two.CopyOf != next.ID || two.Disks[0].Read != mib || grown > mib {
		t.Errorf("copy %+v read %d bytes and the folder grew by %d, want the changed MiB, packed", two, two.Disks[0].Read, grown)
	}
	stop()
	after := h.content(vm.MOID)
	if err := os.RemoveAll(h.record.Settings["path"]); err != nil {
		t.Fatal(err)
	}
	h.holdsCopy(second, one, before)
	h.holdsCopy(second, two, after)
	second.Password = h.record.Password
	if _, err := opener(t).Repository(t.Context(), second); err == nil {
		t.Error("the second repository opens with the key of the first")
	}
}

// seed:K2
func TestACopyGoesToAnotherKindOfStorage(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	bucket := s3test.New(t, false)
	vm, second, stop := h.sites(4*mib, backup.RepositoryRecord{Name: "bucket", Kind: repository.KindS3, Settings: bucket.Settings, Password: backup.NewPassword()})
	if j := h.ended(h.copyImage(h.images()[0].ID, second)); j.State != backup.JobSucceeded {
		t.Fatalf("the copy is %s: %s", j.State, j.Error)
	}
	stop()
	h.holdsCopy(second, h.copies()[0], h.content(vm.MOID))
}

// dying makes a server stand still for ever once it has read so much of the
// disks of an image, as if it had been killed there.
type dying struct {
	backup.Repositories
	id      string // of the repository that is read
	left    atomic.Int64
	reached chan struct{}
	once    sync.Once
	release chan struct{}
}

func (d *dying) Repository(ctx context.Context, r backup.RepositoryRecord) (backup.Repository, error) {
	repo, err := d.Repositories.Repository(ctx, r)
	if err != nil || r.ID != d.id {
		return repo, err
	}
	return dyingRepository{repo, d}, nil
}

type dyingRepository struct {
	backup.Repository
	d *dying
}

func (r dyingRepository) Image(ctx context.Context, ref string) (backup.ImageReader, error) {
	i, err := r.Repository.Image(ctx, ref)
	return dyingImage{i, r.d}, err
}

type dyingImage struct {
	backup.ImageReader
	d *dying
}

func (i dyingImage) Disk(ctx context.Context, key int32) (backup.DiskReader, error) {
	r, err := i.ImageReader.Disk(ctx, key)
	return dyingDisk{r, i.d}, err
}

type dyingDisk struct {
	backup.DiskReader
	d *dying
}

func (r dyingDisk) ReadAt(p []byte, off int64) (int, error) {
	if r.d.left.Add(-int64(len(p))) < 0 {
		r.d.once.Do(func() { close(r.d.reached) })
		<-r.d.release
	}
	return r.DiskReader.ReadAt(p, off)
}

// TestWhatADeadServerHasSentIsNotSentAgain: a server dies after 10 of 12 MiB,
// and the next one sends the rest.
func TestWhatADeadServerHasSentIsNotSentAgain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	vm, second, stop := h.sites(12*mib, folder(t, "second"))
	stop()
	d := &dying{Repositories: h.config.Repositories, id: h.record.ID, reached: make(chan struct{}), release: make(chan struct{})}
	d.left.Store(10 * mib)
	beats := h.store.hold(t, "Renew", -1)
	id := h.copyImage(h.images()[0].ID, second)
	dead := h.start(func(c *worker.Config) {
		c.Repositories, c.Lease, c.Slots, c.CopyCheckpoint = d, 4*time.Second, 1, mib
	})
	h.wait("the server's death", d.reached)
	h.wait("its last beat", beats.reached)
	sent := h.stored(second)
	if sent < 8*mib {
		t.Errorf("%d bytes are stored of 10 MiB that were read, want what lies before the last checkpoint", sent)
	}
	h.clock.pass(5 * time.Second)
	h.start(func(c *worker.Config) {
		c.Owner, c.Store, c.Repositories = "server-2", &faultyStore{DB: h.db}, opener(t)
	})
	if j := h.ended(id); j.State != backup.JobSucceeded || j.Attempt != 2 {
		t.Fatalf("job is %s after %d attempts: %s", j.State, j.Attempt, j.Error)
	}
	if rest := h.stored(second) - sent; rest > 4*mib+mib/2 { // 2 were not read, and 2 at most had not got into the index
		t.Errorf("the second attempt sent %d bytes, want the rest of 12 MiB only", rest)
	}
	beats.release()
	close(d.release)
	dead()
	copies := h.copies()
	if len(copies) != 1 {
		t.Fatalf("%d copies, want one", len(copies))
	}
	h.holdsCopy(second, copies[0], h.content(vm.MOID))
}
