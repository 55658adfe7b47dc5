package main

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type restoreDelete struct {
	ID       string `arg:"" help:"The restore's id."`
	DeleteVM bool   `name:"delete-vm" help:"Delete the new VM that it made, with its disks, first. Refused unless that is powered off."`
}

// Help is shown below the command's first line.
func (*restoreDelete) Help() string {
	return "A restore that still runs is cancelled. Without --delete-vm no VM is touched.\n\n" + examples("kura restore delete 01JDZK3Q8X4T9V2M6B7N5C1R0E --delete-vm")
}

// Run forgets a restore.
func (r *restoreDelete) Run(ctx context.Context, s *session) error {
	if err := needID("restore", r.ID); err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	raw, err := body(c.GetRestoreWithResponse(ctx, r.ID, &api.GetRestoreParams{}))
	if err != nil {
		return err
	}
	o, err := newObject(raw)
	if err != nil {
		return err
	}
	if _, err := body(c.DeleteRestoreWithResponse(ctx, r.ID, &api.DeleteRestoreParams{DeleteRestoredVM: r.DeleteVM})); err != nil {
		return err
	}
	return s.deleted("restore", o)
}
