package vsphere_test

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// with lets fn change the lab as an administrator does.
func (r *rig) with(fn func(ctx context.Context, c *govmomi.Client, vm *object.VirtualMachine) error, of string) {
	r.Helper()
	c, err := govmomi.NewClient(r.Context(), r.lab.URL(), true)
	r.ok(err)
	defer func() { _ = c.Logout(context.WithoutCancel(r.Context())) }()
	r.ok(fn(r.Context(), c, object.NewVirtualMachine(c.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: r.lab.Moid(of)})))
}

// facts are what a vsphere_virtual_machine of Terraform reads of a VM's disks:
// it knows them by UUID, label and place, and plans a change when another of
// these differs.
func (r *rig) facts(vm string) (out []string) {
	r.Helper()
	for _, d := range r.devices(vm) {
		disk, ok := d.(*types.VirtualDisk)
		if !ok {
			continue
		}
		b := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		shares := "none"
		if disk.StorageIOAllocation != nil && disk.StorageIOAllocation.Shares != nil {
			shares = fmt.Sprint(*disk.StorageIOAllocation.Shares)
		}
		scrub := b.EagerlyScrub != nil && *b.EagerlyScrub
		out = append(out, fmt.Sprint(b.Uuid, " ", disk.DeviceInfo.GetDescription().Label, " key ", disk.Key, " at ", disk.ControllerKey, ":", *disk.UnitNumber, " of ", disk.CapacityInBytes,
			" in ", path.Dir(b.FileName), " ", b.DiskMode, " ", b.Sharing, " thin ", *b.ThinProvisioned, " scrubbed ", scrub, " shares ", shares))
	}
	return out
}

// seed:N12
func TestWhatTerraformKnowsAVMsDisksByIsAsItWas(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	disk := r.devices("vm02").FindByKey(2001).(*types.VirtualDisk)
	b := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	b.ThinProvisioned, b.EagerlyScrub, b.Sharing = types.NewBool(false), types.NewBool(true), "sharingNone"
	disk.StorageIOAllocation = &types.StorageIOAllocationInfo{Shares: &types.SharesInfo{Shares: 4000, Level: types.SharesLevelCustom}}
	r.change("vm02", types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{Operation: "edit", Device: disk}}})
	img := r.take("vm02", "b1")
	was := r.facts("vm02")
	if len(was) != 2 || !strings.Contains(was[1], "thin false scrubbed true shares {{} 4000") {
		t.Fatalf("the VM's disks are %q", was)
	}
	r.scribble("vm02", 2000, 3)
	_, _, err := r.overwrite(img, "vm02", "r1", backup.RestoreInPlace{})
	r.ok(err)
	if is := r.facts("vm02"); !slices.Equal(is, was) {
		t.Errorf("the disks became\n%s\nwant\n%s", strings.Join(is, "\n"), strings.Join(was, "\n"))
	}
	_, err = r.putDisk(img, "vm02", "r2", replace("Hard disk 2"))
	r.ok(err)
	if is := r.facts("vm02"); !slices.Equal(is, was) {
		t.Errorf("after one was replaced the disks are\n%s\nwant\n%s", strings.Join(is, "\n"), strings.Join(was, "\n"))
	}
	r.sameDisks(img, "vm02")
}

// cards are the states of a VM's network cards.
func (r *rig) cards(vm string) (out []string) {
	r.Helper()
	for _, d := range r.devices(vm) {
		if e, ok := d.(types.BaseVirtualEthernetCard); ok {
			c := e.GetVirtualEthernetCard()
			out = append(out, fmt.Sprintf("%T %d start %t guest %t connected %t", d, c.Key, c.Connectable.StartConnected, c.Connectable.AllowGuestControl, c.Connectable.Connected))
		}
	}
	return out
}

