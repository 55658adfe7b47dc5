package lab

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// Fault is something that shall go wrong.
type Fault struct {
	Kind   string        `json:"kind"`
	VM     string        `json:"vm,omitempty"`     // moid or name; empty: any
	Method string        `json:"method,omitempty"` // API method, as CreateSnapshot_Task; empty: any
	Count  int           `json:"count,omitempty"`  // how often; 0 means once, below 0 until cleared
	After  int64         `json:"after,omitempty"`  // bytes of a stream, else calls, that go well before
	Delay  time.Duration `json:"delay,omitempty"`
}

// FaultKind is a row of the table of faults.
type FaultKind struct {
	Name  string `json:"name"`
	Help  string `json:"help"`
	at    point
	only  []string         // methods that it strikes; empty: all
	when  func(asked) bool // further condition, if any
	fault func() types.BaseMethodFault
}

// point is where in the lab a fault strikes.
type point int

const (
	atTask    point = iota // in a task: ends it, or only delays it where fault is nil
	atCall                 // in the call itself, before there is a task
	atRequest              // on a request's way in
	atPlace                // at a place in the code that asks for it by name
)

// Faults lists the kinds of faults. A new one is a row here and, where it does
// not strike a task or a call, a question in the code: l.faults.take(name, vm).
func Faults() []FaultKind {
	createSnapshot := []string{"CreateSnapshot_Task", "CreateSnapshotEx_Task"}
	removeSnapshot := []string{"RemoveSnapshot_Task", "RemoveAllSnapshots_Task"}
	writes := append([]string{"upload", "ImportVApp", "CreateVM_Task", "CloneVM_Task", "CopyVirtualDisk_Task", "CreateVirtualDisk_Task"}, createSnapshot...)
	return []FaultKind{
		{Name: "task_fail", Help: "a task (of method, of vm) ends in a SystemError", at: atTask, fault: func() types.BaseMethodFault { return &types.SystemError{Reason: "asked of the lab"} }},
		{Name: "task_slow", Help: "a task (of method, of vm) takes delay longer", at: atTask},
		{Name: "snapshot_fail", Help: "a snapshot cannot be created", at: atTask, only: createSnapshot, fault: func() types.BaseMethodFault {
			return &types.GenericVmConfigFault{Reason: "An error occurred while taking a snapshot."}
		}},
		{Name: "quiesce_fail", Help: "a quiesced snapshot cannot be created; one without quiescing can", at: atTask, only: createSnapshot,
			when: func(a asked) bool { return a.quiesce }, fault: func() types.BaseMethodFault { return &types.ApplicationQuiesceFault{} }},
		{Name: "remove_fail", Help: "a snapshot cannot be removed", at: atTask, only: removeSnapshot, fault: func() types.BaseMethodFault {
			return &types.GenericVmConfigFault{Reason: "An error occurred while consolidating disks."}
		}},
		{Name: "consolidate_fail", Help: "disks cannot be consolidated: a file is locked", at: atTask, only: []string{"ConsolidateVMDisks_Task"}, fault: func() types.BaseMethodFault { return &types.FileLocked{} }},
		{Name: "datastore_full", Help: "a snapshot, an import, a new disk or an upload finds the datastore full", at: atTask, only: writes, fault: func() types.BaseMethodFault { return &types.NoDiskSpace{Datastore: "full"} }},
		{Name: "hotadd_fail", Help: "a disk that exists cannot be attached to a VM: its file is locked", at: atTask, only: []string{"ReconfigVM_Task"},
			when: func(a asked) bool { return a.attach }, fault: func() types.BaseMethodFault { return &types.FileLocked{} }},
		{Name: "permission_denied", Help: "a call (of method, of vm) is refused for a missing privilege", at: atCall, fault: func() types.BaseMethodFault { return &types.NoPermission{PrivilegeId: "Lab.Denied"} }},
		{Name: "cbt_fault", Help: "QueryChangedDiskAreas fails", at: atCall, only: []string{"QueryChangedDiskAreas"}, fault: func() types.BaseMethodFault { return &types.FileFault{File: "disk-ctk.vmdk"} }},
		{Name: "session_expire", Help: "all sessions end", at: atRequest},
		{Name: "http_503", Help: "an HTTP request is answered with 503", at: atRequest},
		{Name: "guest_hangs", Help: "a guest that is asked to shut down never does", at: atPlace},
		{Name: "guest_slow", Help: "a guest that is asked to shut down takes delay for it", at: atPlace},
		{Name: "consolidation_needed", Help: "the removal of a snapshot succeeds but leaves its delta files behind", at: atPlace},
		{Name: "cbt_reset", Help: "changed block tracking is reset at the next snapshot, as after a crash of the host", at: atPlace},
		{Name: "cbt_revert", Help: "a revert to a snapshot leaves changed block tracking as it was", at: atPlace},
		{Name: "cbt_empty", Help: "QueryChangedDiskAreas answers with an empty page before the first changed block, and with the others after it", at: atPlace},
		{Name: "cbt_beyond", Help: "QueryChangedDiskAreas names an area behind the end of the disk", at: atPlace},
		{Name: "cbt_unordered", Help: "QueryChangedDiskAreas names the areas from the last to the first", at: atPlace},
		{Name: "cbt_stuck", Help: "QueryChangedDiskAreas answers with a page of no length", at: atPlace},
		{Name: "cbt_wrong", Help: "QueryChangedDiskAreas leaves out every second changed block", at: atPlace},
		{Name: "cbt_truncate", Help: "QueryChangedDiskAreas answers in pages of one area", at: atPlace},
		{Name: "stream_stall", Help: "an export or an upload stands still for delay after so many bytes", at: atPlace},
		{Name: "export_cut", Help: "the connection of an export breaks after so many bytes", at: atPlace},
		{Name: "export_corrupt", Help: "a byte of an export is changed on its way, at offset after", at: atPlace},
		{Name: "export_short", Help: "an export ends early and cleanly, after so many bytes", at: atPlace},
		{Name: "upload_cut", Help: "the connection of an upload breaks after so many bytes", at: atPlace},
		{Name: "device_slow", Help: "an attached disk does not show up in its guest for so many looks (count)", at: atPlace},
		{Name: "device_missing", Help: "an attached disk does not show up in its guest", at: atPlace},
		{Name: "device_write_fail", Help: "a write to an attached disk fails, after so many that go well", at: atPlace},
		{Name: "device_fail", Help: "a read of an attached disk fails, after so many that go well", at: atPlace},
		{Name: "privilege_missing", Help: "the account lacks the privilege named by method (on vm), until it is cleared; calls are not refused for it", at: atPlace},
		{Name: "datastore_slow", Help: "the datastore named by vm, or each, answers in delay as hosts see it, until it is cleared", at: atPlace},
		{Name: "clock_skew", Help: "the vCenter's clock, or that of the host named by vm, is ahead by delay, until it is cleared", at: atPlace},
		{Name: "lease_expire", Help: "a lease times out after so many bytes", at: atPlace},
	}
}

