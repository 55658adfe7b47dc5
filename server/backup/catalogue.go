package backup

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// A rebuild of the catalogue reads the manifests of a repository's images and
// lists those that the catalogue does not know: after the loss of a database, or
// where another installation's repository was attached.

// CatalogueSpec is what a job of [KindCatalogue] was asked to do.
type CatalogueSpec struct {
	RepositoryID string `json:"repository_id"`
	Prune        bool   `json:"prune,omitempty"` // what is not in the repository any more is damaged
}

// rebuiltStays is how long an image stays at least from the rebuild on that has
// listed it: a longer retention, a hold or a lock may have stood in the lost
// database alone.
const rebuiltStays = 30 * 24 * time.Hour

// RebuildCatalogue asks for the images of a repository to be listed, or finds
// the job that waits or runs. The repository may be read-only. Errors: NotFound.
func (p *Planner) RebuildCatalogue(ctx context.Context, repositoryID string, prune bool) (Job, error) {
	var j Job
	err := p.Store.Update(ctx, func(tx Tx) error {
		r, err := tx.Repository(ctx, repositoryID)
		if err != nil {
			return err
		}
		spec := CatalogueSpec{RepositoryID: r.ID, Prune: prune}
		if j, err = activeRebuild(ctx, tx, spec); err != nil || j.ID != "" {
			return err
		}
		j = newRebuild(tx.Now(), r, spec)
		return tx.InsertJob(ctx, j)
	})
	if err == nil {
		p.wake()
	}
	return j, err
}

func activeRebuild(ctx context.Context, tx Tx, spec CatalogueSpec) (Job, error) {
	jobs, _, err := tx.Jobs(ctx, JobFilter{Kind: KindCatalogue, Active: true, Page: Page{Limit: 1000}})
	if err != nil {
		return Job{}, err
	}
	i := slices.IndexFunc(jobs, func(j Job) bool {
		var s CatalogueSpec
		return json.Unmarshal(j.Spec, &s) == nil && s == spec
	})
	if i < 0 {
		return Job{}, nil
	}
	return jobs[i], nil
}

// Rebuild lists the images of one repository. Make it with [BeginRebuild] before
// the repository's images are read.
type Rebuild struct {
	Repository   RepositoryRecord
	Installation string // this one

	Added   int // images that are listed now
	Known   int // that were listed before
	Bound   int // of these, those whose VM was not known and is now
	Damaged int // of the added, those that cannot be read

	before   map[string]bool // ids that the catalogue knew before the images were read
	vcenters map[string]string
	machines map[[2]string][]VirtualMachine // by vcenter's id and instance UUID
}

// BeginRebuild notes what the catalogue and the inventory know.
func BeginRebuild(ctx context.Context, tx Tx, r RepositoryRecord, installation string) (*Rebuild, error) {
	b := &Rebuild{Repository: r, Installation: installation, before: map[string]bool{}, vcenters: map[string]string{}, machines: map[[2]string][]VirtualMachine{}}
	err := eachImage(ctx, tx, r.ID, func(i Image) error {
		b.before[i.ID] = i.Status != ImageExpired
		return nil
	})
	if err != nil {
		return nil, err
	}
	for cursor := ""; ; {
		all, next, err := tx.VCenters(ctx, Page{Limit: 1000, Cursor: cursor})
		if err != nil {
			return nil, err
		}
		for _, v := range all {
			if v.InstanceUUID != "" {
				b.vcenters[v.InstanceUUID] = v.ID
			}
		}
		if cursor = next; next == "" {
			break
		}
	}
	vms, _, err := tx.Machines(ctx, MachineFilter{IncludeGone: true})
	if err != nil {
		return nil, err
	}
	for _, vm := range vms {
		key := [2]string{vm.VCenterID, vm.InstanceUUID}
		b.machines[key] = append(b.machines[key], vm)
	}
	return b, nil
}

