package lab

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

type ref = types.ManagedObjectReference

// Task is one thing that the vCenter was asked to do.
type Task struct {
	Name   string     `json:"name"`             // the API method
	Object string     `json:"object"`           // its managed object
	Entity string     `json:"entity,omitempty"` // its name, where it has one
	State  string     `json:"state"`            // running, success, error
	Error  string     `json:"error,omitempty"`
	Start  time.Time  `json:"start"`
	End    *time.Time `json:"end,omitempty"`
}

// maxTasks bounds what the lab remembers.
const maxTasks = 10_000

// journal keeps what was asked for, the oldest first.
type journal struct {
	mu    sync.Mutex // guards all below
	tasks []*Task
	count int
}

func (j *journal) begin(name string, object ref, entity string) *Task {
	t := &Task{Name: name, Object: object.Value, Entity: entity, State: string(types.TaskInfoStateRunning), Start: time.Now()}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.tasks) >= maxTasks {
		j.tasks = slices.Clone(j.tasks[maxTasks/2:])
	}
	j.tasks = append(j.tasks, t)
	j.count++
	return t
}

func (j *journal) end(t *Task, fault types.BaseMethodFault) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	t.End, t.State = &now, string(types.TaskInfoStateSuccess)
	if fault != nil {
		t.State, t.Error = string(types.TaskInfoStateError), faultName(fault)
	}
}

// Tasks lists what the vCenter was asked to do since the lab began, as far as it remembers.
func (l *Lab) Tasks() []Task {
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	list := make([]Task, len(l.journal.tasks))
	for i, t := range l.journal.tasks {
		list[i] = *t
	}
	return list
}

func faultName(f types.BaseMethodFault) string { return fmt.Sprintf("%T", f)[len("*types."):] }

// job is a task of the lab's own: it runs under the lock of the object that it is about.
type job struct {
	method string // for the journal and the faults, as CreateSnapshot_Task
	name   string // as vcsim calls the task
	object mo.Reference
	asked  asked // what faults need to know
	// open means that the job takes the locks it needs itself. Whoever wants to
	// be alone with vcsim may hold a VM's lock, but no folder's: what is alone
	// takes folders' locks.
	open bool
	run  func() (types.AnyType, types.BaseMethodFault)
}

// start makes a vSphere task of j and runs it. Unlike vcsim's own tasks it
// does not hold the object's lock while it is made to wait.
func (l *Lab) start(ctx *simulator.Context, j job) ref {
	object := j.object.Reference()
	t := simulator.CreateTask(object, j.name, nil)
	t.Self = ref{Type: "Task", Value: fmt.Sprintf("task-%d", l.taskID.Add(1)+100_000)}
	t.Info.Key, t.Info.Task = t.Self.Value, t.Self
	t.Info.EntityName = l.nameOf(object)
	t.Info.State = types.TaskInfoStateRunning
	t.Info.StartTime = types.NewTime(time.Now())
	entry := l.journal.begin(j.method, object, t.Info.EntityName)
	ctx.WithLock(j.object, func() { ctx.Map.Put(t) })
	l.work.Go(func() {
		result, fault := l.perform(ctx, t, j)
		l.journal.end(entry, fault)
		finish(ctx, t, result, fault)
	})
	return t.Self
}

func (l *Lab) perform(ctx *simulator.Context, t *simulator.Task, j job) (result types.AnyType, fault types.BaseMethodFault) {
	if f := l.faults.task(j.asked); f != nil {
		l.pause(f.Delay)
		if f.kind.fault != nil {
			return nil, f.kind.fault()
		}
	}
	cancelled := false
	ctx.WithLock(t, func() { cancelled = t.Info.State == types.TaskInfoStateError })
	if cancelled {
		return nil, &types.RequestCanceled{}
	}
	return l.do(ctx, j)
}

// do runs a job under its object's lock. vcsim panics where an object vanishes
// under it; that is a failed task, not the end of the lab, and the lock is
// given back, which vcsim itself would not do.
func (l *Lab) do(ctx *simulator.Context, j job) (result types.AnyType, fault types.BaseMethodFault) {
	run := func() {
		defer func() {
			if p := recover(); p != nil {
				l.log.Error("lab task panicked", "method", j.method, "panic", p)
				result, fault = nil, systemError(fmt.Errorf("%v", p))
			}
		}()
		result, fault = j.run()
	}
	if j.open {
		run()
	} else {
		ctx.WithLock(j.object, run)
	}
	return result, fault
}

// pause waits for a fault's delay or the end of the lab.
func (l *Lab) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.closing:
	}
}

func finish(ctx *simulator.Context, t *simulator.Task, result types.AnyType, fault types.BaseMethodFault) {
	changes := []types.PropertyChange{
		{Name: "info.completeTime", Val: time.Now()},
		{Name: "info.state", Val: types.TaskInfoStateSuccess},
		{Name: "info.result", Val: result},
	}
	if fault != nil {
		changes[1].Val = types.TaskInfoStateError
		changes[2] = types.PropertyChange{Name: "info.error", Val: types.LocalizedMethodFault{Fault: fault, LocalizedMessage: faultName(fault)}}
	}
	ctx.WithLock(t, func() {
		if t.Info.State == types.TaskInfoStateRunning { // else it was cancelled
			ctx.Update(t, changes)
		}
	})
}

// inner runs one of vcsim's own tasks as a part of a task of the lab's, and
// takes it out of the lists in which clients look.
func (l *Lab) inner(ctx *simulator.Context, begin func() ref) (types.AnyType, types.BaseMethodFault) {
	l.busy.RLock()
	defer l.busy.RUnlock()
	return l.finishInner(ctx, begin())
}

// alone is inner for tasks in which vcsim changes datastores, which it reads
// elsewhere without a lock.
func (l *Lab) alone(ctx *simulator.Context, begin func() ref) (types.AnyType, types.BaseMethodFault) {
	l.busy.Lock()
	defer l.busy.Unlock()
	return l.finishAlone(ctx, begin)
}

func (l *Lab) finishAlone(ctx *simulator.Context, begin func() ref) (types.AnyType, types.BaseMethodFault) {
	result, fault := l.finishInner(ctx, begin())
	// vcsim goes on deleting files when such a task has ended, under the file
	// manager's lock, which it takes before that end.
	ctx.Map.WithLock(l.context(), ctx.Map.FileManager(), func() {})
	return result, fault
}

func (l *Lab) finishInner(ctx *simulator.Context, task ref) (types.AnyType, types.BaseMethodFault) {
	t, ok := ctx.Map.Get(task).(*simulator.Task)
	if !ok {
		return nil, &types.ManagedObjectNotFound{Obj: task}
	}
	info := l.index.outcome(ctx.Map, t)
	without := func(list []ref) []types.PropertyChange {
		kept := slices.DeleteFunc(slices.Clone(list), func(r ref) bool { return r == task })
		return []types.PropertyChange{{Name: "recentTask", Val: kept}}
	}
	if e, ok := ctx.Map.Get(*info.Entity).(mo.Entity); ok {
		ctx.WithLock(e, func() { ctx.Update(e, without(e.Entity().RecentTask)) })
	}
	if m, ok := ctx.Map.Get(*l.model.ServiceContent.TaskManager).(*simulator.TaskManager); ok {
		m.Lock()
		ctx.Update(m, without(m.RecentTask))
		m.Unlock()
	}
	ctx.Map.Remove(ctx, task)
	if info.Error != nil {
		return nil, info.Error.Fault
	}
	return info.Result, nil
}

func systemError(err error) types.BaseMethodFault { return &types.SystemError{Reason: err.Error()} }
