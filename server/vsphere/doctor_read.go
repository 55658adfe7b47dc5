package vsphere

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// sessionKey names the session for calls that ask about it.
func (s *Session) sessionKey(ctx context.Context) (string, error) {
	var m mo.SessionManager
	if err := s.read(ctx, s.login.manager, []string{"currentSession"}, &m); err != nil {
		return "", err
	}
	if m.CurrentSession == nil {
		return "", fmt.Errorf("%s does not tell which session this is", s.host)
	}
	return m.CurrentSession.Key, nil
}

// hostPort is where a host gives and takes disks unless vSphere knows it by
// another port. Port 902 is that of another service.
const (
	hostPort = 443
	authPort = 902
)

func (s *Session) surveyHosts(ctx context.Context) ([]backup.SurveyedHost, error) {
	var list []mo.HostSystem
	if err := s.every(ctx, "HostSystem", []string{"name", "summary.config.name", "summary.config.port", "runtime.connectionState", "runtime.inMaintenanceMode", "configManager.dateTimeSystem"}, &list); err != nil {
		return nil, err
	}
	hosts := make([]backup.SurveyedHost, len(list))
	var g errgroup.Group
	g.SetLimit(hostsAtOnce)
	for i, h := range list {
		name, port := h.Summary.Config.Name, int(h.Summary.Config.Port)
		if name == "" {
			name = h.Name
		}
		if port == 0 || port == authPort {
			port = hostPort
		}
		hosts[i] = backup.SurveyedHost{Name: unescapeName(h.Name), Address: net.JoinHostPort(name, strconv.Itoa(port)), State: string(h.Runtime.ConnectionState), Maintenance: h.Runtime.InMaintenanceMode}
		if system := h.ConfigManager.DateTimeSystem; system != nil && hosts[i].State == string(types.HostSystemConnectionStateConnected) {
			g.Go(func() error {
				hosts[i].Clock = s.hostClock(ctx, *system)
				return nil
			})
		}
	}
	_ = g.Wait() // a clock that cannot be read is not judged
	s.reachHosts(ctx, hosts)
	slices.SortFunc(hosts, func(a, b backup.SurveyedHost) int { return strings.Compare(a.Name, b.Name) })
	return hosts, nil
}

// hostClock reads a host's clock, where the account may.
func (s *Session) hostClock(ctx context.Context, system ref) backup.SurveyedClock {
	c, err := readClock(s.config.Now, func() (time.Time, error) {
		res, err := methods.QueryDateTime(ctx, s.client, &types.QueryDateTime{This: system})
		if err != nil {
			return time.Time{}, err
		}
		return res.Returnval, nil
	})
	if err != nil {
		s.log.DebugContext(ctx, "clock of a host not read", "system", system.Value, "error", err)
	}
	return c
}

