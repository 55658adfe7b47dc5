package backup

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Coverage tells what protects one VM.
type Coverage struct {
	VM        VirtualMachine
	Schedules []ScheduleRef // enabled ones that will back it up, by name
	Good      GoodImage
}

// ScheduleRef names a schedule.
type ScheduleRef struct{ ID, Name string }

// GoodImage tells of the images of a VM that are whole; zero times = there is none.
type GoodImage struct {
	At         time.Time // point in time of the newest
	VerifiedAt time.Time // when one of them was last verified
}

// Coverage lists what protects each VM that is there, of one vcenter or, with
// "", of all, by vcenter and name. Templates are left out: nothing backs them
// up. Errors: NotFound.
func (p *Planner) Coverage(ctx context.Context, vcenterID string) ([]Coverage, error) {
	var all []Coverage
	err := p.Store.View(ctx, func(tx Tx) error {
		all = nil // of a try before
		ids, err := vcenterIDs(ctx, tx, vcenterID)
		if err != nil {
			return err
		}
		inv := inventories{}
		covered, err := inv.covered(ctx, tx)
		if err != nil {
			return err
		}
		for _, id := range ids {
			vms, err := inv.of(ctx, tx, id)
			if err != nil {
				return err
			}
			good, err := tx.GoodImages(ctx, id)
			if err != nil {
				return err
			}
			for _, vm := range vms {
				if !vm.Template {
					all = append(all, Coverage{VM: vm, Schedules: covered[vm.ID], Good: good[vm.ID]})
				}
			}
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b Coverage) int {
		return cmp.Or(cmp.Compare(a.VM.VCenterID, b.VM.VCenterID), cmp.Compare(a.VM.Name, b.VM.Name), cmp.Compare(a.VM.ID, b.VM.ID))
	})
	return all, err
}

func vcenterIDs(ctx context.Context, tx Tx, only string) ([]string, error) {
	if only != "" {
		_, err := tx.VCenter(ctx, only)
		return []string{only}, err
	}
	var ids []string
	for cursor := ""; ; {
		all, next, err := tx.VCenters(ctx, Page{Limit: 1000, Cursor: cursor})
		for _, v := range all {
			ids = append(ids, v.ID)
		}
		if cursor = next; err != nil || next == "" {
			return ids, err
		}
	}
}

// covered lists the enabled schedules of each VM that run again, by name.
func (inv inventories) covered(ctx context.Context, tx Tx) (map[string][]ScheduleRef, error) {
	schedules, _, err := tx.Schedules(ctx, ScheduleFilter{EnabledOnly: true})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(schedules, func(a, b Schedule) int { return cmp.Compare(a.Name, b.Name) })
	out, byGroup := map[string][]ScheduleRef{}, map[string][]VirtualMachine{}
	for _, s := range schedules {
		if len(s.Recurrence.Next(tx.Now(), 1)) == 0 {
			continue // it never runs again
		}
		ref := ScheduleRef{s.ID, s.Name}
		if s.VMID != "" {
			out[s.VMID] = append(out[s.VMID], ref)
			continue
		}
		vms, known := byGroup[s.GroupID]
		if !known {
			g, err := tx.Group(ctx, s.GroupID)
			if err != nil {
				return nil, err
			}
			if vms, err = inv.members(ctx, tx, g); err != nil {
				return nil, err
			}
			byGroup[s.GroupID] = vms
		}
		for _, vm := range vms {
			out[vm.ID] = append(out[vm.ID], ref)
		}
	}
	return out, nil
}
