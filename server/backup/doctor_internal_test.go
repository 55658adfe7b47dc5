package backup

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var doctorNow = time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC)

// healthy is a vcenter that nothing is amiss with, and its survey.
func healthy() (VCenter, Survey) {
	v := VCenter{Meta: Meta{ID: "vc"}, Name: "tokyo", Username: "kura", InstanceUUID: "u", SyncState: SyncReady, SyncedAt: doctorNow.Add(-time.Minute)}.Defaulted()
	s := Survey{
		Endpoint: "vc.example.com", InstanceUUID: "u", APIVersion: "8.0.3.0", Product: "vCenter",
		Certificate: SurveyedCertificate{Thumbprint: "AA", Trust: "ca", NotAfter: doctorNow.AddDate(1, 0, 0)},
		Clock:       SurveyedClock{Read: true, Ahead: time.Second, Give: time.Millisecond},
		Hosts:       []SurveyedHost{{Name: "esx1", Address: "esx1:443", State: "connected", Clock: SurveyedClock{Read: true}}},
		Datastores:  []SurveyedDatastore{{Name: "ds1", Capacity: 1 << 40, Free: 1 << 39, Accessible: true}},
	}
	for i := range 3 {
		s.VMs = append(s.VMs, SurveyedVM{
			VirtualMachine: VirtualMachine{MOID: fmt.Sprintf("vm-%d", i), InstanceUUID: fmt.Sprint(i), BIOSUUID: fmt.Sprintf("bios-%d", i), Name: fmt.Sprintf("vm%d", i), Host: "esx1", Datastores: []string{"ds1"}, MemoryMiB: 1024,
				Disks: []VMDisk{{Key: 2000, Label: "Hard disk 1", Capacity: 100 << 30, File: "[ds1] vm/vm.vmdk"}}},
			Hardware: 19, TrackingSupported: true, TrackingOn: true, Allocated: 50 << 30, Transport: TransportNFC,
		})
	}
	return v, s
}

// examined is what the doctor says of it.
func examined(v VCenter, s Survey) []Finding {
	var f findings
	f.examineVCenter(v, s, doctorNow)
	if s.Problem == nil {
		f.examineHosts(s)
		f.examineDatastores(v, s)
		f.examineVMs(s, "ours")
	}
	return f.sorted()
}

func TestNothingIsAmissWithAVCenterThatIsWell(t *testing.T) {
	v, s := healthy()
	for _, f := range examined(v, s) {
		if f.Severity != FindingOK || f.Seen == "" {
			t.Errorf("finding = %+v, want that all is well", f)
		}
	}
}

