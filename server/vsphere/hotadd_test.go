package vsphere_test

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/vsphere"
)

// proxyVM is the VM in which kura runs in these tests.
const proxyVM = "vm03"

// withProxy is a lab in one of whose VMs the session runs.
func withProxy(t *testing.T, c lab.Config) *rig {
	t.Helper()
	l := newLab(t, c)
	uuid, err := l.MakeProxy(proxyVM)
	if err != nil {
		t.Fatal(err)
	}
	config := quick()
	now := time.Now()
	config.Now = func() time.Time { return now }
	tune := func(c *vsphere.Config) { c.ProxyUUID, c.DeviceWait, c.Devices = uuid, 5*time.Second, opener(l) }
	tune(&config)
	k := connector(t, config)
	s, err := k.Connect(t.Context(), vcenter(l))
	if err != nil {
		t.Fatal(err)
	}
	return &rig{T: t, lab: l, session: s, now: &now, connector: k, tune: tune}
}

// opener is the guest of the proxy.
func opener(l *lab.Lab) vsphere.DeviceOpener {
	return vsphere.DeviceFunc(func(ctx context.Context, d vsphere.Device) (vsphere.OpenDevice, error) {
		return l.OpenDevice(ctx, proxyVM, d.UUID, d.Writable)
	})
}

func (r *rig) snapshot(vm, job string) backup.Snapshot {
	r.Helper()
	snap, err := r.session.CreateSnapshot(r.Context(), r.draft(vm, job))
	r.ok(err)
	return snap
}

func (r *rig) open(snap backup.Snapshot, t backup.Transport) (backup.DiskSource, error) {
	keys := make([]int32, 0, len(snap.Disks))
	for _, d := range snap.Disks {
		keys = append(keys, d.Key)
	}
	return r.session.ReadDisks(r.Context(), snap, backup.ReadDraft{Keys: keys, Transport: t, Areas: true})
}

func areas(list ...backup.Extent) iter.Seq[backup.Extent] { return slices.Values(list) }

// config is a VM's configuration as the vcenter has it.
func (r *rig) config(vm string) types.VirtualMachineConfigInfo {
	r.Helper()
	c, err := govmomi.NewClient(r.Context(), r.lab.URL(), true)
	r.ok(err)
	defer func() { _ = c.Logout(context.WithoutCancel(r.Context())) }()
	var v mo.VirtualMachine
	ref := types.ManagedObjectReference{Type: "VirtualMachine", Value: r.lab.Moid(vm)}
	r.ok(property.DefaultCollector(c.Client).RetrieveOne(r.Context(), ref, []string{"config"}, &v))
	return *v.Config
}

// enlarge lets the first disk of a VM grow.
func (r *rig) enlarge(vm string, capacity int64) {
	r.Helper()
	for _, d := range r.config(vm).Hardware.Device {
		if disk, ok := d.(*types.VirtualDisk); ok {
			disk.CapacityInBytes, disk.CapacityInKB = capacity, capacity/1024
			r.change(vm, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
				&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: disk},
			}})
			return
		}
	}
}

// proxyState is what hangs on the proxy, and what it remembers.
func (r *rig) proxyState() (disks int, record string) {
	r.Helper()
	c := r.config(proxyVM)
	for _, o := range c.ExtraConfig {
		if v := o.GetOptionValue(); v.Key == "kura.attached" {
			record, _ = v.Value.(string)
		}
	}
	for _, d := range c.Hardware.Device {
		if _, ok := d.(*types.VirtualDisk); ok {
			disks++
		}
	}
	return disks, record
}

// wantBare fails unless the proxy has nothing of others, and remembers nothing.
func (r *rig) wantBare(own int) {
	r.Helper()
	if disks, record := r.proxyState(); disks != own || record != "" {
		r.Errorf("the proxy has %d disks and remembers %q, want its own %d and nothing", disks, record, own)
	}
}

