package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// VMs lists the virtual machines.
func (l *Lab) VMs() []VM {
	list := l.index.all()
	for i := range list {
		l.complete(&list[i])
	}
	return list
}

// VM finds a virtual machine by its moid or its name.
func (l *Lab) VM(id string) (VM, error) {
	v, err := l.index.find(id)
	if err == nil {
		l.complete(&v)
	}
	return v, err
}

// complete adds what the index does not keep, and parts the copy from the index.
func (l *Lab) complete(v *VM) {
	v.Disks, v.Snapshots = slices.Clone(v.Disks), slices.Clone(v.Snapshots)
	v.Folder, v.Tags, v.VCenter = l.folderPath(v.parent), l.tagsOf(v.ref), l.config.UUID
}

// Reference is the VM's managed object.
func (v VM) Reference() types.ManagedObjectReference { return v.ref }

// Moid returns the managed object id of a VM, or "" if there is none of that name.
func (l *Lab) Moid(name string) string {
	v, _ := l.index.find(name)
	return v.Moid
}

// Snapshots names the snapshots of a VM.
func (l *Lab) Snapshots(id string) ([]string, error) {
	v, err := l.index.find(id)
	return v.Snapshots, err
}

// top finds the content of a VM's disk as the guest sees it now. Key 0 is the first disk.
func (l *Lab) top(id string, key int32) (VM, *link, error) {
	v, err := l.index.find(id)
	if err != nil {
		return v, nil, err
	}
	i := slices.IndexFunc(v.Disks, func(d Disk) bool { return d.Key == key })
	if key == 0 && len(v.Disks) > 0 {
		i = 0
	}
	if i < 0 {
		return v, nil, fmt.Errorf("VM %s has no disk %d", v.Name, key)
	}
	k := l.store.get(v.Disks[i].File)
	if k == nil {
		return v, nil, fmt.Errorf("the file %s of VM %s is missing", v.Disks[i].File, v.Name)
	}
	return v, k, nil
}

// GuestWrite is a write of the guest to its disk.
func (l *Lab) GuestWrite(id string, key int32, off int64, p []byte) error {
	v, err := l.index.find(id)
	if err != nil {
		return err
	}
	m := l.stunLock(v.ref)
	m.RLock()
	defer m.RUnlock()
	_, k, err := l.top(v.Moid, key) // only now: a snapshot may have come between
	if err != nil {
		return err
	}
	_, err = k.WriteAt(p, off)
	return err
}

// GuestWriteRandom writes pseudo-random bytes: each 1 MiB from off on is the
// [Noise] of the seed plus its distance from off.
func (l *Lab) GuestWriteRandom(id string, key int32, off, length int64, seed uint64) error {
	b := make([]byte, min(length, 1<<20))
	for done := int64(0); done < length; done += int64(len(b)) {
		b = b[:min(int64(len(b)), length-done)]
		Noise(seed+uint64(done), b)
		if err := l.GuestWrite(id, key, off+done, b); err != nil {
			return err
		}
	}
	return nil
}

// Noise fills p with the pseudo-random bytes of a seed.
func Noise(seed uint64, p []byte) { fillNoise(seed, p) }

// DiskReader reads a disk as the guest sees it at each read.
func (l *Lab) DiskReader(id string, key int32) (*io.SectionReader, error) {
	_, k, err := l.top(id, key)
	if err != nil {
		return nil, err
	}
	k.disk.mu.RLock()
	defer k.disk.mu.RUnlock()
	return io.NewSectionReader(k, 0, k.disk.capacity), nil
}

// GuestRead reads a part of a disk as the guest sees it.
func (l *Lab) GuestRead(id string, key int32, off, length int64) ([]byte, error) {
	r, err := l.DiskReader(id, key)
	if err != nil {
		return nil, err
	}
	p := make([]byte, length)
	if n, err := r.ReadAt(p, off); n < len(p) {
		return nil, fmt.Errorf("read disk %d of %s: %w", key, id, err)
	}
	return p, nil
}

