package vsphere

import (
	"context"
	"fmt"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// waitSeconds is how long one call waits for changes before it is repeated.
const waitSeconds = 30

// outage is how long a waiting caller bears with a vcenter that does not
// answer: what it waits for goes on without us.
const outage = 3 * time.Minute

// wait calls fn with the object's changed properties until it says done. It
// outlives a lost session and a short outage.
func (s *Session) wait(ctx context.Context, object ref, properties []string, fn func([]types.PropertyChange) bool) error {
	var failing time.Time
	for n := 0; ; n++ {
		progress, err := s.watch(ctx, object, properties, fn)
		if err == nil || ctx.Err() != nil {
			return err
		}
		gone, missing := faultOf[*types.ManagedObjectNotFound](err)
		lostCollector := missing && gone.Obj != object
		if !lostCollector && !unreachable(err) {
			return err
		}
		if progress || failing.IsZero() {
			failing, n = time.Now(), 0
		}
		if !s.pause(ctx, n, failing, outage) {
			return err
		}
	}
}

// watch waits with one property collector. progress says whether anything arrived.
func (s *Session) watch(ctx context.Context, object ref, properties []string, fn func([]types.PropertyChange) bool) (progress bool, err error) {
	pc, err := property.DefaultCollector(s.client).Create(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.DialTimeout)
		defer cancel()
		_ = pc.Destroy(ctx) // it ends with the session anyway
	}()
	filter := new(property.WaitFilter).Add(object, object.Type, properties)
	if _, err := pc.CreateFilter(ctx, filter.CreateFilter); err != nil {
		return false, err
	}
	req := types.WaitForUpdatesEx{This: pc.Reference(), Options: &types.WaitOptions{MaxWaitSeconds: types.NewInt32(waitSeconds)}}
	for {
		res, err := methods.WaitForUpdatesEx(ctx, s.client, &req)
		if err != nil {
			return progress, err
		}
		progress = true
		if res.Returnval == nil {
			continue
		}
		req.Version = res.Returnval.Version
		for _, set := range res.Returnval.FilterSet {
			for _, u := range set.ObjectSet {
				if u.Kind == types.ObjectUpdateKindLeave {
					return true, gone(object)
				}
				if fn(u.ChangeSet) {
					return true, nil
				}
			}
		}
	}
}

func gone(object ref) error {
	f := &types.LocalizedMethodFault{Fault: &types.ManagedObjectNotFound{Obj: object}, LocalizedMessage: object.String() + " is gone"}
	return &task.Error{LocalizedMethodFault: f}
}

// finish waits for a task and returns its result. When ctx ends, the task goes on.
func (s *Session) finish(ctx context.Context, t ref) (types.AnyType, error) {
	var last types.TaskInfo
	err := s.wait(ctx, t, []string{"info"}, func(changes []types.PropertyChange) bool {
		for _, c := range changes {
			if info, ok := c.Val.(types.TaskInfo); ok {
				last = info
			}
		}
		return last.State == types.TaskInfoStateSuccess || last.State == types.TaskInfoStateError
	})
	if err != nil {
		return nil, fmt.Errorf("wait for %s: %w", t, err)
	}
	if last.State == types.TaskInfoStateError {
		if last.Error == nil {
			last.Error = &types.LocalizedMethodFault{Fault: &types.SystemError{}, LocalizedMessage: "the task failed without saying why"}
		}
		return nil, &task.Error{LocalizedMethodFault: last.Error}
	}
	return last.Result, nil
}

// read retrieves properties of one object.
func (s *Session) read(ctx context.Context, object ref, properties []string, into any) error {
	return property.DefaultCollector(s.client).RetrieveOne(ctx, object, properties, into)
}

// running returns the tasks of an entity that have not ended and whose
// description id is one of ids, as recentTask shows them.
func (s *Session) running(ctx context.Context, entity ref, ids ...string) ([]ref, error) {
	var e mo.ManagedEntity
	if err := s.read(ctx, entity, []string{"recentTask"}, &e); err != nil {
		return nil, err
	}
	var open []ref
	for _, t := range e.RecentTask {
		var m mo.Task
		err := s.read(ctx, t, []string{"info.state", "info.descriptionId"}, &m)
		if _, ended := faultOf[*types.ManagedObjectNotFound](err); ended {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if m.Info.DescriptionId == id && (m.Info.State == types.TaskInfoStateQueued || m.Info.State == types.TaskInfoStateRunning) {
				open = append(open, t)
			}
		}
	}
	return open, nil
}
