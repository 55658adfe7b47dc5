package backup

import (
	"path"
	"regexp"
	"slices"
	"strings"
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
	if vm.Gone() || vm.Template || vm.VCenterID != s.VCenterID {
		return false, nil
	}
	for _, t := range s.Tags {
		if !slices.Contains(vm.Tags, t) {
			return false, nil
		}
	}
	if s.Folder != "" && !inFolder(vm.Folder, s.Folder, s.Recursive) {
		return false, nil
	}
	if s.ResourcePool != "" && !inFolder(vm.ResourcePool, s.ResourcePool, true) {
		return false, nil
	}
	if s.NameRegex == "" {
		return true, nil
	}
	re, err := regexp.Compile(s.NameRegex)
	if err != nil {
		return false, Errorf(Invalid, "selector.name_regex", "%q is not a regular expression: %v.", s.NameRegex, err)
	}
	return re.MatchString(vm.Name), nil
}

// inFolder compares inventory paths. A slash, a backslash or a percent sign in
// a name is written %2f, %5c or %25 there, as vSphere itself does, so that a
// folder "a/b" is another one than b in a.
func inFolder(have, want string, recursive bool) bool {
	have, want = path.Clean("/"+lowerEscapes.Replace(have)), path.Clean("/"+lowerEscapes.Replace(want))
	return have == want || recursive && strings.HasPrefix(have, want+"/")
}

// lowerEscapes writes the escapes of inventory paths in the one case that is compared.
var lowerEscapes = strings.NewReplacer("%2F", "%2f", "%5C", "%5c")

// Members returns the group's VMs out of an inventory: those listed (also when
// they are gone: a run then says so) and those selected, less the excluded
// ones, in the order of their ids.
func (g Group) Members(inventory []VirtualMachine) ([]VirtualMachine, error) {
	var out []VirtualMachine
	for _, vm := range inventory {
		in := slices.Contains(g.VirtualMachineIDs, vm.ID)
		if !in && g.Selector != nil {
			var err error
			if in, err = g.Selector.Matches(vm); err != nil {
				return nil, err
			}
		}
		if in && !slices.Contains(g.ExcludeIDs, vm.ID) {
			out = append(out, vm)
		}
	}
	slices.SortFunc(out, func(a, b VirtualMachine) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Validate returns an [Invalid] error for the first bad field.
func (g Group) Validate() error {
	if err := validName(g.Name); err != nil {
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

// Names of groups, schedules, vcenters and tokens are 1 to 128 characters of
// printable UTF-8 without control characters; they are labels, never keys.
const maxName = 128

func validName(name string) error {
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
		if r < ' ' || r == 0x7f {
			return Errorf(Invalid, "name", "The name %q holds a control character.", name)
		}
	}
	return nil
}
