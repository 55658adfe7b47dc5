package vsphere

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// lookMarker is what a restore is planned with that is only looked at.
const lookMarker = "kura:check:check:0"

// CheckRestore implements [backup.VSphereSession]. It makes the restore's own
// plan, so that a look and the restore cannot disagree, and stops there.
func (s *Session) CheckRestore(ctx context.Context, r backup.RestoreCheck, from backup.ImageReader) (backup.RestoreFindings, error) {
	c := check{s: s}
	var err error
	switch {
	case r.NewVM != nil:
		err = c.newVM(ctx, *r.NewVM, from)
	case r.InPlace != nil:
		err = c.inPlace(ctx, backup.OverwriteDraft{Marker: lookMarker, MOID: r.MOID, InPlace: *r.InPlace}, from)
	case r.Disk != nil:
		err = c.disk(ctx, backup.DiskRestoreDraft{Marker: lookMarker, MOID: r.MOID, Disk: *r.Disk}, from)
	}
	return c.found, s.problem("look at the restore", err)
}

// check is one look.
type check struct {
	s     *Session
	found backup.RestoreFindings
}

func (c *check) warn(format string, args ...any) {
	c.found.Warnings = append(c.found.Warnings, fmt.Sprintf(format, args...))
}

func (c *check) newVM(ctx context.Context, n backup.RestoreNewVM, from backup.ImageReader) error {
	p, err := c.s.plan(ctx, backup.ImportDraft{Marker: lookMarker, NewVM: n}, from)
	if err != nil {
		return err
	}
	c.found.IPs = addresses(p.machine.Guest.IPs)
	if n.PreserveIdentity {
		c.found.MACs = macs(p.config)
	}
	for _, m := range p.messages {
		c.warn("Of the VM as it will be: %s", m)
	}
	if p.at.cluster != "" {
		c.warn("The datastore %s is part of the datastore cluster %q, which may move the VM later.", p.at.store.Summary.Name, p.at.cluster)
	}
	c.encrypted(p.config, n.StoragePolicy)
	return c.memory(ctx, p.config, p.at.host, p.at.pool, n.PowerOn, "new_vm.power_on")
}

func (c *check) inPlace(ctx context.Context, d backup.OverwriteDraft, from backup.ImageReader) error {
	o, err := c.s.planOverwrite(ctx, d, from)
	if err != nil {
		return err
	}
	c.of(o)
	c.found.IPs, c.found.MACs = addresses(o.machine.Guest.IPs), macs(o.saved)
	o.hardwareSpec(ctx)
	for _, w := range o.swaps {
		c.size(w)
		if w.old == nil {
			c.warn("%q was taken from the VM after the image; it comes back.", w.image.Label)
		}
	}
	for _, m := range o.messages {
		c.warn("Of the VM as it will be: %s", m)
	}
	c.encrypted(o.saved, "")
	if slices.ContainsFunc(o.vm.Config.Hardware.Device, isTPM) {
		c.warn("The VM keeps what its virtual TPM holds: a guest that has sealed keys with it may ask for its recovery key.")
	}
	return c.memory(ctx, o.saved, deref(o.vm.Runtime.Host), deref(o.vm.ResourcePool), d.InPlace.PowerOn, "in_place.power_on")
}

func (c *check) disk(ctx context.Context, d backup.DiskRestoreDraft, from backup.ImageReader) error {
	o, err := c.s.planDisk(ctx, d, from)
	if err != nil {
		return err
	}
	c.of(o)
	c.size(o.swaps[0])
	c.encrypted(o.saved, "")
	return nil
}

// of notes how the VM stands that is overwritten.
func (c *check) of(o *overwrite) {
	c.found.PowerState = powerState(o.vm.Runtime.PowerState)
	if o.vm.Config.KeyId != nil {
		c.warn("The VM %q is encrypted; the disks that are restored are not. Encrypt them again by its storage policy.", unescapeName(o.vm.Name))
	}
}

