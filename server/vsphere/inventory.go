package vsphere

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// inventory is what a session knows of the vcenter's VMs, and the property
// collector that tells what changes.
type inventory struct {
	turn chan struct{} // held by the call that reads; guards the rest

	collector  *property.Collector // nil = nothing is known
	generation int64               // of the login that the collector belongs to
	position   string              // in the collector's stream of changes
	places     places
	vms        map[string]found

	id     string // of this knowledge; the first part of a version
	serial int    // counts changes; the second part
	fresh  bool   // nobody has been told of it yet
}

// Inventory implements [backup.VSphereSession]. Asked with the version that it
// gave last it tells what has changed since; asked otherwise, all there is.
func (s *Session) Inventory(ctx context.Context, since string) (backup.InventoryChange, error) {
	inv := &s.inventory
	select {
	case inv.turn <- struct{}{}:
	case <-ctx.Done():
		return backup.InventoryChange{}, ctx.Err()
	}
	defer func() { <-inv.turn }()
	before := inv.version()
	var changed, left map[string]bool
	var err error
	for range 3 { // a session that ends takes its collector along: start anew
		if changed, left, err = s.follow(ctx); err == nil {
			break
		}
		inv.collector = nil
		if _, lost := faultOf[*types.ManagedObjectNotFound](err); !lost && !errors.Is(err, errLost) {
			break
		}
	}
	if err != nil {
		return backup.InventoryChange{}, s.problem("read the inventory", err)
	}
	return inv.answer(since != "" && since == before, changed, left, s.config.Now().UTC()), nil
}

func (inv *inventory) version() string { return fmt.Sprintf("%s/%d", inv.id, inv.serial) }

// answer tells what changed, or everything. A version of an older knowledge gets everything.
func (inv *inventory) answer(part bool, changed, left map[string]bool, now time.Time) backup.InventoryChange {
	a := backup.InventoryChange{Full: !part || inv.fresh, Version: inv.version()}
	inv.fresh = false
	for id, f := range inv.vms {
		if !f.staging && (a.Full || changed[id]) {
			f.vm.SeenAt = now
			a.VMs = append(a.VMs, f.vm)
		}
	}
	slices.SortFunc(a.VMs, func(x, y backup.VirtualMachine) int { return strings.Compare(x.MOID, y.MOID) })
	if !a.Full {
		a.Gone = slices.Sorted(maps.Keys(left))
	}
	return a
}

// errLost means that the session was renewed, so the collector is gone.
var errLost = errors.New("the property collector is gone")

