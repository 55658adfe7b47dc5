package backup_test

import (
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// A folder of vSphere may be named "..": it is a folder like any other.
func TestAFolderOfDotsLeadsNowhere(t *testing.T) {
	vm := backup.VirtualMachine{VCenterID: "v", Name: "x", Folder: "/DC0/vm/prod/../gold"}
	gold := backup.Selector{VCenterID: "v", Folder: "/DC0/vm/gold"}
	if in, err := gold.Matches(vm); in || err != nil {
		t.Errorf("a VM in %s is one in %s: %t, %v", vm.Folder, gold.Folder, in, err)
	}
	prod := backup.Selector{VCenterID: "v", Folder: "/DC0/vm/prod", Recursive: true}
	if in, err := prod.Matches(vm); !in || err != nil {
		t.Errorf("a VM in %s is one below %s: %t, %v", vm.Folder, prod.Folder, in, err)
	}
}

// seed:W12 seed:W15 seed:W27 seed:W29
func TestASelectorChoosesByAllOfItsConditions(t *testing.T) {
	gold, silver, linux := backup.Tag{Category: "backup", Name: "gold"}, backup.Tag{Category: "backup", Name: "silver"}, backup.Tag{Category: "os", Name: "linux"}
	vm := backup.VirtualMachine{VCenterID: "v", Name: "web/01 蔵🚚", Folder: "/DC0/vm/prod/a%2fb 蔵", ResourcePool: "/DC0/host/C0/Resources/gold/small", Tags: []backup.Tag{gold, silver, linux}}
	type selector = backup.Selector
	for name, c := range map[string]struct {
		selector selector
		want     bool
	}{
		"the vcenter alone":                {selector{}, true},
		"another vcenter":                  {selector{VCenterID: "w"}, false},
		"a tag":                            {selector{Tags: []backup.Tag{gold}}, true},
		"two tags of one category":         {selector{Tags: []backup.Tag{gold, silver}}, true},
		"tags of two categories":           {selector{Tags: []backup.Tag{linux, gold}}, true},
		"a tag too many":                   {selector{Tags: []backup.Tag{gold, {Category: "backup", Name: "bronze"}}}, false},
		"a tag's name of another category": {selector{Tags: []backup.Tag{{Category: "os", Name: "gold"}}}, false},
		"its folder":                       {selector{Folder: "/DC0/vm/prod/a%2fb 蔵"}, true},
		"its folder, escaped otherwise":    {selector{Folder: "/DC0/vm/prod/a%2Fb 蔵/"}, true},
		"a folder above, alone":            {selector{Folder: "/DC0/vm/prod"}, false},
		"a folder above, with those below": {selector{Folder: "/DC0/vm", Recursive: true}, true},
		"the root, with those below":       {selector{Folder: "/", Recursive: true}, true},
		"a folder above, by way of dots":   {selector{Folder: "/DC0/vm/prod/x/.."}, false},
		"a folder named like the start":    {selector{Folder: "/DC0/vm/pro", Recursive: true}, false},
		"a folder a in which b lies":       {selector{Folder: "/DC0/vm/prod/a", Recursive: true}, false},
		"its pool":                         {selector{ResourcePool: "/DC0/host/C0/Resources/gold/small"}, true},
		"a pool above":                     {selector{ResourcePool: "/DC0/host/C0/Resources"}, true},
		"another pool":                     {selector{ResourcePool: "/DC0/host/C0/Resources/go"}, false},
		"its name, from start to end":      {selector{NameRegex: "^web/01 蔵🚚$"}, true},
		"a part of its name":               {selector{NameRegex: "/0"}, true},
		"another case of its name":         {selector{NameRegex: "WEB"}, false},
		"its name in any case":             {selector{NameRegex: "(?i)WEB"}, true},
		"one emoji is one character":       {selector{NameRegex: "蔵.$"}, true},
		"all conditions":                   {selector{Tags: []backup.Tag{gold}, Folder: "/DC0/vm/prod", Recursive: true, ResourcePool: "/DC0/host", NameRegex: "web"}, true},
		"all but one":                      {selector{Tags: []backup.Tag{gold}, Folder: "/DC0/vm/prod", Recursive: true, ResourcePool: "/DC0/host", NameRegex: "db"}, false},
	} {
		if c.selector.VCenterID == "" {
			c.selector.VCenterID = "v"
		}
		if got, err := c.selector.Matches(vm); err != nil || got != c.want {
			t.Errorf("%s: Matches = %v, %v, want %v", name, got, err, c.want)
		}
	}
	template, gone := vm, vm
	template.Template, gone.GoneAt = true, time.Unix(1, 0)
	for _, other := range []backup.VirtualMachine{template, gone} {
		if got, err := (selector{VCenterID: "v"}).Matches(other); err != nil || got {
			t.Errorf("Matches(template %v, gone %v) = %v, %v, want it left out", other.Template, other.Gone(), got, err)
		}
	}
	_, err := (selector{VCenterID: "v", NameRegex: "("}).Matches(vm)
	refused(t, err, backup.Invalid, "selector.name_regex")
}

// seed:W12 seed:W28
func TestAGroupHoldsWhatIsListedAndSelectedLessWhatIsExcludedAsItIsNow(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 5)
	for i := range vms {
		vms[i].Folder = "/DC0/vm/prod"
	}
	vms[4].Folder = "/DC0/vm/test"
	h.save(vms)
	g := must(h.CreateGroup(h.ctx, backup.Group{Name: "g", VirtualMachineIDs: []string{vms[4].ID}, ExcludeIDs: []string{vms[0].ID},
		Selector: &backup.Selector{VCenterID: h.vcenter.ID, Folder: "/DC0/vm/prod"}}))(t)
	has := func(want ...backup.VirtualMachine) {
		t.Helper()
		got := must(h.GroupMembers(h.ctx, g.ID))(t)
		r := must(h.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: 1}))(t)
		if len(got) != len(want) || len(r.Jobs) != len(want) {
			t.Fatalf("%d members and %d jobs, want %d", len(got), len(r.Jobs), len(want))
		}
		for i, id := range ids(want) {
			if got[i].ID != id {
				t.Errorf("member %d is %s, want %s", i, got[i].ID, id)
			}
		}
	}
	has(vms[1], vms[2], vms[3], vms[4])
	vms[2].Folder = "/DC0/vm/prod/sub" // moved out: it is no member from then on
	h.save(vms[2:3])
	has(vms[1], vms[3], vms[4])
	vms[2].Folder, vms[2].Name = "/DC0/vm/prod", "back"
	h.save(vms[2:3])
	has(vms[1], vms[2], vms[3], vms[4])
}
