package main

import (
	"context"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type catalogCmd struct {
	Rebuild catalogRebuild `cmd:"" help:"List the images of a repository that the server does not know."`
}

type catalogRebuild struct {
	Name  string `arg:"" help:"Name or id of the repository."`
	Prune bool   `help:"Mark listed images that are not in the repository any more as damaged."`
	Wait  bool   `help:"Wait for the end and fail if it does."`
}

// Help is shown below the command's first line.
func (*catalogRebuild) Help() string {
	return "After the loss of the database, or of a whole site: make a repository known with the password of its recovery sheet (kura repository create --read-only --password-file), rebuild, and restore its images as new VMs. " +
		"Nothing in the repository is touched. A listed image stays for 30 days at least, and for as long as the repository can only be read.\n\n" +
		examples("kura catalog rebuild offsite --wait")
}

// Run rebuilds the catalogue.
func (r *catalogRebuild) Run(ctx context.Context, s *session) error {
	c, o, err := s.repository(ctx, r.Name)
	if err != nil {
		return err
	}
	raw, err := body(c.RebuildCatalogueWithResponse(ctx, o.ID, &api.RebuildCatalogueParams{Prune: r.Prune, IdempotencyKey: newKey()}))
	if err != nil {
		return err
	}
	return s.jobStarted(ctx, c, raw, r.Wait)
}
