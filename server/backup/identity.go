package backup

// Identify tells which of the known VMs each of those is that a vcenter shows,
// by id; "" is a VM that was not known. A VM keeps its id when it is renamed,
// moved, registered anew, or given another instance UUID. Two VMs may have one
// instance UUID, as a careless copy leaves them: then the managed object id
// tells them apart, and where that has changed too, the name. What stays
// doubtful is a new VM: images must never pass to another one.
func Identify(known, seen []VirtualMachine) []string {
	m := matching{known: known, ids: make([]string, len(seen)), taken: map[string]bool{}, byUUID: map[[2]string][]int{}, byMOID: map[[2]string][]int{}}
	for i, k := range known {
		m.byUUID[[2]string{k.VCenterID, k.InstanceUUID}] = append(m.byUUID[[2]string{k.VCenterID, k.InstanceUUID}], i)
		m.byMOID[[2]string{k.VCenterID, k.MOID}] = append(m.byMOID[[2]string{k.VCenterID, k.MOID}], i)
	}
	twins := map[[2]string]int{}
	for i, vm := range seen {
		m.take(i, m.where(m.byUUID[[2]string{vm.VCenterID, vm.InstanceUUID}], func(k VirtualMachine) bool { return k.MOID == vm.MOID }))
	}
	for i, vm := range seen { // the same object, whose instance UUID has changed
		m.take(i, m.where(m.byMOID[[2]string{vm.VCenterID, vm.MOID}], func(k VirtualMachine) bool {
			return !k.Gone() && k.BIOSUUID != "" && k.BIOSUUID == vm.BIOSUUID
		}))
		if m.ids[i] == "" {
			twins[[2]string{vm.VCenterID, vm.InstanceUUID}]++
		}
	}
	for i, vm := range seen { // registered anew: the object that it was has gone
		m.take(i, m.where(m.byUUID[[2]string{vm.VCenterID, vm.InstanceUUID}], func(k VirtualMachine) bool { return k.Gone() && k.Name == vm.Name }))
	}
	for i, vm := range seen {
		of := [2]string{vm.VCenterID, vm.InstanceUUID}
		if gone := m.where(m.byUUID[of], VirtualMachine.Gone); len(gone) == 1 && twins[of] == 1 {
			m.take(i, gone)
		}
	}
	return m.ids
}

// matching is an identification under way.
type matching struct {
	known          []VirtualMachine
	ids            []string // of those that are seen
	taken          map[string]bool
	byUUID, byMOID map[[2]string][]int
}

// where lists the known VMs among them that nobody has taken yet and that are so.
func (m *matching) where(among []int, so func(VirtualMachine) bool) []int {
	var out []int
	for _, i := range among {
		if k := m.known[i]; !m.taken[k.ID] && so(k) {
			out = append(out, i)
		}
	}
	return out
}

// take gives a VM that is seen and has no id yet the first of the candidates'.
func (m *matching) take(seen int, candidates []int) {
	if m.ids[seen] != "" || len(candidates) == 0 {
		return
	}
	id := m.known[candidates[0]].ID
	m.ids[seen], m.taken[id] = id, true
}