// size warns of a disk that has grown since the image.
func (c *check) size(w swap) {
	if w.old == nil {
		return
	}
	if now := capacity(w.old); now > w.image.Capacity {
		c.warn("%s has grown from %s to %s since the image; it will be as small as it was, and what lies behind is lost.", label(w.old), backup.SizeText(w.image.Capacity), backup.SizeText(now))
	}
}

// encrypted names what protects a VM that an image does not carry.
func (c *check) encrypted(then *types.VirtualMachineConfigInfo, policy string) {
	if then.KeyId != nil && policy == "" {
		c.warn("The image's VM was encrypted. Its key is not in the image: what is restored is not encrypted until a storage policy says so.")
	}
}

func isTPM(d types.BaseVirtualDevice) bool {
	_, ok := d.(*types.VirtualTPM)
	return ok
}

// memory looks whether the VM can start where it will be: refused when it is
// to be started, a warning otherwise.
func (c *check) memory(ctx context.Context, config *types.VirtualMachineConfigInfo, host, pool ref, start bool, field string) error {
	need := int64(config.Hardware.MemoryMB) << 20
	var problems []string
	if host != (ref{}) {
		var h mo.HostSystem
		if err := c.s.read(ctx, host, []string{"name", "summary.hardware", "summary.quickStats"}, &h); err != nil {
			return err
		}
		if hw := h.Summary.Hardware; hw != nil && hw.MemorySize > 0 {
			free := hw.MemorySize - int64(h.Summary.QuickStats.OverallMemoryUsage)<<20
			switch {
			case need > hw.MemorySize:
				problems = append(problems, fmt.Sprintf("The VM has %d MiB of memory and the host %s has %d MiB in all: choose another host, or make the VM smaller.", need>>20, h.Name, hw.MemorySize>>20))
			case start && need > free:
				c.warn("The VM has %d MiB of memory; the host %s has %d MiB free.", need>>20, h.Name, free>>20)
			}
		}
	}
	if problem, err := c.reservation(ctx, config, pool); err != nil {
		return err
	} else if problem != "" {
		problems = append(problems, problem)
	}
	for _, p := range problems {
		if start {
			return backup.Errorf(backup.PreflightFailed, field, "%s", p)
		}
		c.warn("%s It cannot be powered on.", p)
	}
	return nil
}

// reservation compares the memory that the VM reserves with what its pool has left.
func (c *check) reservation(ctx context.Context, config *types.VirtualMachineConfigInfo, pool ref) (string, error) {
	reserved := int64(0)
	if a := config.MemoryAllocation; a != nil && a.Reservation != nil {
		reserved = *a.Reservation << 20
	}
	if yes(config.MemoryReservationLockedToMax) {
		reserved = int64(config.Hardware.MemoryMB) << 20
	}
	if reserved == 0 || pool == (ref{}) {
		return "", nil
	}
	var p mo.ResourcePool
	if err := c.s.read(ctx, pool, []string{"name", "runtime.memory"}, &p); err != nil {
		return "", err
	}
	if left := p.Runtime.Memory.UnreservedForVm; reserved > left {
		return fmt.Sprintf("The VM reserves %d MiB of memory and the resource pool %s has %d MiB left: choose another pool.", reserved>>20, unescapeName(p.Name), left>>20), nil
	}
	return "", nil
}

// macs are the addresses of the image's network cards.
func macs(c *types.VirtualMachineConfigInfo) (out []string) {
	for _, d := range c.Hardware.Device {
		if card, ok := d.(types.BaseVirtualEthernetCard); ok {
			if mac := card.GetVirtualEthernetCard().MacAddress; mac != "" {
				out = append(out, mac)
			}
		}
	}
	return out
}

// addresses leaves out what every guest may have: loopback and link-local.
func addresses(ips []string) (out []string) {
	for _, s := range ips {
		ip, err := netip.ParseAddr(s)
		if err == nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsUnspecified() {
			out = append(out, s)
		}
	}
	return out
}
