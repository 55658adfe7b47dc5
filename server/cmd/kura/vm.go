package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type vmCmd struct {
	List   vmList   `cmd:"" help:"List virtual machines."`
	Show   vmShow   `cmd:"" help:"Show a virtual machine with its disks."`
	Backup vmBackup `cmd:"" help:"Back up a virtual machine now."`

	Protection vmProtection `cmd:"" help:"Tell what protects each virtual machine, and what lacks protection."`
}

func vmNoun(ctx context.Context, c *api.ClientWithResponses, vcenter string, gone bool) noun {
	return noun{
		what: "virtual machine",
		get:  func(id string) (answer, error) { return c.GetVirtualMachineWithResponse(ctx, id) },
		list: func(name, cursor string) (answer, error) {
			return c.ListVirtualMachinesWithResponse(ctx, &api.ListVirtualMachinesParams{VCenterID: vcenter, Name: name, IncludeGone: gone, Limit: pageSize, Cursor: cursor})
		},
		hint: "kura vm list --gone shows all, those that have left the inventory too; kura vcenter sync reads it anew.",
	}
}

// vmID returns the id of the VM that a flag names, "" for a flag that is empty.
// Those that have left the inventory count where no other has the name.
func vmID(ctx context.Context, c *api.ClientWithResponses, ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	o, err := findVM(ctx, c, "", ref)
	return o.ID, err
}

func findVM(ctx context.Context, c *api.ClientWithResponses, vcenter, ref string) (object, error) {
	o, err := find(vmNoun(ctx, c, vcenter, false), ref)
	if _, unnamed := errors.AsType[unknown](err); unnamed {
		return find(vmNoun(ctx, c, vcenter, true), ref)
	}
	return o, err
}

type vmList struct {
	VCenter string   `name:"vcenter" as:"NAME" help:"Only those of this vcenter."`
	Tag     []string `as:"CATEGORY:NAME" sep:"none" help:"Only those that carry this vSphere tag; repeated, all must be carried."`
	Gone    bool     `help:"Also those that have left the inventory."`

	Unprotectable bool `help:"Only those of which something cannot be backed up."`
}

// Help is shown below the command's first line.
func (*vmList) Help() string {
	return examples("kura vm list --tag backup:gold", "kura vm list --unprotectable", "kura vm list --vcenter tokyo -o json")
}

// Run lists virtual machines.
func (l *vmList) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	vcenter, err := vcenterID(ctx, c, l.VCenter)
	if err != nil {
		return err
	}
	items, err := collect(0, func(cursor string) (answer, error) {
		return c.ListVirtualMachinesWithResponse(ctx, &api.ListVirtualMachinesParams{VCenterID: vcenter, Tag: l.Tag, IncludeGone: l.Gone, Unprotectable: l.Unprotectable, Limit: pageSize, Cursor: cursor})
	})
	if err != nil {
		return err
	}
	return showVMs(s, items)
}

func showVMs(s *session, items []json.RawMessage) error {
	return showAll(s, "virtual machines", items, []string{"NAME", "POWER", "DISKS", "SIZE", "TAGS", "FOLDER", "CANNOT BE BACKED UP", "ID"}, func(v api.VirtualMachine) []string {
		power := string(v.PowerState)
		if !v.GoneAt.IsZero() {
			power = "gone"
		}
		return []string{v.Name, power, strconv.Itoa(len(v.Disks)), size(capacity(v)), tags(v.Tags), v.Folder, unable(v), v.ID}
	})
}

// unable says in a few words what of the VM cannot be backed up.
func unable(v api.VirtualMachine) string {
	if v.UnprotectableReason != "" {
		return "all of it"
	}
	var disks []string
	for _, d := range v.Disks {
		if d.UnprotectableReason != "" {
			disks = append(disks, d.Label)
		}
	}
	return strings.Join(disks, ", ")
}

func capacity(v api.VirtualMachine) (sum int64) {
	for _, d := range v.Disks {
		sum += d.Capacity
	}
	return sum
}

func tags(all []api.Tag) string {
	words := make([]string, len(all))
	for i, t := range all {
		words[i] = t.Category + ":" + t.Name
	}
	return strings.Join(words, ", ")
}

type vmShow struct {
	Name    string `arg:"" help:"Name or id."`
	VCenter string `name:"vcenter" as:"NAME" help:"Where to look for the name."`
}