// List lists those of the found images that are not known. It may be called
// again with the same ones; only a transaction that is committed counts, which
// is what counts the figures up: commit.
func (b *Rebuild) List(ctx context.Context, tx Tx, found []Manifest) (commit func(), err error) {
	writing, err := ImagesBeingWritten(ctx, tx)
	if err != nil {
		return nil, err
	}
	var c Rebuild
	for _, m := range found {
		i, err := tx.Image(ctx, m.Image.ID)
		if err == nil {
			c.Known++
			bound, err := b.bind(ctx, tx, i, m)
			if err != nil {
				return nil, err
			}
			c.Bound += bound
			continue
		}
		_, deleted := b.before[m.Image.ID]
		if CodeOf(err) != NotFound {
			return nil, err
		}
		if deleted || writing[m.Image.ID] { // its job lists it
			continue
		}
		row := b.row(m, tx.Now())
		if err := tx.InsertImage(ctx, row); err != nil {
			return nil, err
		}
		c.Added++
		if row.Status == ImageDamaged {
			c.Damaged++
		}
	}
	return func() {
		b.Added, b.Known, b.Bound, b.Damaged = b.Added+c.Added, b.Known+c.Known, b.Bound+c.Bound, b.Damaged+c.Damaged
	}, nil
}

// row is how the catalogue lists an image that only its repository knows.
func (b *Rebuild) row(m Manifest, now time.Time) Image {
	i := m.Image
	i.RepositoryID = b.Repository.ID
	i.VCenterID, i.VMID = b.machine(m)
	if m.Installation != b.Installation { // these name nothing here
		i.ScheduleID, i.GroupID, i.RunID, i.JobID = "", "", "", ""
	}
	if i.StartedAt.IsZero() {
		i.StartedAt = i.PointInTime
	}
	if i.EndedAt.IsZero() {
		i.EndedAt = i.StartedAt
	}
	if !i.ExpiresAt.IsZero() {
		i.ExpiresAt = latest(i.ExpiresAt, i.LockedUntil, now.Add(rebuiltStays))
	}
	return i
}

func latest(first time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if o.After(first) {
			first = o
		}
	}
	return first
}

// machine finds the vcenter and the VM of an image; "" where they are not known
// here. Then it is restored as a new VM, in a vcenter that is named.
func (b *Rebuild) machine(m Manifest) (vcenterID, vmID string) {
	vcenterID = b.vcenters[m.VCenterUUID]
	if vcenterID == "" {
		return "", ""
	}
	return vcenterID, imaged(m.Image, b.machines[[2]string{vcenterID, m.Image.VMInstanceUUID}])
}

// imaged is which of the VMs of one instance UUID the image is of, by id: two
// are told apart by managed object id, then by name. "" = that cannot be told.
func imaged(i Image, vms []VirtualMachine) string {
	if len(vms) == 1 {
		return vms[0].ID
	}
	for _, is := range []func(VirtualMachine) bool{
		func(vm VirtualMachine) bool { return vm.MOID == i.VMMOID },
		func(vm VirtualMachine) bool { return vm.Name == i.VMName },
	} {
		if n := slices.DeleteFunc(slices.Clone(vms), func(vm VirtualMachine) bool { return !is(vm) }); len(n) == 1 {
			return n[0].ID
		}
	}
	return ""
}

// bind gives a listed image the VM that has become known since.
func (b *Rebuild) bind(ctx context.Context, tx Tx, i Image, m Manifest) (int, error) {
	vcenterID, vmID := b.machine(m)
	if i.VMID != "" || vcenterID == "" || i.VCenterID == vcenterID && vmID == "" {
		return 0, nil
	}
	i.VCenterID, i.VMID = vcenterID, vmID
	return 1, tx.UpdateImage(ctx, i)
}

// Missing lists the images that the catalogue knew before and that are not among
// the found ones; with prune it makes them damaged.
func (b *Rebuild) Missing(ctx context.Context, tx Tx, found []Manifest, prune bool) ([]Image, error) {
	there := make(map[string]bool, len(found))
	for _, m := range found {
		there[m.Image.ID] = true
	}
	var missing []Image
	for id, listed := range b.before {
		if !listed || there[id] {
			continue
		}
		i, err := tx.Image(ctx, id)
		if CodeOf(err) == NotFound || err == nil && (i.Status == ImageExpired || i.RepositoryID != b.Repository.ID) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		missing = append(missing, i)
		if !prune || i.Status == ImageDamaged {
			continue
		}
		i.Status, i.Message = ImageDamaged, fmt.Sprintf("The image is not in the repository %s any more.", b.Repository.Name)
		if err := tx.UpdateImage(ctx, i); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(missing, func(a, b Image) int { return a.PointInTime.Compare(b.PointInTime) })
	return missing, nil
}