// seed:N13 seed:N84
func TestANetworkCardComesBackAsConnectedAsItWas(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.SetPower(t.Context(), "vm02", false))
	connect := func(on bool) {
		card := r.devices("vm02").SelectByType((*types.VirtualEthernetCard)(nil))[0]
		card.GetVirtualDevice().Connectable = &types.VirtualDeviceConnectInfo{StartConnected: on, AllowGuestControl: on, Connected: on}
		r.change("vm02", types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{Operation: "edit", Device: card}}})
	}
	connect(false)
	img, was := r.take("vm02", "b1"), r.cards("vm02")
	connect(true)
	if is := r.cards("vm02"); slices.Equal(is, was) {
		t.Fatalf("the card is still %q", is)
	}
	_, messages, err := r.overwrite(img, "vm02", "r1", backup.RestoreInPlace{})
	r.ok(err)
	if is := r.cards("vm02"); !slices.Equal(is, was) {
		t.Errorf("in place the card became %q, want %q (%q)", is, was, messages)
	}
	done, err := r.restore(img, "r2", backup.RestoreNewVM{Name: "copy"})
	r.ok(err)
	if is := r.cards(done.MOID); !slices.Equal(is, was) {
		t.Errorf("the new VM's card is %q, want %q", is, was)
	}
}

// described is what a VM is besides its hardware.
func (r *rig) described(vm string) string {
	r.Helper()
	m := r.machine(vm)
	var v mo.VirtualMachine
	var values []string
	r.with(func(ctx context.Context, c *govmomi.Client, o *object.VirtualMachine) error {
		if err := o.Properties(ctx, o.Reference(), []string{"customValue", "config.annotation", "config.bootOptions"}, &v); err != nil {
			return err
		}
		for _, f := range v.CustomValue {
			values = append(values, f.(*types.CustomFieldStringValue).Value)
		}
		return nil
	}, vm)
	var order []string
	for _, b := range v.Config.BootOptions.BootOrder {
		order = append(order, fmt.Sprintf("%T", b))
	}
	return fmt.Sprintf("values %q note %q boots %q nvram %x tags %v", values, v.Config.Annotation, order, m.NVRAM, m.Tags)
}

func TestWhatDescribesAVMComesBackWithIt(t *testing.T) {
	r := setup(t, small())
	r.ok(r.lab.SetPower(t.Context(), "vm03", false))
	describe := func(value, note string, nvram byte, boot ...types.BaseVirtualMachineBootOptionsBootableDevice) {
		r.change("vm03", types.VirtualMachineConfigSpec{Annotation: note, BootOptions: &types.VirtualMachineBootOptions{BootOrder: boot}})
		r.with(func(ctx context.Context, c *govmomi.Client, o *object.VirtualMachine) error {
			m, err := object.GetCustomFieldsManager(c.Client)
			if err != nil {
				return err
			}
			key, err := m.FindKey(ctx, "owner")
			if err != nil {
				def, err := m.Add(ctx, "owner", "VirtualMachine", nil, nil)
				if err != nil {
					return err
				}
				key = def.Key
			}
			if err := m.Set(ctx, o.Reference(), key, value); err != nil {
				return err
			}
			ds, err := find.NewFinder(c.Client).Datastore(ctx, "/DC0/datastore/"+r.machine("vm03").Datastores[0])
			if err != nil {
				return err
			}
			upload := soap.DefaultUpload
			upload.ContentLength = 8
			return ds.Upload(ctx, bytes.NewReader(bytes.Repeat([]byte{nvram}, 8)), "vm03/vm03.nvram", &upload)
		}, "vm03")
	}
	disk := &types.VirtualMachineBootOptionsBootableDiskDevice{DeviceKey: 2000}
	describe("erp team", "keeps the books", 1, disk, &types.VirtualMachineBootOptionsBootableCdromDevice{})
	img, was := r.take("vm03", "b1"), r.described("vm03")
	if !strings.Contains(was, "erp team") || !strings.Contains(was, "0101010101010101") || !strings.Contains(was, "gold") {
		t.Fatalf("the VM is described as %s", was)
	}
	describe("nobody", "is new", 2, disk)
	_, messages, err := r.overwrite(img, "vm03", "r1", backup.RestoreInPlace{})
	r.ok(err)
	if is := r.described("vm03"); is != was {
		t.Errorf("the VM became\n%s\nwant\n%s (%q)", is, was, messages)
	}
}