// Run shows a virtual machine.
func (v *vmShow) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	vcenter, err := vcenterID(ctx, c, v.VCenter)
	if err != nil {
		return err
	}
	o, err := findVM(ctx, c, vcenter, v.Name)
	if err != nil {
		return err
	}
	return showOne(s, o.raw, vmRecord)
}

func vmRecord(v api.VirtualMachine) (r record) {
	r.add("name", v.Name)
	r.add("id", v.ID)
	r.add("vcenter id", v.VCenterID)
	r.add("moid", v.MOID)
	r.add("instance uuid", v.InstanceUUID)
	r.add("bios uuid", v.BIOSUUID)
	r.add("power", string(v.PowerState))
	r.add("template", yes(v.Template))
	r.add("cpus", strconv.Itoa(int(v.CPUs)))
	r.add("memory", size(v.Memory))
	r.add("folder", v.Folder)
	r.add("resource pool", v.ResourcePool)
	r.add("host", v.Host)
	r.add("datastores", strings.Join(v.Datastores, ", "))
	r.add("tags", tags(v.Tags))
	r.add("cannot be backed up", v.UnprotectableReason)
	r.add("seen", when(v.SeenAt))
	r.add("gone since", when(v.GoneAt))
	r.add("inventory of", when(v.InventorySyncedAt))
	for _, w := range v.Warnings {
		r.add("warning", w)
	}
	disks := table{head: []string{"KEY", "LABEL", "SIZE", "FILE", "CANNOT BE BACKED UP"}}
	for _, d := range v.Disks {
		disks.rows = append(disks.rows, []string{fmt.Sprint(d.Key), d.Label, size(d.Capacity), d.File, d.UnprotectableReason})
	}
	r.addTable("disks", disks)
	nics := table{head: []string{"KEY", "MAC", "NETWORK", "ADDRESSES"}}
	for _, n := range v.NICs {
		nics.rows = append(nics.rows, []string{fmt.Sprint(n.Key), n.MAC, n.Network, strings.Join(n.IPs, ", ")})
	}
	r.addTable("network", nics)
	return r
}

// backupFlags are what one chooses for a backup by hand.
type backupFlags struct {
	RetentionDays int      `default:"31" help:"Days from its start for which the image is kept; 0 = forever, where the server allows it."`
	Repository    string   `as:"NAME" help:"Where to keep it; the default one if none is named."`
	Consistency   string   `enum:",crash,app,app_required,offline" default:"" as:"crash|app|app_required|offline" help:"app quiesces the guest and falls back to crash, app_required fails instead, offline shuts the guest down for the snapshot. Default: crash."`
	Full          bool     `help:"Read everything, not only what has changed."`
	Label         []string `as:"KEY=VALUE" sep:"none" help:"Label for the image; may be repeated."`
	Wait          bool     `help:"Show how it goes and end when it has; the exit status is 1 unless all of it succeeded."`
}

func (f backupFlags) options() (api.BackupOptions, error) {
	labels, err := pairs("label", f.Label)
	return api.BackupOptions{RetentionDays: f.RetentionDays, Repository: f.Repository, Consistency: api.Consistency(f.Consistency), Full: f.Full, Labels: labels}, err
}

type vmBackup struct {
	Name    string `arg:"" help:"Name or id."`
	VCenter string `name:"vcenter" as:"NAME" help:"Where to look for the name."`
	backupFlags
}

// Help is shown below the command's first line.
func (*vmBackup) Help() string {
	return examples("kura vm backup erp --wait", "kura vm backup erp --retention-days 366 --consistency app --label reason=patch-day")
}

// Run backs a virtual machine up.
func (b *vmBackup) Run(ctx context.Context, s *session) error {
	options, err := b.options()
	if err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	vcenter, err := vcenterID(ctx, c, b.VCenter)
	if err != nil {
		return err
	}
	o, err := findVM(ctx, c, vcenter, b.Name)
	if err != nil {
		return err
	}
	raw, err := body(c.BackupVirtualMachineWithResponse(ctx, o.ID, &api.BackupVirtualMachineParams{IdempotencyKey: newKey()}, options))
	if err != nil {
		return err
	}
	return s.runStarted(ctx, c, raw, b.Wait)
}
