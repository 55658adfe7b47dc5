package worker_test

import (
	"context"
	"slices"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// TestASyncBooksSeatsForWhatHasCome: whatever a sync finds, the schedules of
// groups that select their members follow it.
func TestASyncBooksSeatsForWhatHasCome(t *testing.T) {
	h := newHouse(t)
	g, err := h.planner.CreateGroup(h.ctx, backup.Group{Name: "all", Selector: &backup.Selector{VCenterID: h.vcenter.ID}})
	if err != nil {
		t.Fatal(err)
	}
	s := h.keep("all", everyDay, 7, func(s *backup.Schedule) { s.VMID, s.GroupID = "", g.ID })
	seats := func(want, unbooked int) {
		t.Helper()
		now := read(h, func(tx backup.Tx) (backup.Schedule, error) { return tx.Schedule(h.ctx, s.ID) })
		if now.Seats != want || now.UnbookedSeats != unbooked {
			t.Errorf("%d seats are booked and %d lack, want %d and %d", now.Seats, now.UnbookedSeats, want, unbooked)
		}
	}
	appear := func(names ...string) {
		h.vsphere.vmsMu.Lock()
		defer h.vsphere.vmsMu.Unlock()
		for _, n := range names {
			h.vsphere.vms["moid-"+n] = &fakeVM{Machine: backup.Machine{VirtualMachine: backup.VirtualMachine{MOID: "moid-" + n, InstanceUUID: "uuid-" + n, Name: n}}}
		}
	}
	seats(1, 0)
	appear("b", "c")
	h.start()
	h.sync()
	seats(3, 0)
	v := h.vcenterNow()
	v.SlotCapacity = 2
	if _, err := h.planner.UpdateVCenter(h.ctx, v); err != nil {
		t.Fatal(err)
	}
	appear("d")
	h.sync()
	seats(3, 1) // what is booked stays, and no more is
	h.vsphere.remove("moid-b")
	h.vsphere.remove("moid-c")
	h.sync()
	seats(2, 0)
}

// reluctant is a planner whose seats follow no group until told so.
type reluctant struct {
	*backup.Planner
	points
}

func (p *reluctant) FollowGroups(ctx context.Context, vcenterID string, changed bool) ([]backup.Schedule, error) {
	if err := p.pass(ctx, "FollowGroups", ""); err != nil {
		return nil, err
	}
	return p.Planner.FollowGroups(ctx, vcenterID, changed)
}

func TestSeatsThatCouldNotFollowDoSoWithTheNextSync(t *testing.T) {
	h := newHouse(t)
	p := &reluctant{Planner: h.planner}
	p.fail("FollowGroups", 1, errDown)
	h.config.Planner = p
	h.start()
	for range 2 {
		if j := h.sync(); j.State != backup.JobSucceeded {
			t.Errorf("sync is %s (%s), want the inventory stored", j.State, j.Error)
		}
	}
	if got := h.vsphere.called("Inventory"); !slices.Equal(got, []string{"Inventory since=", "Inventory since="}) {
		t.Errorf("inventories were read as %q, want all of it again, so that what has come is seen", got)
	}
	if got := p.called("FollowGroups"); len(got) != 2 {
		t.Errorf("%d times seats were to follow, want twice", len(got))
	}
}