func TestTheDoctorFindsWhatIsAmiss(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*VCenter, *Survey)
		check  string
		want   Severity
		says   string // a part of what was seen
	}{
		"nobody answers": {func(_ *VCenter, s *Survey) {
			s.Problem, s.Certificate = Errorf(VCenterUnreachable, "", "vc.example.com did not answer."), SurveyedCertificate{}
		}, "vcenter.reachable", FindingError, "did not answer"},
		"the cause is not for users": {func(_ *VCenter, s *Survey) { s.Problem = errors.New("insides") }, "vcenter.reachable", FindingError, "There is no session"},
		"a certificate of nobody":    {func(_ *VCenter, s *Survey) { s.Certificate.Trust = "" }, "vcenter.certificate", FindingError, "AA"},
		"a certificate for 20 days":  {func(_ *VCenter, s *Survey) { s.Certificate.NotAfter = doctorNow.AddDate(0, 0, 20) }, "vcenter.certificate", FindingWarning, "20 days are left"},
		"a certificate for a day":    {func(_ *VCenter, s *Survey) { s.Certificate.NotAfter = doctorNow.AddDate(0, 0, 1) }, "vcenter.certificate", FindingError, "1 day"},
		"an old one that is pinned": {func(_ *VCenter, s *Survey) {
			s.Certificate.NotAfter, s.Certificate.Trust = doctorNow.AddDate(0, 0, -1), "pinned"
		}, "vcenter.certificate", FindingWarning, "2026-11-30"},
		"a clock a minute ahead":           {func(_ *VCenter, s *Survey) { s.Clock.Ahead = time.Minute }, "vcenter.clock", FindingWarning, "1m0s ahead of"},
		"a clock an hour behind":           {func(_ *VCenter, s *Survey) { s.Clock.Ahead = -time.Hour }, "vcenter.clock", FindingError, "1h0m0s behind"},
		"a host's clock":                   {func(_ *VCenter, s *Survey) { s.Hosts[0].Clock.Ahead = time.Minute }, "host.clock", FindingWarning, "esx1"},
		"vSphere 6.7":                      {func(_ *VCenter, s *Survey) { s.APIVersion = "6.7.3" }, "vcenter.version", FindingWarning, "6.7.3"},
		"vSphere 6.0":                      {func(_ *VCenter, s *Survey) { s.APIVersion = "6.0" }, "vcenter.version", FindingError, "6.0"},
		"another vCenter":                  {func(_ *VCenter, s *Survey) { s.InstanceUUID = "w" }, "vcenter.identity", FindingError, "it was u"},
		"an inventory of yesterday":        {func(v *VCenter, _ *Survey) { v.SyncedAt = doctorNow.AddDate(0, 0, -1) }, "vcenter.inventory", FindingWarning, "2026-11-30"},
		"an inventory that was never read": {func(v *VCenter, _ *Survey) { v.SyncedAt = time.Time{} }, "vcenter.inventory", FindingWarning, "not read yet"},
		"a sync that failed":               {func(v *VCenter, _ *Survey) { v.SyncState, v.SyncError = SyncFailed, "No." }, "vcenter.inventory", FindingError, "No."},
		"a privilege on one VM": {func(_ *VCenter, s *Survey) {
			s.Privileges = []PrivilegeMissing{{Privilege: Privilege{ID: "A.B", For: "x"}, Objects: []string{"vm1"}, Looked: 3}}
		}, "vcenter.privileges", FindingError, "lacks A.B on vm1"},
		"a privilege that few need": {func(_ *VCenter, s *Survey) {
			s.Privileges = []PrivilegeMissing{{Privilege: Privilege{ID: "A.B", For: "x", Optional: true}, Objects: []string{"vm1"}, Looked: 1}}
		}, "vcenter.privileges", FindingWarning, "everywhere"},
		"what was not read":        {func(_ *VCenter, s *Survey) { s.Unread = []string{"It was not read."} }, "vcenter.unread", FindingWarning, "not read"},
		"a host that is gone":      {func(_ *VCenter, s *Survey) { s.Hosts[0].State = "notResponding" }, "host.state", FindingError, "notResponding"},
		"a host behind a wall":     {func(_ *VCenter, s *Survey) { s.Hosts[0].Problem = "refused" }, "host.reachable", FindingError, "esx1:443"},
		"a host in maintenance":    {func(_ *VCenter, s *Survey) { s.Hosts[0].Maintenance = true }, "host.maintenance", FindingWarning, "esx1"},
		"a datastore away":         {func(_ *VCenter, s *Survey) { s.Datastores[0].Accessible = false }, "datastore.accessible", FindingError, "ds1"},
		"no room for one snapshot": {func(_ *VCenter, s *Survey) { s.Datastores[0].Free = 10 << 30 }, "datastore.space", FindingError, "vm0, vm1 and vm2"},
		"no room for all of them":  {func(_ *VCenter, s *Survey) { s.Datastores[0].Free = 50 << 30 }, "datastore.space", FindingWarning, "the 3 snapshots"},
		"disks to consolidate":     {func(_ *VCenter, s *Survey) { s.VMs[1].Consolidation = true }, "vm.consolidation", FindingError, "1 VM needs its disks consolidated: vm1."},
		"a deep chain":             {func(_ *VCenter, s *Survey) { s.VMs[1].SnapshotDepth = 31 }, "vm.chain", FindingError, "1 VM has a chain"},
		"snapshots of others": {func(_ *VCenter, s *Survey) {
			s.VMs[0].Snapshots, s.VMs[0].SnapshotDepth = []string{"kura:ours:j:1", "mine"}, 2
		}, "vm.snapshots", FindingWarning, "vm0"},
		"no disk fit":                 {func(_ *VCenter, s *Survey) { s.VMs[2].Disks[0].Unprotectable = "no" }, "vm.unprotectable", FindingError, "vm2"},
		"some disks unfit":            {func(_ *VCenter, s *Survey) { s.VMs[2].Disks = append(s.VMs[2].Disks, VMDisk{Unprotectable: "no"}) }, "vm.partial", FindingWarning, "vm2"},
		"hardware that cannot track":  {func(_ *VCenter, s *Survey) { s.VMs[0].TrackingOn, s.VMs[0].Hardware = false, 4 }, "vm.tracking", FindingWarning, "cannot track"},
		"snapshots keep tracking off": {func(_ *VCenter, s *Survey) { s.VMs[0].TrackingOn, s.VMs[0].SnapshotDepth = false, 1 }, "vm.tracking", FindingWarning, "not track changed blocks"},
		"disks of others on it":       {func(_ *VCenter, s *Survey) { s.VMs[2].Attached = 2 }, "vm.attached", FindingWarning, "vm2"},
		"twins":                       {func(_ *VCenter, s *Survey) { s.VMs[0].InstanceUUID = s.VMs[1].InstanceUUID }, "vm.twin", FindingWarning, "vm0 and vm1"},
	} {
		v, s := healthy()
		c.change(&v, &s)
		all := examined(v, s)
		i := slices.IndexFunc(all, func(f Finding) bool { return f.Check == c.check && f.Severity == c.want })
		if i < 0 || !strings.Contains(all[i].Seen, c.says) {
			t.Errorf("%s: %+v; want %s of %s that says %q", name, all, c.want, c.check, c.says)
			continue
		}
		if all[i].Why == "" || all[i].Remedy == "" || all[0].Severity == FindingOK {
			t.Errorf("%s: %+v; want why and what to do, and the worst first", name, all[i])
		}
	}
}