// follow brings the knowledge up to date. changed and left are managed object ids.
func (s *Session) follow(ctx context.Context) (changed, left map[string]bool, err error) {
	inv := &s.inventory
	if inv.collector != nil && inv.generation != s.login.generation.Load() {
		return nil, nil, errLost
	}
	if inv.collector == nil {
		if err := s.subscribe(ctx); err != nil {
			return nil, nil, err
		}
	}
	d, err := s.updates(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := s.reread(ctx, d); err != nil {
		return nil, nil, err
	}
	tags, err := s.tags.all(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read tags: %w", err)
	}
	changed, left = inv.settle(d, tags)
	if len(changed)+len(left) > 0 {
		inv.serial++
	}
	return changed, left, nil
}

// subscribe makes a collector for all VMs and for the places that they name.
func (s *Session) subscribe(ctx context.Context) error {
	inv := &s.inventory
	generation := s.login.generation.Load()
	kinds := []string{"Folder", "Datacenter", "ComputeResource", "ResourcePool", "HostSystem", "Datastore", "Network"}
	view, err := methods.CreateContainerView(ctx, s.client, &types.CreateContainerView{
		This: *s.client.ServiceContent.ViewManager, Container: s.client.ServiceContent.RootFolder,
		Type: append([]string{"VirtualMachine"}, kinds...), Recursive: true,
	})
	if err != nil {
		return err
	}
	pc, err := property.DefaultCollector(s.client).Create(ctx)
	if err != nil {
		return err
	}
	specs := []types.PropertySpec{{Type: "VirtualMachine", PathSet: vmProperties}}
	for _, k := range kinds {
		specs = append(specs, types.PropertySpec{Type: k, PathSet: []string{"name", "parent"}})
	}
	_, err = pc.CreateFilter(ctx, types.CreateFilter{Spec: types.PropertyFilterSpec{
		PropSet: specs,
		ObjectSet: []types.ObjectSpec{{
			Obj: view.Returnval, Skip: types.NewBool(true),
			SelectSet: []types.BaseSelectionSpec{&types.TraversalSpec{Type: "ContainerView", Path: "view"}},
		}},
	}})
	if err != nil {
		return err
	}
	inv.places, inv.vms, inv.serial, inv.id, inv.fresh = places{}, map[string]found{}, 0, rand.Text(), true
	inv.collector, inv.generation, inv.position = pc, generation, ""
	return nil
}

// delta is what a round of updates brought.
type delta struct {
	entered  map[ref]bool // read with all properties
	modified map[ref]bool // to be read again
	left     map[ref]bool
	places   bool // a place has another name or parent
}

// updates takes all updates that are there, without waiting for more.
func (s *Session) updates(ctx context.Context) (delta, error) {
	inv := &s.inventory
	d := delta{entered: map[ref]bool{}, modified: map[ref]bool{}, left: map[ref]bool{}}
	for {
		res, err := methods.WaitForUpdatesEx(ctx, s.client, &types.WaitForUpdatesEx{
			This: inv.collector.Reference(), Version: inv.position, Options: &types.WaitOptions{MaxWaitSeconds: types.NewInt32(0)},
		})
		if err != nil {
			return d, err
		}
		if res.Returnval == nil {
			return d, nil
		}
		inv.position = res.Returnval.Version
		for _, set := range res.Returnval.FilterSet {
			for _, u := range set.ObjectSet {
				inv.take(u, &d)
			}
		}
		if res.Returnval.Truncated == nil || !*res.Returnval.Truncated {
			return d, nil
		}
	}
}

func (inv *inventory) take(u types.ObjectUpdate, d *delta) {
	switch {
	case u.Obj.Type != "VirtualMachine":
		if u.Kind != types.ObjectUpdateKindLeave { // what is gone is named by nobody
			d.places = inv.places.take(u.Obj, u.ChangeSet) || d.places
		}
	case u.Kind == types.ObjectUpdateKindLeave:
		delete(d.modified, u.Obj)
		delete(d.entered, u.Obj)
		d.left[u.Obj] = true
	case u.Kind == types.ObjectUpdateKindEnter:
		delete(d.left, u.Obj)
		content := types.ObjectContent{Obj: u.Obj}
		for _, c := range u.ChangeSet {
			if c.Val != nil {
				content.PropSet = append(content.PropSet, types.DynamicProperty{Name: c.Name, Val: c.Val})
			}
		}
		var list []mo.VirtualMachine
		if err := mo.LoadObjectContent([]types.ObjectContent{content}, &list); err != nil || len(list) != 1 || !inv.put(list[0]) {
			d.modified[u.Obj] = true
			return
		}
		d.entered[u.Obj] = true
	default:
		d.modified[u.Obj] = true
	}
}

// put remembers a VM. One that cannot be read stays as it was known.
func (inv *inventory) put(m mo.VirtualMachine) bool {
	f, ok := newFound(m)
	if ok {
		inv.vms[m.Self.Value] = f
	}
	return ok
}

// reread reads the VMs again that have changed.
func (s *Session) reread(ctx context.Context, d delta) error {
	todo := make([]ref, 0, len(d.modified))
	for r := range d.modified {
		todo = append(todo, r)
	}
	const batch = 200
	for len(todo) > 0 {
		part := todo[:min(batch, len(todo))]
		var list []mo.VirtualMachine
		err := property.DefaultCollector(s.client).Retrieve(ctx, part, vmProperties, &list)
		if f, ok := faultOf[*types.ManagedObjectNotFound](err); ok && f.Obj.Type == "VirtualMachine" {
			todo = slices.DeleteFunc(todo, func(r ref) bool { return r == f.Obj }) // it will leave in a later update
			delete(d.modified, f.Obj)
			continue
		}
		if err != nil {
			return err
		}
		for _, m := range list {
			s.inventory.put(m)
		}
		todo = todo[len(part):]
	}
	return nil
}

// settle gives every VM its tags and its places' names, and tells which VMs look different now.
func (inv *inventory) settle(d delta, tags map[string][]backup.Tag) (changed, left map[string]bool) {
	changed, left = map[string]bool{}, map[string]bool{}
	for r := range d.left {
		if _, known := inv.vms[r.Value]; known {
			delete(inv.vms, r.Value)
			left[r.Value] = true
		}
	}
	twins := map[string]int{}
	for _, f := range inv.vms {
		if !f.staging {
			twins[f.vm.InstanceUUID]++
		}
	}
	paths := map[ref]string{}
	for id, f := range inv.vms {
		self := ref{Type: "VirtualMachine", Value: id}
		next := f
		next.settle(inv.places, paths)
		next.vm.Tags = tags[id]
		next.vm.Warnings = twin(next.vm, twins)
		if d.entered[self] || d.modified[self] || !reflect.DeepEqual(f.vm, next.vm) {
			changed[id] = true
		}
		inv.vms[id] = next
	}
	return changed, left
}

const twinWarning = "Another VM of this vcenter has the same instance UUID"

// twin adds or takes away the warning that two VMs share an instance UUID, which is how kura knows them.
func twin(v backup.VirtualMachine, count map[string]int) []string {
	var out []string
	for _, w := range v.Warnings {
		if !strings.HasPrefix(w, twinWarning) {
			out = append(out, w)
		}
	}
	if n := count[v.InstanceUUID]; n > 1 {
		out = append(out, fmt.Sprintf("%s (%s): give one of them a new one.", twinWarning, v.InstanceUUID))
	}
	return out
}