// seed:N6
func TestHotAddReadsTheDiskAtTheSnapshotsInstant(t *testing.T) {
	r := withProxy(t, small())
	own, _ := r.proxyState()
	want := map[int32]string{}
	for _, d := range r.vm("vm02").Disks {
		want[d.Key] = r.guestSum("vm02", d.Key)
	}
	snap := r.snapshot("vm02", "j1")
	for _, d := range snap.Disks {
		r.scribble("vm02", d.Key, 7)
	}
	src, err := r.open(snap, backup.TransportHotAdd)
	r.ok(err)
	if disks, record := r.proxyState(); disks != own+len(snap.Disks) || !strings.Contains(record, snap.Name) {
		t.Errorf("while it reads, the proxy has %d disks and remembers %q", disks, record)
	}
	for _, d := range snap.Disks {
		c := &canvas{b: make([]byte, d.Capacity)}
		n, err := src.ReadDisk(t.Context(), d.Key, c)
		r.ok(err)
		if n != d.Capacity || sum(c.b) != want[d.Key] {
			t.Errorf("%s: %d bytes that differ from the disk at the snapshot", d.Label, n)
		}
	}
	if src.Transport() != backup.TransportHotAdd || !src.CanReadAreas() {
		t.Errorf("transport %s, areas %v", src.Transport(), src.CanReadAreas())
	}
	r.ok(src.Close(t.Context()))
	r.wantBare(own)
	r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
	if got := r.vm("vm02").Snapshots; len(got) != 0 {
		t.Errorf("snapshots left: %v", got)
	}
}

func TestHotAddReadsExactlyTheAreasThatAreAskedFor(t *testing.T) {
	r := withProxy(t, small())
	snap := r.snapshot("vm01", "j1")
	d := snap.Disks[0]
	src, err := r.open(snap, backup.TransportAuto)
	r.ok(err)
	defer func() { r.ok(src.Close(t.Context())) }()
	whole := &canvas{b: make([]byte, d.Capacity)}
	_, err = src.ReadDisk(t.Context(), d.Key, whole)
	r.ok(err)
	list := []backup.Extent{{Off: 0, N: 65536}, {Off: 1<<20 - 65536, N: 3<<20 + 4096}, {Off: d.Capacity - 65536, N: 65536}}
	before, _ := r.lab.DeviceTraffic()
	c := &canvas{b: make([]byte, d.Capacity)}
	n, err := src.ReadAreas(t.Context(), d.Key, areas(list...), c)
	r.ok(err)
	after, _ := r.lab.DeviceTraffic()
	want := make([]byte, d.Capacity)
	var total int64
	for _, a := range list {
		copy(want[a.Off:a.Off+a.N], whole.b[a.Off:a.Off+a.N])
		total += a.N
	}
	if n != total || after-before != total {
		t.Errorf("read %d bytes, %d from the device, want %d", n, after-before, total)
	}
	if sum(c.b) != sum(want) {
		t.Error("what was read is not what lies in those areas")
	}
	for name, bad := range map[string][]backup.Extent{
		"outside": {{Off: d.Capacity - 512, N: 1024}}, "backwards": {{Off: 4096, N: 512}, {Off: 0, N: 512}},
	} {
		if _, err := src.ReadAreas(t.Context(), d.Key, areas(bad...), c); err == nil {
			t.Errorf("areas %s were read", name)
		}
	}
}

func TestAutoTakesHotAddForAreasAndTheStreamForWholeDisks(t *testing.T) {
	r := withProxy(t, small())
	for vm, want := range map[string][2]backup.Transport{
		"vm01":  {backup.TransportHotAdd, backup.TransportNFC},
		proxyVM: {backup.TransportNFC, backup.TransportNFC}, // kura's own VM is never its own target
	} {
		snap := r.snapshot(vm, "j1")
		for i, areas := range []bool{true, false} {
			src, err := r.session.ReadDisks(t.Context(), snap, backup.ReadDraft{Keys: []int32{snap.Disks[0].Key}, Areas: areas})
			r.ok(err)
			if src.Transport() != want[i] {
				t.Errorf("%s, areas %v: %s, want %s", vm, areas, src.Transport(), want[i])
			}
			r.ok(src.Close(t.Context()))
		}
		r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
	}
}

