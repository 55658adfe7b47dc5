package backup

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Group is a named set of VMs: listed ones and selected ones, less exclusions.
type Group struct {
	Meta
	Name               string
	Description        string
	VirtualMachineIDs  []string
	Selector           *Selector // resolved anew at every run (seed W14, W26); nil = listed VMs only
	ExcludeIDs         []string
	ReservedSeats      int           // seats that a selector group books; 0 = as many as it has members
	MaxParallel        int           // backups of one run at a time; 0 = as the vcenter's limits allow
	Consistent         bool          // all members' snapshots are made together
	OnMemberFailure    MemberFailure // of a consistent group; "" = MemberLeaveOut
	Labels             map[string]string
	DeletionProtection bool
}

// Selector chooses VMs of one vcenter. All conditions that are set must hold.
type Selector struct {
	VCenterID    string `json:"vcenter_id"`
	Tags         []Tag  `json:"tags,omitempty"` // the VM carries every one of them
	Folder       string `json:"folder,omitempty"`
	Recursive    bool   `json:"recursive,omitempty"` // sub-folders too (seed W27)
	ResourcePool string `json:"resource_pool,omitempty"`
	NameRegex    string `json:"name_regex,omitempty"` // Go syntax, matched anywhere in the name
}

// Matches says whether vm is chosen. Templates and VMs that are gone never are.
// The error is [Invalid] for a NameRegex that does not compile.
func (s Selector) Matches(vm VirtualMachine) (bool, error) {
	re, err := s.pattern()
	return err == nil && s.matches(vm, re), err
}

// pattern is the NameRegex; nil = any name will do.
func (s Selector) pattern() (*regexp.Regexp, error) {
	if s.NameRegex == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	re, err := regexp.Compile(s.NameRegex)
	if err != nil {
		return nil, Errorf(Invalid, "selector.name_regex", "%q is not a regular expression: %v.", s.NameRegex, err)
	}
	return re, nil
}

func (s Selector) matches(vm VirtualMachine, name *regexp.Regexp) bool {
	if vm.Gone() || vm.Template || vm.VCenterID != s.VCenterID {
		return false
	}
	for _, t := range s.Tags {
		if !slices.Contains(vm.Tags, t) {
			return false
		}
	}
	switch {
	case s.Folder != "" && !inFolder(vm.Folder, s.Folder, s.Recursive):
		return false
	case s.ResourcePool != "" && !inFolder(vm.ResourcePool, s.ResourcePool, true):
		return false
	}
	return name == nil || name.MatchString(vm.Name)
}

// inFolder compares inventory paths. A slash, a backslash or a percent sign in
// a name is written %2f, %5c or %25 there, as vSphere itself does, so that a
// folder "a/b" is another one than b in a.
func inFolder(have, want string, recursive bool) bool {
	have, want = inventoryPath(have), inventoryPath(want)
	return have == want || recursive && strings.HasPrefix(have, want)
}

// inventoryPath is a path in the one form that is compared. Dots mean nothing in
// it: whoever may name a folder ".." must not get out of the one above.
func inventoryPath(text string) string {
	steps := strings.FieldsFunc(lowerEscapes.Replace(text), func(r rune) bool { return r == '/' })
	return strings.Join(append(steps, ""), "/")
}

// lowerEscapes writes the escapes of inventory paths in the one case that is compared.
var lowerEscapes = strings.NewReplacer("%2F", "%2f", "%5C", "%5c")

// Members returns the group's VMs out of an inventory: those listed (also when
// they are gone: a run then says so) and those selected, less the excluded
// ones, in the order of their ids.
func (g Group) Members(inventory []VirtualMachine) ([]VirtualMachine, error) {
	var name *regexp.Regexp
	if g.Selector != nil {
		var err error
		if name, err = g.Selector.pattern(); err != nil {
			return nil, err
		}
	}
	listed, excluded := setOf(g.VirtualMachineIDs), setOf(g.ExcludeIDs)
	var out []VirtualMachine
	for _, vm := range inventory {
		if (listed[vm.ID] || g.Selector != nil && g.Selector.matches(vm, name)) && !excluded[vm.ID] {
			out = append(out, vm)
		}
	}
	slices.SortFunc(out, func(a, b VirtualMachine) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

func setOf(ids []string) map[string]bool {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// Validate returns an [Invalid] error for the first bad field.
func (g Group) Validate() error {
	if err := ValidName(g.Name); err != nil {
		return err
	}
	if len(g.VirtualMachineIDs) == 0 && g.Selector == nil {
		return Errorf(Invalid, "virtual_machine_ids", "A group needs virtual_machine_ids, a selector, or both.")
	}
	if err := g.validConsistent(); err != nil {
		return err
	}
	if g.ReservedSeats < 0 {
		return Errorf(Invalid, "reserved_seats", "reserved_seats must be 0 or more, got %d.", g.ReservedSeats)
	}
	if g.MaxParallel < 0 {
		return Errorf(Invalid, "max_parallel", "max_parallel must be 0 (no limit of its own) or more, got %d.", g.MaxParallel)
	}
	if s := g.Selector; s != nil {
		return s.validate()
	}
	return nil
}

func (s Selector) validate() error {
	if s.VCenterID == "" {
		return Errorf(Invalid, "selector.vcenter_id", "A selector needs the id of its vcenter.")
	}
	for _, t := range s.Tags {
		if t.Category == "" || t.Name == "" {
			return Errorf(Invalid, "selector.tags", "A tag needs category and name, got %q and %q.", t.Category, t.Name)
		}
	}
	if s.Recursive && s.Folder == "" {
		return Errorf(Invalid, "selector.recursive", "recursive goes with folder, which is not set.")
	}
	if _, err := regexp.Compile(s.NameRegex); err != nil {
		return Errorf(Invalid, "selector.name_regex", "%q is not a regular expression: %v.", s.NameRegex, err)
	}
	return nil
}

// maxName is the greatest length of a name in characters.
const maxName = 128

// ValidName returns an [Invalid] error for what cannot be the name of a group, a
// schedule, a vcenter, a repository or a token: it is a label of 1 to 128
// characters in any script, and shows what it is wherever it is shown.
func ValidName(name string) error {
	switch n := utf8.RuneCountInString(name); {
	case !utf8.ValidString(name):
		return Errorf(Invalid, "name", "The name is not valid UTF-8.")
	case strings.TrimSpace(name) == "":
		return Errorf(Invalid, "name", "A name is needed.")
	case n > maxName:
		return Errorf(Invalid, "name", "A name has at most %d characters, got %d.", maxName, n)
	case strings.TrimSpace(name) != name:
		return Errorf(Invalid, "name", "The name %q starts or ends with a space.", name)
	}
	for _, r := range name {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp) {
			return Errorf(Invalid, "name", "The name %q holds a control character.", name)
		}
		if '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069' {
			return Errorf(Invalid, "name", "The name %q holds a character that turns the direction of what follows it.", name)
		}
	}
	return nil
}
