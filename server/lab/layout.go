package lab

import (
	"os"
	"path/filepath"

	"github.com/vmware/govmomi/simulator"
)

// unlay takes the list of snapshot files from a VM. The simulator numbers the
// files of a VM anew after each snapshot, and would delete others in their place.
func unlay(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	ctx.WithLock(vm, func() {
		if vm.LayoutEx != nil {
			vm.LayoutEx.Snapshot = nil
		}
	})
}

// dropStates removes the files of snapshots that a VM has no more.
func (l *Lab) dropStates(vm *simulator.VirtualMachine) {
	if vm.Snapshot != nil {
		return
	}
	dir, err := l.store.local(folderOf(vm.Config.Files.VmPathName))
	if err != nil {
		return
	}
	states, _ := filepath.Glob(filepath.Join(dir, "*.vmsn"))
	for _, s := range states {
		_ = os.Remove(s) // they are empty, and numbered on if they stay
	}
}
