package main

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type imageCopy struct {
	ID            string `arg:"" help:"The image's id."`
	To            string `required:"" as:"NAME" help:"Repository to copy it to."`
	RetentionDays *int   `as:"N" help:"Days from the start of the backup for which the copy is kept; 0 = for ever, where the server allows it. Default: as long as the image."`
	Wait          bool   `help:"Show how it goes and end when it has; the exit status is 1 unless it succeeded."`
}

// Help is shown below the command's first line.
func (*imageCopy) Help() string {
	return "A copy is an image of its own: it is listed with its repository, and can be restored, verified and deleted. Only what the repository does not have yet is sent. " +
		"A schedule's copy_to makes copies of each new image.\n\n" +
		examples("kura image copy 01JDZK3Q8X4T9V2M6B7N5C1R0E --to second-site --retention-days 31 --wait")
}

// Run copies an image.
func (i *imageCopy) Run(ctx context.Context, s *session) error {
	if err := needID("image", i.ID); err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	ask := api.ImageCopyRequest{Repository: i.To, RetentionDays: i.RetentionDays}
	raw, err := body(c.CopyBackupImageWithResponse(ctx, i.ID, &api.CopyBackupImageParams{IdempotencyKey: newKey()}, ask))
	if err != nil {
		return err
	}
	return s.jobStarted(ctx, c, raw, i.Wait)
}

type imageCopies struct {
	ID string `arg:"" help:"The image's id."`
}

// Help is shown below the command's first line.
func (*imageCopies) Help() string {
	return "One line for each other repository that has the image, or is to have it.\n\n" + examples("kura image copies 01JDZK3Q8X4T9V2M6B7N5C1R0E")
}

// Run lists the copies of an image.
func (i *imageCopies) Run(ctx context.Context, s *session) error {
	if err := needID("image", i.ID); err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	items, err := collect(0, func(string) (answer, error) { return c.ListImageCopiesWithResponse(ctx, i.ID) })
	if err != nil {
		return err
	}
	return showAll(s, "copies", items, copyHead, copyRow)
}

var copyHead = []string{"REPOSITORY", "STATUS", "COPIED", "EXPIRES", "ID", "JOB", "MESSAGE"}

func copyRow(c api.ImageCopy) []string {
	expires := "never"
	if !c.ExpiresAt.IsZero() {
		expires = when(c.ExpiresAt)
	}
	return []string{c.Repository, string(c.Status), when(c.CopiedAt), expires, c.ID, c.JobID, c.Message}
}
