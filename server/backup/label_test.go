package backup_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:W18 seed:W19
func TestLabelsComeFromTagsThenTheGroupThenTheScheduleWhateverTheOrderOfMappings(t *testing.T) {
	h := newHouse(t, 10)
	vms := h.addVMs(h.vcenter.ID, 1)
	linux, windows := backup.TagMapping{Category: "os", Tag: "linux", Key: "os", Value: "Linux"}, backup.TagMapping{Category: "os", Tag: "windows", Key: "os", Value: "Windows"}
	tier, team := backup.TagMapping{Category: "app", Tag: "erp", Key: "tier", Value: "1"}, backup.TagMapping{Category: "app", Tag: "erp", Key: "team", Value: "erp"}
	g := must(h.CreateGroup(h.ctx, backup.Group{Name: "g", VirtualMachineIDs: ids(vms), Labels: map[string]string{"tier": "2", "site": "tokyo"}}))(t)
	run := func(tags []backup.Tag, mappings ...backup.TagMapping) (map[string]string, []string) {
		t.Helper()
		h.vcenter.TagMappings = mappings
		h.vcenter = must(h.UpdateVCenter(h.ctx, h.vcenter))(t)
		vms[0].Tags = tags
		h.save(vms)
		r := must(h.BackupGroup(h.ctx, g.ID, backup.RunOptions{RetentionDays: 1, Labels: map[string]string{"site": "osaka"}}))(t)
		var spec backup.BackupSpec
		if err := json.Unmarshal(r.Jobs[0].Spec, &spec); err != nil {
			t.Fatal(err)
		}
		return spec.Labels, r.Jobs[0].Messages
	}
	erp := backup.Tag{Category: "app", Name: "erp"}
	both := []backup.Tag{{Category: "os", Name: "linux"}, {Category: "os", Name: "windows"}}
	for name, c := range map[string]struct {
		tags     []backup.Tag
		mappings []backup.TagMapping
		want     map[string]string
		clash    string
	}{
		"no tag":              {nil, []backup.TagMapping{linux, tier}, map[string]string{"tier": "2", "site": "osaka"}, ""},
		"one tag, two labels": {[]backup.Tag{erp}, []backup.TagMapping{tier, team}, map[string]string{"tier": "2", "site": "osaka", "team": "erp"}, ""},
		"two tags, one label": {both, []backup.TagMapping{linux, windows}, map[string]string{"tier": "2", "site": "osaka", "os": "Linux"}, `os:linux and os:windows give the image different labels "os"; it gets "Linux"`},
		"the other order":     {both, []backup.TagMapping{windows, linux}, map[string]string{"tier": "2", "site": "osaka", "os": "Linux"}, `it gets "Linux"`},
	} {
		labels, messages := run(c.tags, c.mappings...)
		if !maps.Equal(labels, c.want) {
			t.Errorf("%s: labels = %v, want %v", name, labels, c.want)
		}
		if got := strings.Join(messages, "\n"); (got == "") != (c.clash == "") || !strings.Contains(got, c.clash) {
			t.Errorf("%s: messages = %q, want %q", name, got, c.clash)
		}
	}
}

// seed:W17
func TestTagMappingsThatCannotBothHoldAreRefused(t *testing.T) {
	h := newHouse(t, 10)
	m := backup.TagMapping{Category: "os", Tag: "linux", Key: "os", Value: "Linux"}
	other, empty := m, m
	other.Value, empty.Key = "GNU", ""
	for name, mappings := range map[string][]backup.TagMapping{
		"one tag, one label, two values": {m, other},
		"without a key":                  {empty},
		"too many":                       make([]backup.TagMapping, backup.MaxTagMappings+1),
	} {
		v := h.vcenter
		v.TagMappings = mappings
		_, err := h.UpdateVCenter(h.ctx, v)
		if e := backup.AsError(err); e == nil || e.Code != backup.Invalid || e.Field != "tag_mappings" {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	v := h.vcenter
	v.TagMappings = []backup.TagMapping{m, m} // the same twice says nothing else
	must(h.UpdateVCenter(h.ctx, v))(t)
}