func TestKurasOwnVMIsReadByNFCNeverOverwrittenAndNamed(t *testing.T) {
	r := withProxy(t, small())
	other := r.snapshot("vm02", "other")
	src, err := r.open(other, backup.TransportHotAdd) // while it has disks of another
	r.ok(err)
	change, err := r.session.Inventory(t.Context(), "")
	r.ok(err)
	for _, v := range change.VMs {
		if own := len(v.Warnings) == 1 && strings.Contains(v.Warnings[0], "This server runs in the VM"); own != (v.Name == proxyVM) {
			t.Errorf("%s has the warnings %q", v.Name, v.Warnings)
		}
		if v.Name == proxyVM && len(v.Disks) != len(r.vm("vm01").Disks) {
			t.Errorf("it shows %d disks, those of another among them", len(v.Disks))
		}
	}
	img := r.take(proxyVM, "own")
	r.ok(src.Close(t.Context()))
	r.wantDisks(proxyVM, img)
	own := r.snapshot(proxyVM, "j1")
	src, err = r.open(own, backup.TransportHotAdd)
	r.ok(err)
	if src.Transport() != backup.TransportNFC || len(own.Disks) != len(img.disks) {
		t.Errorf("it is read by %s, and its snapshot has %d disks", src.Transport(), len(own.Disks))
	}
	r.ok(src.Close(t.Context()))
	r.ok(r.session.RemoveSnapshot(t.Context(), own.MOID, own.Name))
	_, err = r.level(img, proxyVM, "r1", backup.SafetyNone)
	wantCode(t, err, backup.PreflightFailed)
	if got := r.vm(proxyVM).PowerState; got != "poweredOn" {
		t.Errorf("it is %s", got)
	}
}

func TestAHotAddThatCannotBeHadSaysWhatIsMissing(t *testing.T) {
	l := newLab(t, small())
	uuid, err := l.MakeProxy(proxyVM)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*vsphere.Config)
		want   string
	}{
		"no opener":  {func(c *vsphere.Config) { c.Devices = nil }, "cannot open the disks"},
		"no uuid":    {func(c *vsphere.Config) { c.ProxyUUID = "" }, "proxy_uuid"},
		"elsewhere":  {func(c *vsphere.Config) { c.ProxyUUID = "00000000-0000-0000-0000-000000000001" }, "No VM of"},
		"uuids hide": {func(c *vsphere.Config) { c.ProxyUUID = biosUUID(t, l, "vm04") }, "disk.EnableUUID"},
	} {
		t.Run(name, func(t *testing.T) {
			config := quick()
			config.ProxyUUID, config.Devices = uuid, opener(l)
			c.change(&config)
			s, err := connector(t, config).Connect(t.Context(), vcenter(l))
			if err != nil {
				t.Fatal(err)
			}
			r := &rig{T: t, lab: l, session: s}
			snap := r.snapshot("vm01", "j1")
			_, err = r.open(snap, backup.TransportHotAdd)
			e := wantCode(t, err, backup.PreflightFailed)
			if !strings.Contains(strings.ToLower(e.Message), strings.ToLower(c.want)) || e.Field != "transport" {
				t.Errorf("%s: %s, want %q", e.Field, e.Message, c.want)
			}
			src, err := r.open(snap, backup.TransportAuto)
			r.ok(err)
			if src.Transport() != backup.TransportNFC {
				t.Errorf("auto took %s", src.Transport())
			}
			r.ok(src.Close(t.Context()))
			r.ok(r.session.RemoveSnapshot(t.Context(), snap.MOID, snap.Name))
		})
	}
}

func biosUUID(t *testing.T, l *lab.Lab, vm string) string {
	t.Helper()
	r := &rig{T: t, lab: l}
	s, err := connector(t, quick()).Connect(t.Context(), vcenter(l))
	r.ok(err)
	m, err := s.Machine(t.Context(), l.Moid(vm))
	r.ok(err)
	return m.BIOSUUID
}

func TestADiskIsOpenedByTheIdThatItsGuestShows(t *testing.T) {
	dir := t.TempDir()
	id := "6000C297-a1b2-c3d4-e5f6-0123456789ab"
	name := filepath.Join(dir, "wwn-0x6000c297a1b2c3d4e5f60123456789ab")
	if _, err := (vsphere.ByID{Dir: dir}).OpenDevice(t.Context(), vsphere.Device{UUID: id}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a disk that is not there: %v, want fs.ErrNotExist", err)
	}
	if err := os.WriteFile(name, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, writable := range []bool{false, true} {
		dev, err := vsphere.ByID{Dir: dir}.OpenDevice(t.Context(), vsphere.Device{UUID: id, Writable: writable})
		if err != nil {
			t.Fatal(err)
		}
		if size, err := dev.Size(); err != nil || size != 8192 {
			t.Errorf("Size() = %d, %v", size, err)
		}
		if _, err := dev.WriteAt([]byte("x"), 4096); (err == nil) != writable {
			t.Errorf("writable %v: WriteAt() = %v", writable, err)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "../../../etc/passwd", "6000C297"} {
		if _, err := (vsphere.ByID{Dir: dir}).OpenDevice(t.Context(), vsphere.Device{UUID: bad}); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v, want that it is no UUID", bad, err)
		}
	}
}