func TestARepositoryOnADatastoreThatItProtectsIsAnError(t *testing.T) {
	for name, c := range map[string]struct {
		lies    StoragePlace
		machine string
		change  func(*Survey)
		want    string // a part of what was seen; "" = nothing is
	}{
		"on a disk of a machine that is no VM":  {StoragePlace{}, "other", nil, ""},
		"on a disk of the VM that kura runs in": {StoragePlace{}, "bios-1", nil, "this server runs in the VM vm1"},
		"in a VM, told by its address":          {StoragePlace{Host: "nas", Addresses: []string{"10.0.0.7"}}, "", func(s *Survey) { s.VMs[2].NICs = []VMNIC{{IPs: []string{"10.0.0.7"}}} }, "nas is the VM vm2"},
		"on the export that is a datastore":     {StoragePlace{Host: "filer", RemotePath: "/vol/one/kura"}, "", func(s *Survey) { s.Datastores[0].RemoteHost, s.Datastores[0].RemotePath = "filer", "/vol/one" }, "filer:/vol/one"},
		"on another export of that host":        {StoragePlace{Host: "filer", RemotePath: "/vol/onely"}, "", func(s *Survey) { s.Datastores[0].RemoteHost, s.Datastores[0].RemotePath = "filer", "/vol/one" }, ""},
		"somewhere else":                        {StoragePlace{Host: "s3.example.com", Addresses: []string{"192.0.2.1"}}, "bios-1", nil, ""},
	} {
		_, s := healthy()
		if c.change != nil {
			c.change(&s)
		}
		var f findings
		f.examinePlace(RepositoryRecord{Name: "r"}, c.lies, s, c.machine)
		switch {
		case c.want == "" && len(f.all) > 0:
			t.Errorf("%s: %+v, want nothing", name, f.all)
		case c.want != "" && (len(f.all) != 1 || f.all[0].Severity != FindingError || !strings.Contains(f.all[0].Seen, c.want)):
			t.Errorf("%s: %+v, want an error that says %q", name, f.all, c.want)
		}
	}
	if !sameMachine("4215F0AA-0b61-7b10-2c56-9c0e2a1d3f44", "aaf01542-610b-107b-2c56-9c0e2a1d3f44") || sameMachine("", "") {
		t.Error("a UUID with its bytes the other way round is the same machine, none is not")
	}
}

func TestARepositoryIsJudgedByItsSpeedItsSpaceAndItsSheet(t *testing.T) {
	now := doctorNow
	for name, c := range map[string]struct {
		r       RepositoryRecord
		g       Gauged
		problem error
		check   string
		want    Severity
	}{
		"fast":            {RepositoryRecord{SheetAt: now}, Gauged{Bytes: 64 << 20, Write: time.Second, Read: time.Second, Free: 1 << 40}, nil, "repository.speed", FindingOK},
		"slow":            {RepositoryRecord{SheetAt: now}, Gauged{Bytes: 64 << 20, Write: 30 * time.Second, Read: time.Second, Free: 1 << 40}, nil, "repository.speed", FindingWarning},
		"nearly full":     {RepositoryRecord{SheetAt: now, StoredBytes: 1 << 40}, Gauged{Free: 1 << 30}, nil, "repository.space", FindingWarning},
		"without a sheet": {RepositoryRecord{}, Gauged{Free: -1}, nil, "repository.sheet", FindingWarning},
		"away":            {RepositoryRecord{SheetAt: now}, Gauged{}, Errorf(RepositoryUnreachable, "", "Gone."), "repository.reachable", FindingError},
	} {
		var f findings
		f.examineRepository(c.r, Upkeep{}, c.g, c.problem)
		if !slices.ContainsFunc(f.all, func(x Finding) bool { return x.Check == c.check && x.Severity == c.want }) {
			t.Errorf("%s: %+v, want %s of %s", name, f.all, c.want, c.check)
		}
	}
}
