package main

import (
	"context"
	"encoding/json"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type repositoryMaintain struct {
	Name   string `arg:"" help:"Name or id."`
	DryRun bool   `help:"Only tell what would be freed."`
	Wait   bool   `help:"Wait for the end and fail if it does."`
}

// Help is shown below the command's first line.
func (*repositoryMaintain) Help() string {
	return "The server does this by itself twice a day. Space comes back in steps, so that running backups and other servers are not hurt: the job says what was freed, what is still to come and when.\n\n" +
		examples("kura repository maintain default --wait", "kura repository maintain default --dry-run --wait")
}

// Run frees what no image needs.
func (r *repositoryMaintain) Run(ctx context.Context, s *session) error {
	c, o, err := s.repository(ctx, r.Name)
	if err != nil {
		return err
	}
	raw, err := body(c.MaintainRepositoryWithResponse(ctx, o.ID, &api.MaintainRepositoryParams{IdempotencyKey: newKey()}, api.Maintenance{DryRun: r.DryRun}))
	if err != nil {
		return err
	}
	return s.jobStarted(ctx, c, raw, r.Wait)
}

type imageVerify struct {
	ID     string `arg:"" help:"The image's id."`
	SHA256 bool   `name:"sha256" help:"Tell the SHA-256 of each disk as well: kura image show shows them afterwards."`
	Wait   bool   `help:"Wait for the end and fail if the image is damaged."`
}

// Help is shown below the command's first line.
func (*imageVerify) Help() string {
	return "Every byte is read, decrypted and compared with its checksum. The server does this by itself for each image within the repository's verify_days.\n\n" +
		examples("kura image verify 01JDZK3Q8X4T9V2M6B7N5C1R0E --wait")
}

// Run reads an image whole.
func (i *imageVerify) Run(ctx context.Context, s *session) error {
	if err := needID("image", i.ID); err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	raw, err := body(c.VerifyBackupImageWithResponse(ctx, i.ID, &api.VerifyBackupImageParams{IdempotencyKey: newKey(), SHA256: i.SHA256}))
	if err != nil {
		return err
	}
	return s.jobStarted(ctx, c, raw, i.Wait)
}

type imageExpired struct{}

// Help is shown below the command's first line.
func (*imageExpired) Help() string {
	return "The server deletes them by itself. This lists what goes next, and what stays all the same and why.\n\n" + examples("kura image expired")
}

// Run lists images whose time is over.
func (*imageExpired) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	items, err := collect(0, func(string) (answer, error) { return c.ListExpiredImagesWithResponse(ctx) })
	if err != nil {
		return err
	}
	return showExpired(s, items)
}

func showExpired(s *session, items []json.RawMessage) error {
	return showAll(s, "images", items, []string{"EXPIRED", "VM", "ID", "STAYS"}, func(i api.ExpiredImage) []string {
		why := i.Stays
		if why == "" {
			why = "no: it goes"
		}
		return []string{when(i.ExpiresAt), i.VirtualMachineName, i.ID, why}
	})
}
