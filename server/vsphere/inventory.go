package vsphere

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// inventory is what a session knows of the vcenter's VMs. A round of the
// property collector over a few small properties of all VMs, and over the lists
// of what lies where, tells which have changed; only those are read in full. That keeps nothing in the vcenter and
// does not care whether the session was renewed in between.
type inventory struct {
	turn chan struct{} // held by the call that reads; guards the rest

	id     string // of this knowledge; the first part of a version
	serial int    // counts changes; the second part
	places places
	vms    map[string]found
	stamps map[string]string // of each VM's small properties, when it was read in full
	fullAt time.Time         // when all VMs were last read in full
}

// stampProperties are small, and one of them changes with whatever the
// inventory shows, save where a VM lies: that its places tell in one list each.
var stampProperties = []string{"name", "runtime.powerState", "config.changeVersion", "guest.ipAddress"}

// placeProperties are those of what VMs lie in.
var placeProperties = map[string][]string{
	"Folder": {"name", "parent", "childEntity"}, "ResourcePool": {"name", "parent", "vm"}, "HostSystem": {"name", "parent", "vm"},
	"Datacenter": {"name", "parent"}, "ComputeResource": {"name", "parent"}, "Datastore": {"name", "parent"}, "Network": {"name", "parent"},
}

// fullEvery is how often all VMs are read in full, lest a change without a trace in the stamps go unseen.
const fullEvery = 6 * time.Hour

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
	changed, left, err := s.follow(ctx)
	if err != nil {
		return backup.InventoryChange{}, s.problem("read the inventory", err)
	}
	return inv.answer(since == "" || since != before, changed, left, s.config.Now().UTC()), nil
}

func (inv *inventory) version() string { return fmt.Sprintf("%s/%d", inv.id, inv.serial) }

// answer tells what changed, or everything.
func (inv *inventory) answer(full bool, changed, left map[string]bool, now time.Time) backup.InventoryChange {
	a := backup.InventoryChange{Full: full, Version: inv.version()}
	for id, f := range inv.vms {
		if !f.staging && (full || changed[id]) {
			f.vm.SeenAt = now
			a.VMs = append(a.VMs, f.vm)
		}
	}
	slices.SortFunc(a.VMs, func(x, y backup.VirtualMachine) int { return strings.Compare(x.MOID, y.MOID) })
	if !full {
		a.Gone = slices.Sorted(maps.Keys(left))
	}
	return a
}