// DiskSHA256 is the checksum of a whole disk as the guest sees it, in hex.
// Holes are hashed, but not read.
func (l *Lab) DiskSHA256(ctx context.Context, id string, key int32) (string, error) {
	_, k, err := l.top(id, key)
	if err != nil {
		return "", err
	}
	return k.sum(ctx)
}

func (l *link) sum(ctx context.Context) (string, error) {
	h := sha256.New()
	b, zeros := make([]byte, blockSize), make([]byte, 1<<20)
	var at int64
	fill := func(to int64) error {
		for ; at < to; at += min(int64(len(zeros)), to-at) {
			if err := ctx.Err(); err != nil {
				return err
			}
			_, _ = h.Write(zeros[:min(int64(len(zeros)), to-at)])
		}
		return nil
	}
	for n := range l.allocated(0) {
		if err := fill(n * blockSize); err != nil {
			return "", err
		}
		k, err := l.ReadAt(b, at)
		if err != nil && !isEOF(err) {
			return "", err
		}
		_, _ = h.Write(b[:k])
		at += int64(k)
	}
	l.disk.mu.RLock()
	capacity := l.disk.capacity
	l.disk.mu.RUnlock()
	if err := fill(capacity); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ExtendDisk is an administrator who makes a disk larger.
func (l *Lab) ExtendDisk(id string, key int32, capacity int64) error {
	_, k, err := l.top(id, key)
	if err != nil {
		return err
	}
	k.disk.mu.Lock()
	k.disk.grow(capacity)
	k.disk.mu.Unlock()
	v, err := l.index.find(id)
	if err != nil {
		return err
	}
	return l.run(func(ctx *simulator.Context) job {
		return l.vmJob(ctx, v.ref, "ReconfigVM_Task", "reconfigVm", func(vm *simulator.VirtualMachine) (types.AnyType, types.BaseMethodFault) {
			list := devices(vm)
			for i, dev := range list {
				if d, b := diskOf(dev); b != nil && l.store.get(b.FileName) == k {
					c := *d
					c.CapacityInBytes, c.CapacityInKB = capacity, capacity/1024
					list[i] = &c
				}
			}
			setDevices(ctx, vm, list)
			return nil, nil
		})
	})
}

// writer is a guest that keeps writing.
type writer struct {
	vm   ref
	stop context.CancelFunc
	done chan struct{}
}

// KeepWriting makes a guest write 4 KiB at a random place of each of its disks
// every so often, until stop is called, the VM goes or the lab is closed.
func (l *Lab) KeepWriting(id string, every time.Duration) (stop func(), err error) {
	v, err := l.index.find(id)
	if err != nil {
		return nil, err
	}
	if every <= 0 {
		return nil, errors.New("a guest that keeps writing needs a pause between its writes")
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &writer{vm: v.ref, stop: cancel, done: make(chan struct{})}
	l.mu.Lock()
	l.writers[w] = struct{}{}
	l.mu.Unlock()
	l.work.Go(func() { l.write(ctx, w, every) })
	return func() {
		cancel()
		<-w.done
	}, nil
}

func (l *Lab) write(ctx context.Context, w *writer, every time.Duration) {
	defer close(w.done)
	defer func() {
		l.mu.Lock()
		delete(l.writers, w)
		l.mu.Unlock()
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	p := make([]byte, 4<<10)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		v, ok := l.index.get(w.vm)
		if !ok {
			return
		}
		if v.PowerState != string(types.VirtualMachinePowerStatePoweredOn) {
			continue
		}
		for _, d := range v.Disks {
			fillNoise(rand.Uint64(), p)
			off := rand.Int64N(max(d.Capacity/int64(len(p)), 1)) * int64(len(p))
			if err := l.GuestWrite(v.Moid, d.Key, off, p); err != nil {
				l.log.InfoContext(ctx, "guest write failed", "vm", v.Name, "error", err)
			}
		}
	}
}

// stopWriters tells the guests of the VMs that match to stop. It does not wait:
// a writer may be waiting for the very task that wants it to stop.
func (l *Lab) stopWriters(which func(vm ref) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.writers {
		if which(w.vm) {
			w.stop()
		}
	}
}
