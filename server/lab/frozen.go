package lab

import (
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// frozen are the checksums of disks as snapshots froze them.
type frozen struct {
	mu   sync.Mutex // guards sums
	sums map[instant]map[int32]string
}

// instant is when a snapshot of a VM was made, in the milliseconds that clients keep of it.
type instant struct {
	moid string
	ms   int64
}

// FrozenSHA256 returns the checksums, in hex and by device key, of the disks of
// a VM as the snapshot froze them that was made at that time; nil = there is none.
// A lab with Config.KeepSums knows them of snapshots that are long gone.
func (l *Lab) FrozenSHA256(moid string, at time.Time) map[int32]string {
	l.frozen.mu.Lock()
	defer l.frozen.mu.Unlock()
	return l.frozen.sums[instant{moid, at.UnixMilli()}]
}

// keepSums notes what a snapshot that was just made froze. It runs within the
// task that made it, so that nobody can have removed it yet.
func (l *Lab) keepSums(ctx *simulator.Context, vm *simulator.VirtualMachine, s *snapshot) types.BaseMethodFault {
	if !l.config.KeepSums {
		return nil
	}
	sums := map[int32]string{}
	for key, k := range s.links {
		sum, err := k.sum(ctx.Context)
		if err != nil {
			return systemError(err)
		}
		sums[key] = sum
	}
	at := madeAt(vm.Snapshot.RootSnapshotList, s.ref)
	l.frozen.mu.Lock()
	defer l.frozen.mu.Unlock()
	if l.frozen.sums == nil {
		l.frozen.sums = map[instant]map[int32]string{}
	}
	l.frozen.sums[instant{vm.Self.Value, at.UnixMilli()}] = sums
	return nil
}

// madeAt is the time that a snapshot says it was made at; zero = it is not in the tree.
func madeAt(tree []types.VirtualMachineSnapshotTree, r ref) time.Time {
	for _, t := range tree {
		if t.Snapshot == r {
			return t.CreateTime
		}
		if at := madeAt(t.ChildSnapshotList, r); !at.IsZero() {
			return at
		}
	}
	return time.Time{}
}
