package backup_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestCoverageTellsWhichSchedulesBackAMachineUpFromNowOn(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 3)
	h.addEnding(vms[0], 100*aDay)
	g := must(h.CreateGroup(h.ctx, backup.Group{Name: "g", Selector: &backup.Selector{VCenterID: h.vcenter.ID, NameRegex: vms[0].Name + "$"}, VirtualMachineIDs: []string{vms[1].ID}}))(t)
	daily := func(name string, change func(*backup.Schedule)) backup.Schedule {
		s := backup.Schedule{Name: name, Enabled: true, RetentionDays: 8, Recurrence: backup.Recurrence{Kind: backup.Daily, Hour: 2, TimeZone: "UTC"}}
		change(&s)
		return must(h.CreateSchedule(h.ctx, s))(t)
	}
	daily("of the group", func(s *backup.Schedule) { s.GroupID = g.ID })
	daily("alone", func(s *backup.Schedule) { s.VMID = vms[0].ID })
	daily("off", func(s *backup.Schedule) { s.VMID, s.Enabled = vms[2].ID, false })
	once := daily("once", func(s *backup.Schedule) {
		s.VMID, s.RetentionDays = vms[2].ID, 1
		s.Recurrence.Kind, s.Recurrence.Date = backup.OneTime, backup.DateOf(noon.Add(aDay))
	})
	told := func() string {
		var lines []string
		for _, c := range must(h.Coverage(h.ctx, h.vcenter.ID))(t) {
			var names []string
			for _, s := range c.Schedules {
				names = append(names, s.Name)
			}
			lines = append(lines, fmt.Sprintf("%s: %s, good %t", c.VM.Name, strings.Join(names, " and "), !c.Good.At.IsZero()))
		}
		return strings.Join(lines, "; ")
	}
	want := fmt.Sprintf("%s: alone and of the group, good true; %s: of the group, good false; %s: once, good false", vms[0].Name, vms[1].Name, vms[2].Name)
	if got := told(); got != want {
		t.Errorf("coverage is\n%s, want\n%s", got, want)
	}
	h.days(3)
	if got := told(); strings.Contains(got, once.Name) {
		t.Errorf("a schedule that ran once still counts: %s", got)
	}
	if all := must(h.Coverage(h.ctx, ""))(t); len(all) != 3 {
		t.Errorf("%d machines in all vcenters, want 3", len(all))
	}
	_, err := h.Coverage(h.ctx, "none")
	refused(t, err, backup.NotFound, "")
}