// follow brings the knowledge up to date. changed and left are managed object
// ids. After an error the knowledge is what it was, or nearer to the truth.
func (s *Session) follow(ctx context.Context) (changed, left map[string]bool, err error) {
	inv := &s.inventory
	if inv.id == "" {
		inv.id, inv.vms, inv.stamps = rand.Text(), map[string]found{}, map[string]string{}
	}
	var stamps map[string]string
	var where places
	var tags map[string][]backup.Tag
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		stamps, where, err = s.stamps(gctx)
		return err
	})
	g.Go(func() (err error) {
		if tags, err = s.tags.all(gctx); err != nil {
			return fmt.Errorf("read tags: %w", err)
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	began, full := s.config.Now(), s.config.Now().Sub(inv.fullAt) > fullEvery
	var stale []ref
	for id, stamp := range stamps {
		if full || inv.stamps[id] != stamp {
			stale = append(stale, vmRef(id))
		}
	}
	read, err := s.readVMs(ctx, stale)
	if err != nil {
		return nil, nil, err
	}
	if full {
		inv.fullAt = began
	}
	inv.places = where
	changed, left = inv.merge(stamps, read, tags, s.transport())
	if len(changed)+len(left) > 0 {
		inv.serial++
	}
	return changed, left, nil
}

// stamps reads the small properties of all VMs, and beside it the places they lie in.
func (s *Session) stamps(ctx context.Context) (map[string]string, places, error) {
	var specs []types.PropertySpec
	for _, k := range sortedKeys(placeProperties) {
		specs = append(specs, types.PropertySpec{Type: k, PathSet: placeProperties[k]})
	}
	var vms, around []types.ObjectContent
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		vms, err = s.survey(ctx, []string{"VirtualMachine"}, []types.PropertySpec{{Type: "VirtualMachine", PathSet: stampProperties}})
		return err
	})
	g.Go(func() (err error) {
		around, err = s.survey(ctx, sortedKeys(placeProperties), specs)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	where, lies := s.newPlaces(), map[string][]string{}
	for _, o := range around {
		where.takeProperties(o)
		for _, p := range o.PropSet {
			if list, ok := p.Val.(types.ArrayOfManagedObjectReference); ok {
				for _, r := range list.ManagedObjectReference {
					lies[r.Value] = append(lies[r.Value], o.Obj.Value)
				}
			}
		}
	}
	stamps := make(map[string]string, len(vms))
	for _, o := range vms {
		slices.SortFunc(o.PropSet, func(a, b types.DynamicProperty) int { return strings.Compare(a.Name, b.Name) })
		var b strings.Builder
		for _, p := range o.PropSet {
			fmt.Fprintf(&b, "%s=%v;", p.Name, p.Val)
		}
		at := lies[o.Obj.Value]
		slices.Sort(at)
		stamps[o.Obj.Value] = b.String() + strings.Join(at, ",")
	}
	return stamps, where, nil
}

const (
	vmBatch  = 200 // VMs that are read in full by one call
	vmAtOnce = 4   // such calls at a time
)

// readVMs reads VMs in full. One that has left meanwhile is left out.
func (s *Session) readVMs(ctx context.Context, vms []ref) (map[string]found, error) {
	var mu sync.Mutex // guards out
	out := make(map[string]found, len(vms))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(vmAtOnce)
	for batch := range slices.Chunk(vms, vmBatch) {
		g.Go(func() error {
			list, err := s.readBatch(ctx, batch)
			mu.Lock()
			defer mu.Unlock()
			for _, m := range list {
				s.showOwn(ctx, &m)
				if f, ok := newFound(m); ok {
					f.notes = append(f.notes, s.ownNotes(m)...)
					out[m.Self.Value] = f
				}
			}
			return err
		})
	}
	return out, g.Wait()
}

func (s *Session) readBatch(ctx context.Context, batch []ref) ([]mo.VirtualMachine, error) {
	for len(batch) > 0 {
		var content []types.ObjectContent
		err := property.DefaultCollector(s.client).Retrieve(ctx, batch, vmProperties, &content)
		f, gone := faultOf[*types.ManagedObjectNotFound](err)
		if !gone || !slices.Contains(batch, f.Obj) {
			if err != nil {
				return nil, err
			}
			return loadVMs(content)
		}
		batch = slices.DeleteFunc(slices.Clone(batch), func(r ref) bool { return r == f.Obj })
	}
	return nil, nil
}

// loadVMs reads what was answered. A property that the account may not see is
// missing; that is no reason to do without the others.
func loadVMs(content []types.ObjectContent) (list []mo.VirtualMachine, err error) {
	for i := range content {
		content[i].MissingSet = nil
	}
	err = mo.LoadObjectContent(content, &list)
	return list, err
}

// merge takes in what was read and tells which VMs look different now. A VM
// that is there but cannot be read stays as it was known.
func (inv *inventory) merge(stamps map[string]string, read map[string]found, tags map[string][]backup.Tag, transport backup.Transport) (changed, left map[string]bool) {
	changed, left = map[string]bool{}, map[string]bool{}
	for id := range inv.vms {
		if _, there := stamps[id]; !there {
			delete(inv.vms, id)
			delete(inv.stamps, id)
			left[id] = true
		}
	}
	old := inv.vms
	inv.vms = make(map[string]found, len(stamps))
	maps.Copy(inv.vms, old)
	for id, f := range read {
		inv.vms[id], inv.stamps[id] = f, stamps[id]
	}
	twins := map[string]int{}
	for _, f := range inv.vms {
		if !f.staging {
			twins[f.vm.InstanceUUID]++
		}
	}
	paths := map[ref]string{}
	for id, f := range inv.vms {
		f.settle(inv.places, paths)
		f.vm.Tags = tags[id]
		f.judge(transport)
		f.warnOfTwins(twins[f.vm.InstanceUUID])
		was, known := old[id]
		if !known || was.staging != f.staging || !reflect.DeepEqual(was.vm, f.vm) {
			changed[id] = true
		}
		inv.vms[id] = f
	}
	return changed, left
}

// warnOfTwins says that other VMs have the same instance UUID.
func (f *found) warnOfTwins(n int) {
	if n > 1 {
		f.vm.Warnings = append(f.vm.Warnings, fmt.Sprintf("%d VMs of this vcenter have the instance UUID %s. They are handled apart, by %s and the like: "+
			"give all but one of them a new UUID, so that each is found again when the vcenter is rebuilt.", n, f.vm.InstanceUUID, f.vm.MOID))
	}
}
