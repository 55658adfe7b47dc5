package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// fakeTracking is what a fake vcenter tells about changes. Its zero value
// tracks none and sends whole disks. It is guarded by the vcenter's vmsMu.
type fakeTracking struct {
	on    bool
	epoch string
	seq   int
	since []string                  // change ids that were asked about
	told  map[int32][]backup.Extent // what is answered
	fails error                     // what is answered instead
	areas bool                      // areas can be read
	asked []backup.Extent           // areas that were
}

// trackAll has the vcenter tell that all of the first VM's disks has changed.
func (h *house) trackAll() {
	h.vsphere.tracking(func(t *fakeTracking) {
		t.on, t.told = true, map[int32][]backup.Extent{}
		for _, d := range h.vm.Disks {
			t.told[d.Key] = []backup.Extent{{N: d.Capacity}}
		}
	})
}

// id is the change id of a disk in the snapshot that is being made.
func (f *fakeTracking) id() string {
	if !f.on {
		return ""
	}
	return fmt.Sprint(f.epoch, "/", f.seq)
}

// tracking runs fn on what the vcenter tells.
func (f *fakeVSphere) tracking(fn func(t *fakeTracking)) {
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	fn(&f.cbt)
}

func (f *fakeVSphere) DatastoreLoad(context.Context, string, []string) (map[string]backup.DatastoreLoad, error) {
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	if len(f.loads) > 1 {
		f.loads = f.loads[1:]
	}
	if len(f.loads) == 0 {
		return nil, nil
	}
	return map[string]backup.DatastoreLoad{"ds1": f.loads[0]}, nil
}

func (f *fakeVSphere) TrackChanges(ctx context.Context, moid string) (backup.Tracking, error) {
	if err := f.pass(ctx, "TrackChanges", moid); err != nil {
		return backup.Tracking{}, err
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	if !f.cbt.on {
		return backup.Tracking{}, nil
	}
	return backup.Tracking{On: true}, nil
}

func (f *fakeVSphere) ResetTracking(ctx context.Context, moid, name string) (backup.Tracking, error) {
	if err := f.pass(ctx, "ResetTracking", moid+" "+name); err != nil {
		return backup.Tracking{}, err
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	f.cbt.epoch, f.cbt.seq = f.cbt.epoch+"'", 0
	return backup.Tracking{On: true, Fresh: true}, nil
}

func (f *fakeVSphere) ChangedAreas(ctx context.Context, _ backup.Snapshot, key int32, since string, fn func(backup.Extent) error) error {
	if err := f.pass(ctx, "ChangedAreas", fmt.Sprint(key, " ", since)); err != nil {
		return err
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	f.cbt.since = append(f.cbt.since, since)
	if f.cbt.fails != nil {
		return f.cbt.fails
	}
	for _, e := range f.cbt.told[key] {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// fakeAreas is a source that reads areas of disks, and leaves zeroes out.
type fakeAreas struct{ *fakeSource }

func (s fakeAreas) Transport() backup.Transport { return backup.TransportHotAdd }

func (s fakeAreas) CanReadAreas() bool { return true }

func (s fakeAreas) ReadAreas(ctx context.Context, key int32, areas iter.Seq[backup.Extent], w io.WriterAt) (read int64, err error) {
	if err := s.f.pass(ctx, "ReadAreas", fmt.Sprint(key)); err != nil {
		return 0, err
	}
	content, ok := s.held[key]
	if !ok {
		return 0, errors.New("the disk is not in the snapshot")
	}
	for e := range areas {
		s.f.tracking(func(t *fakeTracking) { t.asked = append(t.asked, e) })
		for at := e.Off; at < e.Off+e.N; at += 4096 {
			p := content[at:min(at+4096, e.Off+e.N)]
			read += int64(len(p))
			if isZero(p) {
				continue
			}
			if _, err := w.WriteAt(p, at); err != nil {
				return read, err
			}
		}
	}
	return read, nil
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// fakeBlock is in blocks of how many bytes the fake repository keeps disks.
const fakeBlock = 4096

func (w *fakeWriter) BlockSize(int32, int64) int64 { return fakeBlock }

func (w *fakeWriter) ReadBase(ctx context.Context, key int32, p []byte, off int64) error {
	base := w.base(key)
	if base == nil {
		return backup.Errorf(backup.Conflict, "", "There is no base.")
	}
	n := copy(p, base[min(off, int64(len(base))):])
	clear(p[n:])
	return w.r.pass(ctx, "ReadBase", fmt.Sprint(key))
}

// differences tells the blocks in which a disk that was written is not as in its base.
func (d *fakeDiskWriter) differences() {
	base := d.w.base(d.d.Key)
	if d.d.OnChange == nil || base == nil {
		return
	}
	now := d.w.image.disks[d.d.Key]
	for off := 0; off < len(now); off += fakeBlock {
		end := min(off+fakeBlock, len(now))
		if string(base[min(off, len(base)):min(end, len(base))]) != string(now[off:end]) {
			d.d.OnChange(int64(off), int64(end-off))
		}
	}
}
