package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
)

func TestManyVMsAreCreatedAtOnce(t *testing.T) {
	e := start(t, lab.Config{VMs: 150})
	list := e.VMs()
	names, uuids, files := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, v := range list {
		names[v.Name], uuids[v.InstanceUUID], files[v.Disks[0].File] = true, true, true
	}
	if len(list) != 150 || len(names) != 150 || len(uuids) != 150 || len(files) != 150 {
		t.Errorf("%d VMs, %d names, %d UUIDs, %d files, want 150 of each", len(list), len(names), len(uuids), len(files))
	}
}

func TestA62TiBDiskCostsWhatItHolds(t *testing.T) {
	e := start(t, lab.Config{VMs: -1})
	fill := 1e-7
	v, err := e.AddVM(e.ctx, lab.VMSpec{Name: "big", Disks: []int64{62 << 40}, Fill: &fill})
	if err != nil {
		t.Fatal(err)
	}
	e.guestWrite("big", 0, 61<<40, 1000, 1)
	s := e.snapshot(e.vm("big"), "s")
	le, err := e.vm("big").ExportSnapshot(e.ctx, &s)
	if err != nil {
		t.Fatal(err)
	}
	info, err := le.Wait(e.ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := e.do("GET", info.Items[0].URL.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r, err := vmdk.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var held int64
	written := make([]byte, 1000)
	for {
		off, grain, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		held += int64(len(grain))
		if off == 61<<40 {
			copy(written, grain)
		}
	}
	want := make([]byte, 1000)
	lab.Noise(1, want)
	if r.Capacity() != 62<<40 || v.Disks[0].Capacity != 62<<40 || held > 64*mib || string(written) != string(want) {
		t.Errorf("capacity %d, %d bytes held", r.Capacity(), held)
	}
	if err := le.Complete(e.ctx); err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsAllThatTheLabStarted(t *testing.T) {
	l, err := lab.New(lab.Config{VMs: 2, DiskSize: diskSize})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.KeepWriting("vm01", time.Millisecond); err != nil {
		t.Fatal(err)
	}
	e := &env{Lab: l, t: t, ctx: context.Background()}
	e.login()
	if err := l.Arm(lab.Fault{Kind: "task_slow", Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}
	task, err := e.vm("vm01").CreateSnapshot(e.ctx, "s", "", false, false)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { // a client that waits for what never comes
		_, err := task.WaitForResult(e.ctx, nil)
		ended <- err
	}()
	e.importLease(importSpec("half", "LocalDS_0", diskSize))
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("the wait for an endless task succeeded")
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	e.c.Client.Client.CloseIdleConnections()
	var left string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if left = goroutines(); left == "" {
			return
		}
	}
	t.Errorf("goroutines are left:\n%s", left)
}

// goroutines lists those that run code of the lab or of vcsim.
func goroutines() string {
	b := make([]byte, 4<<20)
	b = b[:runtime.Stack(b, true)]
	var list []string
	for _, g := range strings.Split(string(b), "\n\n") {
		if (strings.Contains(g, "server/lab.") || strings.Contains(g, "govmomi/simulator")) && !strings.Contains(g, "lab_test.goroutines") {
			list = append(list, g)
		}
	}
	return strings.Join(list, "\n\n")
}

func TestWhatIsDoneAtOnceEnds(t *testing.T) {
	e := start(t, lab.Config{VMs: 8, DiskSize: 2 * mib})
	ctx, cancel := context.WithTimeout(e.ctx, 2*time.Minute)
	defer cancel()
	e.ctx = ctx
	folder, err := e.f.DefaultFolder(ctx)
	if err != nil {
		t.Fatal(err)
	}
	disk := e.read("vm01", 0)
	var wg sync.WaitGroup
	for n, work := range map[string]func(vm *object.VirtualMachine, name string) (*object.Task, error){
		"vm01": func(vm *object.VirtualMachine, name string) (*object.Task, error) {
			return vm.Clone(ctx, folder, name, types.VirtualMachineCloneSpec{})
		},
		"vm02": func(vm *object.VirtualMachine, _ string) (*object.Task, error) {
			return vm.Reconfigure(ctx, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(true)})
		},
		"vm03": func(vm *object.VirtualMachine, name string) (*object.Task, error) {
			return vm.CreateSnapshot(ctx, name, "", false, false)
		},
		"vm04": func(_ *object.VirtualMachine, name string) (*object.Task, error) {
			return e.importVM(name, "LocalDS_0", disk).Destroy(ctx)
		},
		"vm05": func(_ *object.VirtualMachine, name string) (*object.Task, error) {
			if _, err := e.AddVM(ctx, lab.VMSpec{Name: name}); err != nil {
				return nil, err
			}
			if err := e.SetPower(ctx, name, false); err != nil {
				return nil, err
			}
			return e.vm(name).Destroy(ctx)
		},
	} {
		wg.Go(func() {
			for i := range 6 {
				task, err := work(e.vm(n), fmt.Sprintf("%s-%d", n, i))
				if _, err := wait(ctx, task, err); err != nil {
					t.Errorf("%s, round %d: %v", n, i, err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(e.VMs()); n != 8+6 {
		t.Errorf("%d VMs are left, want 8 and 6 clones", n)
	}
}

// TestOthersLookWhileVMsAreMade is for the race detector: in two labs VMs are
// made in all ways, while clients look for them and read them at once.
func TestOthersLookWhileVMsAreMade(t *testing.T) {
	for _, name := range []string{"one lab", "another"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t, lab.Config{VMs: 3, DiskSize: mib, Hosts: 3})
			folder, err := e.f.DefaultFolder(e.ctx)
			if err != nil {
				t.Fatal(err)
			}
			var makers, lookers sync.WaitGroup
			done := make(chan struct{})
			for n, work := range e.waysToMake(folder) {
				var wanted atomic.Value
				wanted.Store(n + "-0")
				makers.Go(func() {
					for i := range 3 {
						name := fmt.Sprintf("%s-%d", n, i)
						wanted.Store(name)
						task, err := work(name)
						if _, err := wait(e.ctx, task, err); err != nil {
							t.Errorf("make %s: %v", name, err)
						}
					}
				})
				lookers.Go(func() {
					for !closed(done) {
						if err := e.look(folder, wanted.Load().(string)); err != nil {
							t.Errorf("look for %s: %v", wanted.Load(), err)
						}
					}
				})
			}
			makers.Wait()
			close(done)
			lookers.Wait()
			if n := len(e.VMs()); n != 3+3+3 {
				t.Errorf("%d VMs are left, want 3, 3 that were created and 3 clones", n)
			}
		})
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// waysToMake are tasks that make a VM, and one that makes snapshots.
func (e *env) waysToMake(folder *object.Folder) map[string]func(name string) (*object.Task, error) {
	pool, err := e.f.ResourcePool(e.ctx, "DC0_C0/Resources")
	if err != nil {
		e.t.Fatal(err)
	}
	content := e.read("vm01", 0)
	return map[string]func(name string) (*object.Task, error){
		"created": func(name string) (*object.Task, error) {
			return folder.CreateVM(e.ctx, importSpec(name, "LocalDS_0", mib).ConfigSpec, pool, nil)
		},
		"imported": func(name string) (*object.Task, error) {
			return e.importVM(name, "LocalDS_1", content).Destroy(e.ctx)
		},
		"cloned": func(name string) (*object.Task, error) {
			return e.vm("vm02").Clone(e.ctx, folder, name, types.VirtualMachineCloneSpec{})
		},
		"frozen": func(name string) (*object.Task, error) {
			return e.vm("vm03").CreateSnapshot(e.ctx, name, "", false, false)
		},
	}
}

// look finds what has the name in the folder and reads it; else it reads what
// is around, of which it is said where it is.
func (e *env) look(folder *object.Folder, name string) error {
	found, err := object.NewSearchIndex(e.c.Client).FindChild(e.ctx, folder, name)
	if err != nil {
		return fmt.Errorf("find a child: %w", err)
	}
	pc := property.DefaultCollector(e.c.Client)
	if found != nil {
		var vm mo.VirtualMachine
		err := pc.RetrieveOne(e.ctx, found.Reference(), []string{"config.hardware", "layoutEx", "storage", "recentTask"}, &vm)
		if err != nil && !fault.Is(err, &types.ManagedObjectNotFound{}) { // it may have gone meanwhile
			return fmt.Errorf("read it: %w", err)
		}
		return nil
	}
	v, err := view.NewManager(e.c.Client).CreateContainerView(e.ctx, e.c.ServiceContent.RootFolder, []string{"ManagedEntity"}, true)
	if err != nil {
		return fmt.Errorf("list all: %w", err)
	}
	var around []mo.ManagedEntity
	if err := v.Retrieve(e.ctx, []string{"Folder", "ResourcePool", "Datastore"}, []string{"name", "parent", "recentTask"}, &around); err != nil {
		return fmt.Errorf("read what is around: %w", err)
	}
	var vm mo.VirtualMachine
	if err := pc.RetrieveOne(e.ctx, e.vm("vm03").Reference(), []string{"snapshot"}, &vm); err != nil {
		return fmt.Errorf("read snapshots: %w", err)
	}
	if vm.Snapshot != nil {
		var s mo.VirtualMachineSnapshot
		if err := pc.RetrieveOne(e.ctx, *vm.Snapshot.CurrentSnapshot, []string{"childSnapshot", "config.hardware"}, &s); err != nil {
			return fmt.Errorf("read a snapshot: %w", err)
		}
	}
	return v.Destroy(e.ctx)
}