func (s *Session) surveyDatastores(ctx context.Context) ([]backup.SurveyedDatastore, error) {
	var list []mo.Datastore
	if err := s.every(ctx, "Datastore", []string{"summary", "info"}, &list); err != nil {
		return nil, err
	}
	out := make([]backup.SurveyedDatastore, len(list))
	for i, d := range list {
		out[i] = backup.SurveyedDatastore{Name: d.Summary.Name, Type: d.Summary.Type, Capacity: d.Summary.Capacity, Free: d.Summary.FreeSpace, Accessible: d.Summary.Accessible}
		if info, ok := d.Info.(*types.NasDatastoreInfo); ok && info.Nas != nil {
			out[i].RemoteHost, out[i].RemotePath = info.Nas.RemoteHost, info.Nas.RemotePath
		}
	}
	slices.SortFunc(out, func(a, b backup.SurveyedDatastore) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// surveyProperties are what the doctor wants to know of a VM besides what the inventory shows.
var surveyProperties = []string{
	"name", "config.version", "config.changeTrackingEnabled", "capability.changeTrackingSupported", "snapshot", "runtime.consolidationNeeded", "summary.storage",
}

// surveyVMs reads the VMs: what the inventory shows of them, and the rest.
func (s *Session) surveyVMs(ctx context.Context) ([]backup.SurveyedVM, error) {
	shown, err := s.Inventory(ctx, "")
	if err != nil {
		return nil, err
	}
	var list []mo.VirtualMachine
	if err := s.every(ctx, "VirtualMachine", surveyProperties, &list); err != nil {
		return nil, err
	}
	more := make(map[string]mo.VirtualMachine, len(list))
	for _, m := range list {
		more[m.Self.Value] = m
	}
	attached, err := s.attachedDisks(ctx)
	if err != nil {
		return nil, err
	}
	out, choices := make([]backup.SurveyedVM, 0, len(shown.VMs)), map[string]choice{}
	for _, vm := range shown.VMs {
		m, there := more[vm.MOID]
		if !there {
			continue
		}
		// What a transport reaches depends on the datastores, and on whether the VM is kura's own.
		key := fmt.Sprint(strings.EqualFold(vm.BIOSUUID, s.config.ProxyUUID), vm.Datastores)
		c, known := choices[key]
		if !known {
			c = s.choose(ctx, vm.MOID)
			choices[key] = c
		}
		one := surveyed(vm, m, c)
		one.Attached = attached[vm.MOID]
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b backup.SurveyedVM) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func surveyed(shown backup.VirtualMachine, m mo.VirtualMachine, c choice) backup.SurveyedVM {
	vm := backup.SurveyedVM{VirtualMachine: shown, Transport: c.transport, TransportWhy: c.why,
		TrackingSupported: m.Capability.ChangeTrackingSupported, Consolidation: yes(m.Runtime.ConsolidationNeeded)}
	if m.Config != nil {
		vm.Hardware, vm.TrackingOn = hardwareVersion(m.Config.Version), yes(m.Config.ChangeTrackingEnabled)
	}
	if m.Snapshot != nil {
		vm.Snapshots, vm.SnapshotDepth = snapshotNames(m.Snapshot.RootSnapshotList)
	}
	if m.Summary.Storage != nil {
		vm.Allocated = m.Summary.Storage.Committed
	}
	return vm
}

// choice is the transport that the next backup of a VM would read changes over.
type choice struct {
	transport backup.Transport
	why       string
}

func (s *Session) choose(ctx context.Context, moid string) choice {
	wanted := s.transport()
	if wanted == backup.TransportNFC {
		return choice{wanted, "the vcenter is set so"}
	}
	var lacks []string
	for _, d := range s.directs() {
		if wanted != backup.TransportAuto && wanted != "" && d.name() != wanted {
			continue
		}
		err := d.missing(ctx, moid)
		if err == nil {
			return choice{d.name(), "it can be had, and reads only what has changed"}
		}
		lacks = append(lacks, missingText(err))
	}
	if wanted != backup.TransportAuto && wanted != "" {
		return choice{wanted, "the vcenter is set so, but " + strings.Join(lacks, "; ")}
	}
	return choice{backup.TransportNFC, strings.Join(lacks, "; ")}
}

func missingText(err error) string {
	if e := backup.AsError(err); e != nil {
		return strings.TrimSuffix(e.Message, ".")
	}
	return "see the server's log"
}

// hardwareVersion is 19 of "vmx-19"; 0 where it has another form.
func hardwareVersion(version string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(version, "vmx-")) // another form gives 0
	return n
}

// every reads properties of all objects of a kind. What the account may not see is left out.
func (s *Session) every(ctx context.Context, kind string, properties []string, list any) error {
	found, err := s.survey(ctx, []string{kind}, []types.PropertySpec{{Type: kind, PathSet: properties}})
	if err != nil {
		return err
	}
	for i := range found {
		found[i].MissingSet = nil
	}
	return mo.LoadObjectContent(found, list)
}
