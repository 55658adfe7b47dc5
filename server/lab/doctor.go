package lab

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// What a doctor looks at: privileges, clocks, certificates, hosts. vcsim grants
// every privilege and has no clocks of its own.

// HasPrivilegeOnEntities answers as vCenter does; a privilege is lacked where
// the fault privilege_missing names it.
func (r *router) HasPrivilegeOnEntities(_ *simulator.Context, q *types.HasPrivilegeOnEntities) soap.HasFault {
	res := new(types.HasPrivilegeOnEntitiesResponse)
	for _, e := range q.Entity {
		one := types.EntityPrivilege{Entity: e}
		for _, id := range q.PrivId {
			one.PrivAvailability = append(one.PrivAvailability, types.PrivilegeAvailability{PrivId: id, IsGranted: r.l.granted(id, e)})
		}
		res.Returnval = append(res.Returnval, one)
	}
	return &methods.HasPrivilegeOnEntitiesBody{Res: res}
}

// granted says whether no fault takes a privilege away. Such a fault lasts until it is cleared.
func (l *Lab) granted(privilege string, on ref) bool {
	return !slices.ContainsFunc(l.faults.list(), func(f Fault) bool {
		return f.Kind == "privilege_missing" && (f.Method == "" || f.Method == privilege) &&
			(f.VM == "" || f.VM == on.Value || f.VM == l.nameOf(on))
	})
}

// CurrentTime is the vCenter's clock: ours, and what the fault clock_skew adds.
func (r *router) CurrentTime(*simulator.Context, *types.CurrentTime) soap.HasFault {
	return &methods.CurrentTimeBody{Res: &types.CurrentTimeResponse{Returnval: r.l.clock("")}}
}

// QueryDateTime is a host's clock.
func (r *router) QueryDateTime(ctx *simulator.Context, q *types.QueryDateTime) soap.HasFault {
	name := ""
	for _, h := range r.l.place.hosts {
		if host, ok := ctx.Map.Get(h).(*simulator.HostSystem); ok && h.Value == q.This.Value {
			name = host.Name
		}
	}
	return &methods.QueryDateTimeBody{Res: &types.QueryDateTimeResponse{Returnval: r.l.clock(name)}}
}

// clock tells the time of a host, or ("") of the vCenter.
func (l *Lab) clock(host string) time.Time {
	now := time.Now()
	for _, f := range l.faults.list() {
		if f.Kind == "clock_skew" && f.VM == host {
			now = now.Add(f.Delay)
		}
	}
	return now
}

// hostClock stands for a host's HostDateTimeSystem, which vcsim lacks. It has
// the name of its host.
type hostClock struct {
	mo.HostDateTimeSystem
	mu sync.Mutex // vcsim locks what is called
}

func (c *hostClock) Lock()   { c.mu.Lock() }
func (c *hostClock) Unlock() { c.mu.Unlock() }

// furnishHosts gives the hosts clocks, and addresses at which something
// answers: the lab's own, at which its leases are too.
func (l *Lab) furnishHosts() error {
	ctx := l.context()
	address, digits, err := net.SplitHostPort(l.host())
	if err != nil {
		return fmt.Errorf("give the hosts their addresses: %w", err)
	}
	port, err := strconv.Atoi(digits)
	if err != nil {
		return fmt.Errorf("give the hosts their addresses: %w", err)
	}
	for _, r := range l.place.hosts {
		host, ok := ctx.Map.Get(r).(*simulator.HostSystem)
		if !ok {
			continue
		}
		clock := &hostClock{}
		clock.Self = ref{Type: "HostDateTimeSystem", Value: r.Value}
		ctx.Map.Put(clock)
		ctx.WithLock(host, func() {
			config := host.ConfigManager
			config.DateTimeSystem = &clock.Self
			ctx.Update(host, []types.PropertyChange{{Name: "configManager", Val: config}})
		})
		l.SetHostAddress(host.Name, address, port)
	}
	return nil
}

// SetHostAddress makes vCenter tell another address of a host than the lab's.
func (l *Lab) SetHostAddress(name, address string, port int) {
	l.onHost(name, func(ctx *simulator.Context, host *simulator.HostSystem) {
		config := host.Summary.Config
		config.Name, config.Port = address, int32(port)
		ctx.Update(host, []types.PropertyChange{{Name: "summary.config", Val: config}})
	})
}

// SetMaintenance puts a host into maintenance or takes it out. The VMs stay where they are.
func (l *Lab) SetMaintenance(name string, on bool) {
	l.onHost(name, func(ctx *simulator.Context, host *simulator.HostSystem) {
		ctx.Update(host, []types.PropertyChange{{Name: "runtime.inMaintenanceMode", Val: on}, {Name: "summary.runtime.inMaintenanceMode", Val: on}})
	})
}

// Hosts are the names of the hosts.
func (l *Lab) Hosts() []string {
	var names []string
	for _, r := range l.place.hosts {
		if host, ok := l.registry().Get(r).(*simulator.HostSystem); ok {
			names = append(names, host.Name)
		}
	}
	return names
}

func (l *Lab) onHost(name string, do func(*simulator.Context, *simulator.HostSystem)) {
	ctx := l.context()
	for _, r := range l.place.hosts {
		if host, ok := ctx.Map.Get(r).(*simulator.HostSystem); ok && host.Name == name {
			ctx.WithLock(host, func() { do(ctx, host) })
		}
	}
}
