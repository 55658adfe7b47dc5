package backup_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// told writes changes as "vm01 joined (cause)", by name.
func told(lists ...[]backup.MemberChange) []string {
	out := []string{}
	for _, list := range lists {
		for _, c := range list {
			out = append(out, fmt.Sprintf("%s %s (%s)", c.VMName, c.Change, c.Cause))
		}
	}
	slices.Sort(out)
	return out
}

// since are the changes of the group that were noted after that instant.
func (h *house) since(g backup.Group, after time.Time) []string {
	h.Helper()
	return told(read(h, func(tx backup.Tx) ([]backup.MemberChange, error) {
		all, _, err := tx.MemberChanges(h.ctx, backup.MemberFilter{GroupID: g.ID, After: after})
		return all, err
	}))
}

// synced saves VMs as a sync does, an hour later, and says what changed in the group.
func (h *house) synced(g backup.Group, vms ...backup.VirtualMachine) []string {
	h.Helper()
	before := h.clock.Now()
	h.clock.pass(time.Hour)
	for i := range vms {
		vms[i].SeenAt = h.clock.Now()
	}
	h.save(vms)
	must(h.FollowGroups(h.ctx, h.vcenter.ID, true))(h.T)
	return h.since(g, before)
}

// seed:W14 seed:W26 seed:W28
func TestWhoJoinsAndLeavesAGroupIsNotedWithItsCause(t *testing.T) {
	h := newHouse(t, 10)
	gold := []backup.Tag{{Category: "backup", Name: "gold"}}
	vms := h.addVMs(h.vcenter.ID, 2)
	for i := range vms {
		vms[i].Tags, vms[i].Folder, vms[i].ResourcePool = gold, "/DC0/vm/prod", "/pool/a"
	}
	h.save(vms)
	g := must(h.CreateGroup(h.ctx, backup.Group{Name: "gold", Selector: &backup.Selector{VCenterID: h.vcenter.ID, Tags: gold, Folder: "/DC0/vm/prod", ResourcePool: "/pool", NameRegex: "^vm"}}))(t)
	expect := func(what string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: changes are %q, want %q", what, got, want)
		}
	}
	expect("those there when it was made", h.since(g, time.Time{}))
	expect("nothing", h.synced(g))
	without := vms[0]
	without.Tags = nil
	expect("untagged", h.synced(g, without), "vm01 left (tag backup:gold was removed)")
	expect("seen again", h.synced(g, without))
	expect("tagged", h.synced(g, vms[0]), "vm01 joined (tag backup:gold, folder /DC0/vm/prod, pool /pool, name \"vm01\")")
	moved := vms[0]
	moved.Folder = "/DC0/vm/test"
	expect("moved", h.synced(g, moved), "vm01 left (moved to folder /DC0/vm/test)")
	moved = vms[1]
	moved.ResourcePool, vms[0].Name = "/other", "db"
	expect("moved to another pool, and moved back renamed", h.synced(g, moved, vms[0]), "vm02 left (moved to pool /other)")
	expect("back", h.synced(g, vms[1]), "vm02 joined (tag backup:gold, folder /DC0/vm/prod, pool /pool, name \"vm02\")")
	template := vms[1]
	template.Template = true
	expect("a template", h.synced(g, template), "vm02 left (it became a template)")
	vms[0].Name = "vm01"
	expect("renamed", h.synced(g, vms[0]), "vm01 joined (tag backup:gold, folder /DC0/vm/prod, pool /pool, name \"vm01\")")
	h.leave(vms[0])
	expect("deleted", h.synced(g), "vm01 left (it left the inventory)")
	before := h.clock.Now()
	h.clock.pass(time.Hour)
	more := h.addVMs(h.vcenter.ID, 1)
	more[0].Tags, more[0].Folder, more[0].ResourcePool, more[0].SeenAt = gold, "/DC0/vm/prod", "/pool", h.clock.Now()
	h.save(more)
	must(h.FollowGroups(h.ctx, h.vcenter.ID, true))(t)
	expect("new", h.since(g, before), "vm03 joined (new in the inventory, tag backup:gold, folder /DC0/vm/prod, pool /pool, name \"vm03\")")
	before = h.clock.Now()
	h.clock.pass(time.Hour)
	g.ExcludeIDs = ids(more)
	g = must(h.UpdateGroup(h.ctx, g))(t)
	expect("excluded", h.since(g, before), "vm03 left (the group was changed)")
	h.clock.pass(401 * 24 * time.Hour)
	expect("much later", h.synced(g, vms[0]), "vm01 joined (tag backup:gold, folder /DC0/vm/prod, pool /pool, name \"vm01\")")
	if all := h.since(g, time.Time{}); len(all) != 1 {
		t.Errorf("%q are told still, want those of the last 400 days", all)
	}
}

func TestAListedVMThatIsGoneHasLeftAndComesBack(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	g := h.addGroup("listed", vms)
	h.leave(vms[0])
	if got := h.synced(g); !slices.Equal(got, []string{"vm01 left (it left the inventory)"}) {
		t.Errorf("changes are %q, want the VM that left", got)
	}
	if got := h.synced(g, vms[0]); !slices.Equal(got, []string{"vm01 joined (it is in the inventory again)"}) {
		t.Errorf("changes are %q, want the VM that is back", got)
	}
}

// seed:W26
func TestARunTellsWhoJoinedAndLeftSinceTheOneBefore(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 2)
	g := must(h.CreateGroup(h.ctx, backup.Group{Name: "all", Selector: &backup.Selector{VCenterID: h.vcenter.ID}}))(t)
	run := func() backup.Run {
		t.Helper()
		h.clock.pass(time.Minute)
		return must(h.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: 1}))(t)
	}
	changes := func(r backup.Run) []string {
		t.Helper()
		return read(h, func(tx backup.Tx) ([]string, error) {
			joined, left, err := backup.RunChanges(h.ctx, tx, r)
			return told(joined, left), err
		})
	}
	first := run()
	h.synced(g, h.addVMs(h.vcenter.ID, 1)...)
	h.leave(vms[0]) // which no sync has noted when the run is made
	second, third := run(), run()
	if got := changes(first); len(got) != 0 {
		t.Errorf("the first run tells %q, want nothing", got)
	}
	if got := changes(second); len(got) != 2 || got[0] != "vm01 left (it left the inventory)" || got[1][:11] != "vm03 joined" {
		t.Errorf("the second run tells %q, want vm03 that joined and vm01 that left", got)
	}
	if got := changes(third); len(got) != 0 {
		t.Errorf("the third run tells %q, want nothing", got)
	}
	if got := changes(must(h.BackupVM(h.ctx, vms[1].ID, backup.RunOptions{RetentionDays: 1}))(t)); len(got) != 0 {
		t.Errorf("a run of one VM tells %q", got)
	}
}
