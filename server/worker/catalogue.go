package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// listedAtOnce is how many images one transaction lists; missingNamed is how
// many that are missing the job names.
const (
	listedAtOnce = 200
	missingNamed = 20
)

// catalogue lists those images of a repository that the catalogue does not know.
func (a *attempt) catalogue(ctx context.Context) (ending, error) {
	a.begin(ctx, "reading what images there are")
	var spec backup.CatalogueSpec
	if err := json.Unmarshal(a.job.Spec, &spec); err != nil {
		return ending{}, fmt.Errorf("spec: %w", err)
	}
	var r *backup.Rebuild
	err := a.Store.View(ctx, func(tx backup.Tx) error {
		record, err := tx.Repository(ctx, spec.RepositoryID)
		if err == nil {
			r, err = backup.BeginRebuild(ctx, tx, record, a.Installation)
		}
		return err
	})
	if backup.CodeOf(err) == backup.NotFound {
		return ending{state: backup.JobSkipped, message: "The repository was removed."}, nil
	}
	if err != nil {
		return ending{}, err
	}
	repo, err := a.Repositories.Repository(ctx, r.Repository)
	if err != nil {
		return ending{}, err
	}
	found, err := repo.Images(ctx)
	if err != nil {
		return ending{}, fmt.Errorf("read the images of repository %s: %w", r.Repository.Name, err)
	}
	a.begin(ctx, "listing them")
	if err := a.list(ctx, r, found); err != nil {
		return ending{}, fmt.Errorf("list the images of repository %s: %w", r.Repository.Name, err)
	}
	var missing []backup.Image
	err = a.Store.Update(ctx, func(tx backup.Tx) (err error) {
		missing, err = r.Missing(ctx, tx, found, spec.Prune)
		return err
	})
	if err != nil {
		return ending{}, fmt.Errorf("look for images that are gone: %w", err)
	}
	a.tellCatalogue(ctx, r, missing, spec.Prune)
	return ending{state: backup.JobSucceeded}, nil
}

func (a *attempt) list(ctx context.Context, r *backup.Rebuild, found []backup.Manifest) error {
	for from := 0; from < len(found); from += listedAtOnce {
		part := found[from:min(from+listedAtOnce, len(found))]
		var commit func()
		err := a.Store.Update(ctx, func(tx backup.Tx) (err error) {
			commit, err = r.List(ctx, tx, part)
			return err
		})
		if err != nil {
			return err
		}
		failpoint.Hit("catalogue.part_listed")
		commit()
	}
	return nil
}

func (a *attempt) tellCatalogue(ctx context.Context, r *backup.Rebuild, missing []backup.Image, prune bool) {
	a.log.InfoContext(ctx, "catalogue rebuilt", "repository", r.Repository.Name, "added", r.Added, "known", r.Known, "bound", r.Bound, "damaged", r.Damaged, "missing", len(missing))
	a.say("%d images are listed now that were not; %d were.", r.Added, r.Known)
	if r.Damaged > 0 {
		a.say("%d of them cannot be read and are listed as damaged.", r.Damaged)
	}
	if r.Bound > 0 {
		a.say("%d that were listed before have their VM again.", r.Bound)
	}
	for n, i := range missing {
		if n == missingNamed {
			a.say("%d more are not in the repository any more.", len(missing)-n)
			break
		}
		a.say("Image %s of %q of %s is not in the repository any more.", i.ID, i.VMName, i.PointInTime.UTC().Format(time.DateTime+" UTC"))
	}
	if len(missing) > 0 && !prune {
		a.say("What is not in the repository any more was left as it is; with prune it becomes damaged.")
	}
}
