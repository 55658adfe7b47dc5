package lab_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/nfc"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
)

const (
	mib      = 1 << 20
	diskSize = 16 * mib
)

// env is a client of a lab.
type env struct {
	*lab.Lab
	t   testing.TB
	ctx context.Context
	c   *govmomi.Client
	f   *find.Finder
}

func start(t testing.TB, c lab.Config) *env {
	t.Helper()
	if c.DiskSize == 0 {
		c.DiskSize = diskSize
	}
	if c.VMs == 0 {
		c.VMs = 3
	}
	l, err := lab.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	e := &env{Lab: l, t: t, ctx: t.Context()}
	e.login()
	return e
}

func (e *env) login() {
	e.t.Helper()
	s := soap.NewClient(e.URL(), false)
	s.SetThumbprint(e.URL().Host, e.Thumbprint())
	c, err := newClient(e.ctx, s, e.URL().User.Username(), e.Password())
	if err != nil {
		e.t.Fatalf("log in: %v", err)
	}
	e.c = c
	e.f = find.NewFinder(c.Client)
	dc, err := e.f.DefaultDatacenter(e.ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	e.f.SetDatacenter(dc)
}

func (e *env) vm(name string) *object.VirtualMachine {
	e.t.Helper()
	v, err := e.VM(name)
	if err != nil {
		e.t.Fatal(err)
	}
	return object.NewVirtualMachine(e.c.Client, v.Reference())
}

// ok waits for a task that must succeed.
func (e *env) ok(t *object.Task, err error) *types.TaskInfo {
	e.t.Helper()
	info, err := wait(e.ctx, t, err)
	if err != nil {
		e.t.Fatalf("%v", err)
	}
	return info
}

func wait(ctx context.Context, t *object.Task, err error) (*types.TaskInfo, error) {
	if err != nil {
		return nil, err
	}
	return t.WaitForResult(ctx, nil)
}

func (e *env) snapshot(vm *object.VirtualMachine, name string) types.ManagedObjectReference {
	e.t.Helper()
	return e.ok(vm.CreateSnapshot(e.ctx, name, "", false, false)).Result.(types.ManagedObjectReference)
}

func (e *env) disks(o mo.Reference) (list []*types.VirtualDisk) {
	e.t.Helper()
	var devices object.VirtualDeviceList
	pc := property.DefaultCollector(e.c.Client)
	if o.Reference().Type == "VirtualMachineSnapshot" {
		var s mo.VirtualMachineSnapshot
		if err := pc.RetrieveOne(e.ctx, o.Reference(), []string{"config.hardware.device"}, &s); err != nil {
			e.t.Fatal(err)
		}
		devices = s.Config.Hardware.Device
	} else {
		var v mo.VirtualMachine
		if err := pc.RetrieveOne(e.ctx, o.Reference(), []string{"config.hardware.device"}, &v); err != nil {
			e.t.Fatal(err)
		}
		devices = v.Config.Hardware.Device
	}
	for _, d := range devices.SelectByType((*types.VirtualDisk)(nil)) {
		list = append(list, d.(*types.VirtualDisk))
	}
	return list
}

func backing(d *types.VirtualDisk) *types.VirtualDiskFlatVer2BackingInfo {
	return d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
}

// sum is the checksum of a VM's disk as the guest sees it.
func (e *env) sum(vm string, key int32) string {
	e.t.Helper()
	s, err := e.DiskSHA256(e.ctx, vm, key)
	if err != nil {
		e.t.Fatal(err)
	}
	return s
}

func (e *env) guestWrite(vm string, key int32, off, length int64, seed uint64) {
	e.t.Helper()
	if err := e.GuestWriteRandom(vm, key, off, length, seed); err != nil {
		e.t.Fatal(err)
	}
}

func sha(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// export reads the disks of a snapshot over a lease, in the lease's order.
func (e *env) export(vm *object.VirtualMachine, s types.ManagedObjectReference) (disks [][]byte, err error) {
	le, err := vm.ExportSnapshot(e.ctx, &s)
	if err != nil {
		return nil, err
	}
	info, err := le.Wait(e.ctx, nil)
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for _, item := range info.Items {
		h := sha1.New()
		rc, _, err := e.c.Client.Download(e.ctx, item.URL, &soap.Download{Method: http.MethodGet})
		if err != nil {
			return nil, errors.Join(err, le.Abort(e.ctx, nil))
		}
		b, err := decode(io.TeeReader(rc, h))
		rc.Close()
		if err != nil {
			return nil, errors.Join(err, le.Abort(e.ctx, nil))
		}
		disks = append(disks, b)
		sums[item.DeviceId] = hex.EncodeToString(h.Sum(nil))
	}
	entries, err := le.GetManifest(e.ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range entries {
		if sums[m.Key] != m.Sha1 {
			return nil, errors.Join(fmt.Errorf("%s: SHA-1 %s, manifest %s", m.Key, sums[m.Key], m.Sha1), le.Abort(e.ctx, nil))
		}
	}
	if len(entries) != len(info.Items) {
		return nil, fmt.Errorf("%d entries in the manifest of %d disks", len(entries), len(info.Items))
	}
	return disks, le.Complete(e.ctx)
}

func decode(r io.Reader) ([]byte, error) {
	v, err := vmdk.NewReader(r)
	if err != nil {
		return nil, err
	}
	out := make([]byte, v.Capacity())
	for {
		off, grain, err := v.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		copy(out[off:], grain)
	}
}

func encode(b []byte) io.Reader {
	r, w := io.Pipe()
	go func() {
		v, err := vmdk.NewWriter(w, int64(len(b)))
		if err == nil {
			_, err = v.WriteAt(b, 0)
		}
		if err == nil {
			err = v.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

// importSpec is a VM with disks of the given sizes.
func importSpec(name, datastore string, sizes ...int64) *types.VirtualMachineImportSpec {
	var list object.VirtualDeviceList
	scsi, _ := list.CreateSCSIController("pvscsi")
	list = append(list, scsi)
	for i, size := range sizes {
		unit := int32(i)
		list = append(list, &types.VirtualDisk{
			VirtualDevice: types.VirtualDevice{
				Key: -int32(i + 1), ControllerKey: scsi.GetVirtualDevice().Key, UnitNumber: &unit,
				Backing: &types.VirtualDiskFlatVer2BackingInfo{
					DiskMode: "persistent", ThinProvisioned: types.NewBool(true),
					VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: "[" + datastore + "]"},
				},
			},
			CapacityInKB: size / 1024,
		})
	}
	changes, _ := list.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	return &types.VirtualMachineImportSpec{ConfigSpec: types.VirtualMachineConfigSpec{
		Name: name, GuestId: "otherGuest", Version: "vmx-19", NumCPUs: 1, MemoryMB: 64,
		Files: &types.VirtualMachineFileInfo{VmPathName: "[" + datastore + "]"}, DeviceChange: changes,
	}}
}

func (e *env) importLease(spec *types.VirtualMachineImportSpec) (*nfc.Lease, *nfc.LeaseInfo) {
	e.t.Helper()
	pool, err := e.f.ResourcePool(e.ctx, "DC0_C0/Resources")
	if err != nil {
		e.t.Fatal(err)
	}
	folder, err := e.f.DefaultFolder(e.ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	le, err := pool.ImportVApp(e.ctx, spec, folder, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	info, err := le.Wait(e.ctx, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return le, info
}

func (e *env) upload(info *nfc.LeaseInfo, disks ...[]byte) error {
	for i, item := range info.Items {
		// Not lease.Upload: its progress reader panics where the server answers early.
		if err := e.c.Client.Upload(e.ctx, encode(disks[i]), item.URL, &soap.Upload{Method: "POST", Type: "application/x-vnd.vmware-streamVmdk"}); err != nil {
			return err
		}
	}
	return nil
}

// importVM makes a VM of disks' contents, and returns its name's VM.
func (e *env) importVM(name, datastore string, disks ...[]byte) *object.VirtualMachine {
	e.t.Helper()
	sizes := make([]int64, len(disks))
	for i, d := range disks {
		sizes[i] = int64(len(d))
	}
	le, info := e.importLease(importSpec(name, datastore, sizes...))
	if err := e.upload(info, disks...); err != nil {
		e.t.Fatalf("upload: %v", err)
	}
	if err := le.Complete(e.ctx); err != nil {
		e.t.Fatalf("complete: %v", err)
	}
	return object.NewVirtualMachine(e.c.Client, info.Entity)
}

func (e *env) read(vm string, key int32) []byte {
	e.t.Helper()
	r, err := e.DiskReader(vm, key)
	if err != nil {
		e.t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		e.t.Fatal(err)
	}
	return b
}

func TestTheInventoryIsThatOfASmallSite(t *testing.T) {
	e := start(t, lab.Config{VMs: 6})
	list := e.VMs()
	if len(list) != 6 {
		t.Fatalf("%d VMs, want 6", len(list))
	}
	folders, uuids := map[string]bool{}, map[string]bool{}
	for i := range list {
		name := fmt.Sprintf("vm%02d", i+1)
		v, err := e.VM(name)
		if err != nil {
			t.Fatal(err)
		}
		gold := slices.Contains(v.Tags, "backup:gold")
		if gold != ((i+1)%3 == 0) {
			t.Errorf("%s has tags %v, want backup:gold on every third", name, v.Tags)
		}
		if v.PowerState != "poweredOn" || len(v.Disks) != 1+(i%2) || len(v.Snapshots) != 0 {
			t.Errorf("%s: %+v", name, v)
		}
		folders[v.Folder], uuids[v.InstanceUUID] = true, true
	}
	if !folders["/DC0/vm/prod/web"] || !folders["/DC0/vm/test"] || len(uuids) != 6 {
		t.Errorf("folders %v, %d instance UUIDs", folders, len(uuids))
	}
	var vm mo.VirtualMachine
	if err := e.vm("vm02").Properties(e.ctx, e.vm("vm02").Reference(), nil, &vm); err != nil {
		t.Fatal(err)
	}
	if vm.Guest.ToolsRunningStatus != "guestToolsRunning" || vm.Guest.IpAddress == "" {
		t.Errorf("guest %+v", vm.Guest)
	}
	if vm.Summary.Storage.Committed == 0 || vm.Summary.Storage.Committed >= 2*diskSize {
		t.Errorf("committed storage is %d, want that of thin disks of twice %d", vm.Summary.Storage.Committed, diskSize)
	}
	if len(vm.CustomValue) != 2 {
		t.Errorf("custom values %v, want two", vm.CustomValue)
	}
}

func TestAWrongPasswordIsInvalidLogin(t *testing.T) {
	e := start(t, lab.Config{VMs: 1})
	s := soap.NewClient(e.URL(), true)
	_, err := newClient(e.ctx, s, e.User(), "wrong")
	if !fault.Is(err, &types.InvalidLogin{}) {
		t.Errorf("log in with a wrong password: %v, want InvalidLogin", err)
	}
}

func TestAnExpiredSessionIsNotAuthenticated(t *testing.T) {
	e := start(t, lab.Config{VMs: 1})
	if err := e.Arm(lab.Fault{Kind: "session_expire"}); err != nil {
		t.Fatal(err)
	}
	_, err := e.vm("vm01").PowerOff(e.ctx)
	if !fault.Is(err, &types.NotAuthenticated{}) {
		t.Errorf("a call after the session expired: %v, want NotAuthenticated", err)
	}
	res, err := e.folder(http.MethodGet, "LocalDS_1", "vm01/vm01.nvram", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("datastore file without a session: %s, want 401", res.Status)
	}
	e.login()
	e.ok(e.vm("vm01").PowerOff(e.ctx))
}

// folder asks for a datastore file with the session of the client.
func (e *env) folder(method, datastore, file string, body io.Reader) (*http.Response, error) {
	ds, err := e.f.Datastore(e.ctx, datastore)
	if err != nil {
		u := fmt.Sprintf("https://%s/folder/%s?dcPath=DC0&dsName=%s", e.URL().Host, file, datastore)
		return e.do(method, u, body)
	}
	return e.do(method, ds.NewURL(file).String(), body)
}

func (e *env) do(method, url string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(e.ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	return (&http.Client{Transport: e.c.Client.Client.DefaultTransport(), Jar: e.c.Client.Client.Client.Jar}).Do(req)
}

func TestNVRAMIsReadAndWrittenThroughTheDatastore(t *testing.T) {
	e := start(t, lab.Config{VMs: 1})
	var vm mo.VirtualMachine
	if err := e.vm("vm01").Properties(e.ctx, e.vm("vm01").Reference(), []string{"layoutEx"}, &vm); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(vm.LayoutEx.File, func(f types.VirtualMachineFileLayoutExFileInfo) bool { return f.Type == "nvram" })
	if i < 0 || vm.LayoutEx.File[i].Size == 0 {
		t.Fatalf("no NVRAM in %+v", vm.LayoutEx.File)
	}
	var p object.DatastorePath
	p.FromString(vm.LayoutEx.File[i].Name)
	get := func() []byte {
		res, err := e.folder(http.MethodGet, p.Datastore, p.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: %s, %v", p, res.Status, err)
		}
		return b
	}
	if b := get(); int64(len(b)) != vm.LayoutEx.File[i].Size || vmdk.IsZero(b) {
		t.Errorf("NVRAM of %d bytes, want %d that are not zero", len(b), vm.LayoutEx.File[i].Size)
	}
	put := func() int {
		res, err := e.folder(http.MethodPut, p.Datastore, p.Path, strings.NewReader("new nvram"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	if code := put(); code == http.StatusCreated {
		t.Error("the NVRAM of a running VM could be written")
	}
	e.ok(e.vm("vm01").PowerOff(e.ctx))
	if code := put(); code != http.StatusCreated {
		t.Errorf("PUT: status %d, want 201", code)
	}
	if b := get(); !bytes.Equal(b, []byte("new nvram")) {
		t.Errorf("NVRAM reads %q after the PUT", b)
	}
}

func TestFreeSpaceShrinksAsDataIsWritten(t *testing.T) {
	e := start(t, lab.Config{VMs: 1, Fill: 0.01, Datastores: 1, DatastoreSize: 1 << 30})
	free := func() int64 {
		var ds mo.Datastore
		d, err := e.f.Datastore(e.ctx, "LocalDS_0")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Properties(e.ctx, d.Reference(), []string{"summary"}, &ds); err != nil {
			t.Fatal(err)
		}
		return ds.Summary.FreeSpace
	}
	before := free()
	e.guestWrite("vm01", 0, 4*mib, 4*mib, 7)
	if got := before - free(); got != 4*mib {
		t.Errorf("4 MiB written took %d bytes", got)
	}
	if err := e.RemoveVM(e.ctx, "vm01"); err != nil {
		t.Fatal(err)
	}
	if got := free(); got != 1<<30 {
		t.Errorf("after the VM's removal %d bytes are free, want all", got)
	}
}

func TestTwoLabsHaveNothingInCommon(t *testing.T) {
	a, b := start(t, lab.Config{VMs: 2}), start(t, lab.Config{VMs: 2})
	if a.UUID() == b.UUID() || a.Thumbprint() == b.Thumbprint() {
		t.Error("two labs share their UUID or their certificate")
	}
	if a.c.ServiceContent.About.InstanceUuid != a.UUID() {
		t.Errorf("about.instanceUuid is %s, want %s", a.c.ServiceContent.About.InstanceUuid, a.UUID())
	}
	x, _ := a.VM("vm01")
	y, _ := b.VM("vm01")
	if x.InstanceUUID == y.InstanceUUID {
		t.Error("VMs of two labs share their instance UUID")
	}
	if a.sum("vm01", 0) != b.sum("vm01", 0) {
		t.Error("labs of one seed have different disks")
	}
	if a.sum("vm01", 0) == a.sum("vm02", 0) {
		t.Error("two VMs have the same disk")
	}
}

// consolidate runs ConsolidateVMDisks, for which govmomi has no method.
func (e *env) consolidate(vm *object.VirtualMachine) error {
	r, err := methods.ConsolidateVMDisks_Task(e.ctx, e.c, &types.ConsolidateVMDisks_Task{This: vm.Reference()})
	if err != nil {
		return err
	}
	_, err = wait(e.ctx, object.NewTask(e.c.Client, r.Returnval), nil)
	return err
}