// asked is what somebody wants of the vCenter, as faults see it.
type asked struct {
	method  string
	vm      ref
	name    string // of the VM
	quiesce bool
	attach  bool
}

// armed is a fault that waits.
type armed struct {
	Fault
	kind FaultKind
	left int // below 0: for ever
}

// faults is the list of what shall go wrong.
type faults struct {
	kinds []FaultKind

	mu    sync.Mutex // guards armed
	armed []*armed
}

func (f *faults) arm(what Fault) error {
	i := slices.IndexFunc(f.kinds, func(k FaultKind) bool { return k.Name == what.Kind })
	if i < 0 {
		return fmt.Errorf("there is no kind of fault %q", what.Kind)
	}
	a := &armed{Fault: what, kind: f.kinds[i], left: what.Count}
	if a.left == 0 {
		a.left = 1
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = append(f.armed, a)
	return nil
}

func (f *faults) list() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Fault, len(f.armed))
	for i, a := range f.armed {
		list[i] = a.Fault
		list[i].Count = a.left
	}
	return list
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = nil
}

// task returns the fault that strikes a task. Delays of other faults that match add up in it.
func (f *faults) task(a asked) *armed {
	f.mu.Lock()
	defer f.mu.Unlock()
	var hit *armed
	var delay time.Duration
	for _, x := range slices.Clone(f.armed) {
		if x.kind.at != atTask || !x.strikes(a) || (hit != nil && x.kind.fault != nil) || !f.spend(x) {
			continue
		}
		delay += x.Delay
		if hit == nil || x.kind.fault != nil {
			hit = x
		}
	}
	if hit == nil {
		return nil
	}
	sum := *hit
	sum.Delay = delay
	return &sum
}

