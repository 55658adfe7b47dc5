package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type catalogCmd struct {
	Rebuild catalogRebuild `cmd:"" help:"List the images of a repository that the server does not know."`
	Copy    catalogCopy    `cmd:"" help:"Copy the server's database into a repository now."`
	Recover catalogRecover `cmd:"" help:"Make the data folder of a server that is gone anew, of the copy in a repository."`
	Adopt   catalogAdopt   `cmd:"" help:"Let a database go on that was put back from a copy."`
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

type catalogAdopt struct {
	Yes bool `help:"Do it: no other server of this installation runs any more."`
}

// Help is shown below the command's first line.
func (*catalogAdopt) Help() string {
	return "A server whose database is older than its repositories begins, ends and removes nothing, and says so. This lets it go on: jobs that the copy took for queued or running end, images that it does not know are listed, those that are gone are marked as damaged, and no image ends within 30 days. " +
		"Where another server of the installation still runs, with the newer database, it finds that out within ten minutes and stops in the same way.\n\n" +
		examples("kura catalog adopt --yes")
}

// Run lets the database go on.
func (a *catalogAdopt) Run(ctx context.Context, s *session) error {
	if !a.Yes {
		return usef("What has been done since the copy was made is forgotten, but for the images. Say --yes when no other server of this installation runs any more.")
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	raw, err := body(c.AdoptDatabaseWithResponse(ctx, &api.AdoptDatabaseParams{IdempotencyKey: newKey()}))
	if err != nil {
		return err
	}
	return showOne(s, raw, func(a api.Adoption) (r record) {
		r.add("jobs ended", strconv.Itoa(a.EndedJobs))
		r.add("occurrences passed over", strconv.Itoa(a.PassedOccurrences))
		r.add("jobs that list images", strings.Join(a.Jobs, ", "))
		for _, m := range a.Messages {
			r.add("look", m)
		}
		return r
	})
}
