package main

import (
	"bufio"
	"bytes"
	"context"
	"strconv"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type vcenterRebind struct {
	Old       string `arg:"" help:"Name or id of the vcenter in which the VMs were."`
	New       string `arg:"" help:"Name or id of the one in which they are now."`
	Map       string `as:"FILE" help:"Lines of a VM's name or id and, after a space, its managed object id in the new vcenter; - is stdin."`
	Selectors bool   `help:"Groups that select from the old vcenter select from the new one from now on."`
	DryRun    bool   `help:"Only show what would be done."`
}

// Help is shown below the command's first line.
func (*vcenterRebind) Help() string {
	return "VMs are recognized by instance UUID, else by BIOS UUID and name. They keep images, schedules and groups. " +
		"What is doubtful stays where it is, with the reason.\n\n" +
		examples("kura vcenter rebind tokyo tokyo-2 --selectors --dry-run", "kura vcenter rebind tokyo tokyo-2 --map vms.txt")
}

// Run re-binds the VMs of one vcenter to another.
func (v *vcenterRebind) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	from, err := find(vcenterNoun(ctx, c), v.Old)
	if err != nil {
		return err
	}
	to, err := find(vcenterNoun(ctx, c), v.New)
	if err != nil {
		return err
	}
	ask := api.RebindRequest{To: to.ID, Selectors: v.Selectors, DryRun: v.DryRun}
	if v.Map != "" {
		if ask.Map, err = s.readRebindMap(ctx, c, from.ID, v.Map); err != nil {
			return err
		}
	}
	raw, err := body(c.RebindVCenterWithResponse(ctx, from.ID, &api.RebindVCenterParams{IdempotencyKey: newKey()}, ask))
	if err != nil {
		return err
	}
	return showOne(s, raw, rebindRecord)
}

// readRebindMap reads lines such as "erp vm-1007". Names may hold spaces;
// managed object ids do not.
func (s *session) readRebindMap(ctx context.Context, c *api.ClientWithResponses, vcenter, path string) ([]api.RebindPair, error) {
	text, err := s.readFile(path)
	if err != nil {
		return nil, err
	}
	var pairs []api.RebindPair
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexAny(line, " \t")
		if at < 0 {
			return nil, usef("Line %d of %s is %q. A line is a VM's name or id and, after a space, its managed object id in the new vcenter.", n, path, line)
		}
		vm, err := findVM(ctx, c, vcenter, strings.TrimSpace(line[:at]))
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, api.RebindPair{VirtualMachineID: vm.ID, MOID: line[at+1:]})
	}
	return pairs, lines.Err()
}

func rebindRecord(r api.RebindResult) (out record) {
	moved := strconv.Itoa(len(r.Moved))
	if r.DryRun {
		moved += ", had this been no dry run"
	}
	out.add("re-bound", moved)
	out.add("left where they are", strconv.Itoa(len(r.Left)))
	out.add("schedules booked anew", strings.Join(r.Schedules, ", "))
	out.add("groups that select from the new vcenter", strings.Join(r.Groups, ", "))
	out.add("groups that still select from the old one", strings.Join(r.Selecting, ", "))
	if r.WithdrawnJobs > 0 {
		out.add("backups withdrawn that waited", strconv.Itoa(r.WithdrawnJobs))
	}
	is := table{head: []string{"VM", "WAS", "IS", "NAME THERE", "RECOGNIZED BY", "IMAGES", "ID"}}
	for _, m := range r.Moved {
		is.rows = append(is.rows, []string{m.VirtualMachine.Name, m.VirtualMachine.MOID, m.ToMOID, m.ToName, m.RecognizedBy, strconv.Itoa(m.Images), m.VirtualMachine.ID})
	}
	out.addTable("re-bound", is)
	stays := table{head: []string{"VM", "WAS", "IMAGES", "WHY", "ID"}}
	for _, m := range r.Left {
		stays.rows = append(stays.rows, []string{m.VirtualMachine.Name, m.VirtualMachine.MOID, strconv.Itoa(m.Images), m.Reason, m.VirtualMachine.ID})
	}
	out.addTable("left where they are", stays)
	return out
}
