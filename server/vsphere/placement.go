package vsphere

import (
	"cmp"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// target is where a new VM is put.
type target struct {
	datacenter ref
	dcPath     string
	folder     ref
	pool       ref
	host       ref
	store      mo.Datastore
	cluster    string         // datastore cluster that the store is part of; "" = none
	networks   map[string]ref // by the name that the image's card had
}

// wish is what a placement has to satisfy.
type wish struct {
	backup.RestoreNewVM
	machine  MachineConfig
	store    string       // name of the datastore that the image's VM lay on
	networks []string     // names of the networks that its cards need
	bytes    int64        // that the disks will take
	suits    map[ref]bool // datastores on which the storage policy can be kept; nil = any
}

// place chooses where to put a VM: what the user asked for, else where the
// image's VM was, else the first place that fits.
func (t *site) place(w wish) (target, error) {
	var dc ref
	var err error
	if w.Datacenter != "" {
		if dc, err = t.pick("new_vm.datacenter", "datacenter", w.Datacenter, refsOf(t.datacenters)); err != nil {
			return target{}, err
		}
	}
	options, err := t.options(w, dc)
	if err != nil {
		return target{}, err
	}
	var first error
	for _, o := range options {
		found, err := t.fit(w, o)
		if err == nil {
			return found, nil
		}
		if first == nil || backup.CodeOf(first) == backup.Unavailable {
			first = err
		}
	}
	if first == nil {
		first = backup.Errorf(backup.Unavailable, "", "The vcenter has no host to put a VM on.")
	}
	return target{}, first
}

// option is one pool, and perhaps one host, that could take the VM.
type option struct {
	compute
	host ref // zero = any
}

func (t *site) options(w wish, dc ref) ([]option, error) {
	var list []option
	for _, c := range t.computes {
		if dc == (ref{}) || t.datacenterOf(c.self) == dc {
			list = append(list, option{compute: c})
		}
	}
	switch {
	case w.ResourcePool != "":
		pool, err := t.pick("new_vm.resource_pool", "resource pool", w.ResourcePool, t.within(dc, t.pools))
		if err != nil {
			return nil, err
		}
		return []option{t.optionOf(pool)}, nil
	case w.Host != "":
		host, err := t.pick("new_vm.host", "host", w.Host, t.within(dc, refsOf(t.hosts)))
		if err != nil {
			return nil, err
		}
		at := t.places[host].parent
		list = slices.DeleteFunc(list, func(o option) bool { return o.self != at })
		for i := range list {
			list[i].host = host
		}
		return list, nil
	case w.Cluster != "":
		all := make([]ref, 0, len(list))
		for _, o := range list {
			all = append(all, o.self)
		}
		cluster, err := t.pick("new_vm.cluster", "cluster", w.Cluster, all)
		return slices.DeleteFunc(list, func(o option) bool { return o.self != cluster }), err
	}
	return t.prefer(list, w, dc), nil
}

// prefer puts the image's own pool first, then its host's, then its datacenter's.
func (t *site) prefer(list []option, w wish, dc ref) []option {
	rank := func(o option) int {
		for _, h := range t.hosts {
			if t.places[h.Self].name == w.machine.Host && deref(h.Parent) == o.self {
				return 0
			}
		}
		if dc := t.datacenterOf(o.self); t.path(dc) == w.machine.Datacenter {
			return 1
		}
		return 2
	}
	slices.SortStableFunc(list, func(a, b option) int { return cmp.Compare(rank(a), rank(b)) })
	for _, p := range t.within(dc, t.pools) {
		if t.path(p) == w.machine.ResourcePool {
			return append([]option{t.optionOf(p)}, list...)
		}
	}
	return list
}

func (t *site) optionOf(pool ref) option {
	at, _ := t.up(pool, "ComputeResource", "ClusterComputeResource")
	return option{compute: compute{self: at, pool: pool}}
}

// fit finds a datastore, a host and a folder for the option.
func (t *site) fit(w wish, o option) (target, error) {
	hosts := t.usable(o.compute)
	if o.host != (ref{}) {
		hosts = slices.DeleteFunc(hosts, func(h mo.HostSystem) bool { return h.Self != o.host })
	}
	if len(hosts) == 0 {
		return target{}, backup.Errorf(backup.Unavailable, "new_vm.host", "No host of %s is connected and out of maintenance.", t.path(o.self))
	}
	found := target{datacenter: t.datacenterOf(o.self), pool: o.pool}
	found.dcPath = t.path(found.datacenter)
	var err error
	if found.store, err = t.chooseStore(w, found.datacenter, hosts); err != nil {
		return target{}, err
	}
	if pod, ok := t.up(found.store.Self, "StoragePod"); ok {
		found.cluster = unescapeName(t.places[pod].name)
	}
	if found.folder, err = t.chooseFolder(w, found.datacenter); err != nil {
		return target{}, err
	}
	hosts = slices.DeleteFunc(hosts, func(h mo.HostSystem) bool { return !slices.Contains(h.Datastore, found.store.Self) })
	slices.SortStableFunc(hosts, func(a, b mo.HostSystem) int {
		own := func(h mo.HostSystem) int { return len(t.missing(w, h))*2 - eq(t.places[h.Self].name, w.machine.Host) }
		return cmp.Compare(own(a), own(b))
	})
	found.host = hosts[0].Self
	if missing := t.missing(w, hosts[0]); len(missing) > 0 {
		return target{}, invalid("new_vm.network_mappings",
			"There is no network %q on the host %s. Map it with network_mappings to one of: %s.", missing[0], t.places[found.host].name, t.networkNames(hosts[0]))
	}
	found.networks = map[string]ref{}
	for _, n := range w.networks {
		found.networks[n] = t.network(hosts[0], w.mapped(n))
	}
	return found, nil
}

func eq(a, b string) int {
	if a == b {
		return 1
	}
	return 0
}

// chooseStore takes the wanted datastore, else the image's own, else the one with the most free space.
func (t *site) chooseStore(w wish, dc ref, hosts []mo.HostSystem) (mo.Datastore, error) {
	var seen []mo.Datastore
	for _, d := range t.stores {
		if usableStore(d) && slices.ContainsFunc(hosts, func(h mo.HostSystem) bool { return slices.Contains(h.Datastore, d.Self) }) {
			seen = append(seen, d)
		}
	}
	if w.Datastore != "" {
		var err error
		if seen, err = t.named(w.Datastore, dc, seen); err != nil {
			return mo.Datastore{}, err
		}
	}
	if w.suits != nil && len(seen) > 0 {
		first := seen[0].Summary.Name
		if seen = slices.DeleteFunc(seen, func(d mo.Datastore) bool { return !w.suits[d.Self] }); len(seen) == 0 {
			return mo.Datastore{}, unsuitable(w.StoragePolicy, first, t, w.suits)
		}
	}
	slices.SortStableFunc(seen, func(a, b mo.Datastore) int { return cmp.Compare(b.Summary.FreeSpace, a.Summary.FreeSpace) })
	for _, d := range seen {
		if d.Summary.Name == w.store && d.Summary.FreeSpace >= w.bytes {
			return d, nil
		}
	}
	if len(seen) == 0 {
		return mo.Datastore{}, backup.Errorf(backup.Unavailable, "new_vm.datastore", "No datastore is usable on the hosts that could take the VM.")
	}
	if best := seen[0]; best.Summary.FreeSpace < w.bytes {
		return mo.Datastore{}, backup.Errorf(backup.NoSpace, "new_vm.datastore",
			"The VM needs %s; the datastore %s has %s free, and no usable one has more. Free some, or name another place.",
			backup.SizeText(w.bytes), best.Summary.Name, backup.SizeText(best.Summary.FreeSpace))
	}
	return seen[0], nil
}

// named are the usable datastores that the user means: one, or those of a datastore cluster.
func (t *site) named(want string, dc ref, usable []mo.Datastore) ([]mo.Datastore, error) {
	var pods []ref
	for r := range t.places {
		if r.Type == "StoragePod" {
			pods = append(pods, r)
		}
	}
	if pod, err := t.pick("", "", want, t.within(dc, pods)); err == nil {
		return slices.DeleteFunc(usable, func(d mo.Datastore) bool { return deref(d.Parent) != pod }), nil
	}
	r, err := t.pick("new_vm.datastore", "datastore", want, t.within(dc, refsOf(usable)))
	if err != nil {
		return nil, err
	}
	d, _ := t.store(r)
	return []mo.Datastore{d}, nil
}

func usableStore(d mo.Datastore) bool {
	return d.Summary.Accessible && (d.Summary.MaintenanceMode == "" || d.Summary.MaintenanceMode == "normal")
}

func (t *site) chooseFolder(w wish, dc ref) (ref, error) {
	if w.Folder != "" {
		return t.pick("new_vm.folder", "folder", w.Folder, t.within(dc, t.folders))
	}
	for _, f := range t.within(dc, t.folders) {
		if t.path(f) == w.machine.Folder {
			return f, nil
		}
	}
	for _, d := range t.datacenters {
		if d.Self == dc {
			return d.VmFolder, nil
		}
	}
	return ref{}, backup.Errorf(backup.Internal, "", "The datacenter %s shows no folder for VMs.", t.path(dc))
}

// mapped is the name of the network that takes the place of the image's.
func (w wish) mapped(network string) string {
	if to, ok := w.NetworkMappings[network]; ok {
		return to
	}
	return network
}

func (t *site) missing(w wish, h mo.HostSystem) []string {
	var out []string
	for _, n := range w.networks {
		if t.network(h, w.mapped(n)) == (ref{}) {
			out = append(out, w.mapped(n))
		}
	}
	return out
}

func (t *site) network(h mo.HostSystem, name string) ref {
	for _, n := range h.Network {
		if unescapeName(t.places[n].name) == name || t.path(n) == name {
			return n
		}
	}
	return ref{}
}

func (t *site) networkNames(h mo.HostSystem) string {
	var names []string
	for _, n := range h.Network {
		names = append(names, unescapeName(t.places[n].name))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func refsOf[T mo.Reference](list []T) []ref {
	out := make([]ref, 0, len(list))
	for _, e := range list {
		out = append(out, e.Reference())
	}
	return out
}

// storeOf is the name of the datastore in a path such as "[ds] folder/file".
func storeOf(file string) string {
	var p object.DatastorePath
	p.FromString(file)
	return p.Datastore
}
