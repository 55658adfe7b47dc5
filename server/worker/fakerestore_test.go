package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// put writes an image's disks into a VM, with a point before each disk.
func (f *fakeVSphere) put(ctx context.Context, vm *fakeVM, from backup.ImageReader, progress func(int64)) error {
	var done int64
	for _, d := range from.Manifest().Image.Disks {
		if d.SkippedReason != "" {
			continue
		}
		if err := f.pass(ctx, "WriteDisk", fmt.Sprint(d.Key)); err != nil {
			return err
		}
		r, err := from.Disk(ctx, d.Key)
		if err != nil {
			return err
		}
		b := make([]byte, d.Capacity)
		if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		f.vmsMu.Lock()
		vm.disks[d.Key] = b
		f.vmsMu.Unlock()
		done += d.Capacity
		progress(done)
	}
	return f.pass(ctx, "WriteEnd", "")
}

func (f *fakeVSphere) ImportVM(ctx context.Context, r backup.ImportDraft, from backup.ImageReader, progress func(int64)) (backup.RestoredVM, []string, error) {
	if err := f.pass(ctx, "ImportVM", r.Marker); err != nil {
		return backup.RestoredVM{}, nil, err
	}
	vm := &fakeVM{marker: r.Marker, disks: map[int32][]byte{}, snapshots: map[string]map[int32][]byte{}}
	f.vmsMu.Lock()
	for _, other := range f.vms {
		if other.Name == r.NewVM.Name {
			f.vmsMu.Unlock()
			return backup.RestoredVM{}, nil, backup.Errorf(backup.Conflict, "new_vm.name", "There is a VM %q already.", r.NewVM.Name)
		}
	}
	f.made++
	vm.MOID, vm.InstanceUUID = fmt.Sprint("new-", f.made), fmt.Sprint("new-uuid-", f.made)
	f.vms[vm.MOID] = vm
	f.vmsMu.Unlock()
	if err := f.put(ctx, vm, from, progress); err != nil {
		return backup.RestoredVM{}, nil, err // the half VM stays, as after a killed server
	}
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	vm.marker, vm.Name = "", r.NewVM.Name
	return backup.RestoredVM{MOID: vm.MOID, InstanceUUID: vm.InstanceUUID, Name: vm.Name}, nil, nil
}

func (f *fakeVSphere) OverwriteVM(ctx context.Context, r backup.OverwriteDraft, from backup.ImageReader, progress func(int64)) (backup.RestoredVM, []string, error) {
	if err := f.pass(ctx, "OverwriteVM", r.MOID+" "+r.Marker); err != nil {
		return backup.RestoredVM{}, nil, err
	}
	f.vmsMu.Lock()
	vm, err := f.vm(r.MOID)
	f.vmsMu.Unlock()
	if err != nil {
		return backup.RestoredVM{}, nil, err
	}
	if err := f.put(ctx, vm, from, progress); err != nil {
		return backup.RestoredVM{}, nil, err
	}
	return backup.RestoredVM{MOID: vm.MOID, InstanceUUID: vm.InstanceUUID, Name: vm.Name}, []string{"The replaced disks are kept for 24 h."}, nil
}

// RestoreDisk takes the place of the disk of the same key, or adds one.
func (f *fakeVSphere) RestoreDisk(ctx context.Context, r backup.DiskRestoreDraft, from backup.ImageReader, progress func(int64)) (backup.RestoredVM, []string, error) {
	if err := f.pass(ctx, "RestoreDisk", fmt.Sprintf("%s %s %s", r.MOID, r.Disk.Mode, r.Marker)); err != nil {
		return backup.RestoredVM{}, nil, err
	}
	disk, err := r.Disk.Choose(from.Manifest().Image.Disks)
	if err != nil {
		return backup.RestoredVM{}, nil, err
	}
	f.vmsMu.Lock()
	vm, err := f.vm(r.MOID)
	f.vmsMu.Unlock()
	if err != nil {
		return backup.RestoredVM{}, nil, err
	}
	reader, err := from.Disk(ctx, disk.Key)
	if err != nil {
		return backup.RestoredVM{}, nil, err
	}
	b := make([]byte, disk.Capacity)
	if _, err := reader.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return backup.RestoredVM{}, nil, err
	}
	progress(disk.Capacity)
	f.vmsMu.Lock()
	defer f.vmsMu.Unlock()
	key := disk.Key
	if r.Disk.Mode == backup.DiskAttach {
		for key = 9000; vm.disks[key] != nil; key++ {
		}
	}
	vm.disks[key] = b
	return backup.RestoredVM{MOID: vm.MOID, InstanceUUID: vm.InstanceUUID, Name: vm.Name}, []string{fmt.Sprintf("%q is disk %d.", disk.Label, key)}, nil
}

func (f *fakeVSphere) CheckRestore(ctx context.Context, r backup.RestoreCheck, _ backup.ImageReader) (backup.RestoreFindings, error) {
	return backup.RestoreFindings{}, f.pass(ctx, "CheckRestore", r.MOID)
}