// call returns the fault with which a call is answered.
func (f *faults) call(a asked) *armed {
	return f.first(func(x *armed) bool { return x.kind.at == atCall && x.strikes(a) }, true)
}

// take asks for a fault by name. Where after counts bytes, counted is false and the caller heeds it.
func (f *faults) take(name string, vm ref, vmName string, counted bool) *armed {
	return f.first(func(x *armed) bool {
		return x.Kind == name && x.strikes(asked{method: x.Method, vm: vm, name: vmName})
	}, counted)
}

// full says whether an upload shall find the datastore full.
func (f *faults) full(vm ref, name string) bool {
	return f.first(func(x *armed) bool {
		return x.Kind == "datastore_full" && x.strikes(asked{method: "upload", vm: vm, name: name})
	}, true) != nil
}

func (f *faults) first(match func(*armed) bool, counted bool) *armed {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range slices.Clone(f.armed) {
		if !match(x) {
			continue
		}
		if !counted {
			f.use(x)
			return x
		}
		if f.spend(x) {
			return x
		}
	}
	return nil
}

func (a *armed) strikes(w asked) bool {
	k := a.kind
	return (a.VM == "" || a.VM == w.vm.Value || a.VM == w.name) &&
		(a.Method == "" || strings.EqualFold(a.Method, w.method) || strings.EqualFold(a.Method+"_Task", w.method)) &&
		(len(k.only) == 0 || slices.Contains(k.only, w.method)) &&
		(k.when == nil || k.when(w))
}

// spend lets calls pass while after lasts, then uses the fault up. The caller holds the lock.
func (f *faults) spend(a *armed) bool {
	if a.After > 0 {
		a.After--
		return false
	}
	f.use(a)
	return true
}

func (f *faults) use(a *armed) {
	if a.left > 0 {
		if a.left--; a.left == 0 {
			f.armed = slices.DeleteFunc(f.armed, func(x *armed) bool { return x == a })
		}
	}
}

// Arm makes something go wrong.
func (l *Lab) Arm(f Fault) error { return l.faults.arm(f) }

// Armed lists the faults that wait to strike.
func (l *Lab) Armed() []Fault { return l.faults.list() }

// ClearFaults disarms all faults.
func (l *Lab) ClearFaults() { l.faults.clear() }

// UnmarshalJSON reads a fault whose delay is written as a duration ("2s") or in seconds.
func (f *Fault) UnmarshalJSON(b []byte) error {
	type plain Fault
	var x struct {
		plain
		Delay json.RawMessage `json:"delay"`
	}
	if err := unmarshalStrict(b, &x); err != nil {
		return err
	}
	*f = Fault(x.plain)
	if len(x.Delay) == 0 || string(x.Delay) == "null" {
		return nil
	}
	var text string
	if json.Unmarshal(x.Delay, &text) == nil {
		d, err := time.ParseDuration(text)
		f.Delay = d
		return err
	}
	var seconds float64
	if err := json.Unmarshal(x.Delay, &seconds); err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	f.Delay = time.Duration(seconds * float64(time.Second))
	return nil
}

// MarshalJSON writes the delay as a duration.
func (f Fault) MarshalJSON() ([]byte, error) {
	type plain Fault
	x := struct {
		plain
		Delay string `json:"delay,omitempty"`
	}{plain: plain(f)}
	if f.Delay > 0 {
		x.Delay = f.Delay.String()
	}
	return json.Marshal(x)
}
