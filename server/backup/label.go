package backup

import (
	"cmp"
	"fmt"
	"slices"
)

// Labels of an image come from three places. Later ones hold: what the tags of
// the VM give it by the vcenter's mappings, the group's labels, the schedule's
// (or the run's by hand). They are those of the moment at which the job is made.

// tagLabels are the labels that the VM's tags give it (seed W15-W19). Mappings
// have no order: where two give one label different values, that of the tag
// holds which is first by category and name, and clashes says so.
func (v VCenter) tagLabels(vm VirtualMachine) (labels map[string]string, clashes []string) {
	mappings := slices.SortedFunc(slices.Values(v.TagMappings), func(a, b TagMapping) int {
		return cmp.Or(cmp.Compare(a.Category, b.Category), cmp.Compare(a.Tag, b.Tag))
	})
	labels = map[string]string{}
	from := map[string]TagMapping{}
	for _, m := range mappings {
		if !slices.Contains(vm.Tags, Tag{Category: m.Category, Name: m.Tag}) {
			continue
		}
		first, taken := from[m.Key]
		switch {
		case !taken:
			labels[m.Key], from[m.Key] = m.Value, m
		case first.Value != m.Value:
			clashes = append(clashes, fmt.Sprintf("The tags %s:%s and %s:%s give the image different labels %q; it gets %q, of the first.",
				first.Category, first.Tag, m.Category, m.Tag, m.Key, first.Value))
		}
	}
	return labels, clashes
}

// validMappings refuses mappings that cannot both hold.
func validMappings(all []TagMapping) error {
	for i, m := range all {
		if m.Category == "" || m.Tag == "" || m.Key == "" {
			return Errorf(Invalid, "tag_mappings", "A tag mapping needs category, tag and key, got %q, %q and %q.", m.Category, m.Tag, m.Key)
		}
		for _, o := range all[:i] {
			if o.Category == m.Category && o.Tag == m.Tag && o.Key == m.Key && o.Value != m.Value {
				return Errorf(Invalid, "tag_mappings", "The tag %s:%s is mapped to the label %q twice, with the values %q and %q. Keep one.", m.Category, m.Tag, m.Key, o.Value, m.Value)
			}
		}
	}
	return nil
}
