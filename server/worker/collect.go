package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// collect frees what no image of a repository needs.
func (a *attempt) collect(ctx context.Context) (ending, error) {
	a.begin(ctx, "looking for what no image needs")
	var spec backup.CollectSpec
	if err := json.Unmarshal(a.job.Spec, &spec); err != nil {
		return ending{}, fmt.Errorf("spec: %w", err)
	}
	var record backup.RepositoryRecord
	var writing map[string]bool
	err := a.Store.View(ctx, func(tx backup.Tx) (err error) {
		if record, err = tx.Repository(ctx, spec.RepositoryID); err != nil {
			return err
		}
		writing, err = backup.ImagesBeingWritten(ctx, tx)
		return err
	})
	if backup.CodeOf(err) == backup.NotFound {
		return ending{state: backup.JobSkipped, message: "The repository was removed."}, nil
	}
	if err != nil {
		return ending{}, err
	}
	repo, err := a.Repositories.Repository(ctx, record)
	if err != nil {
		return ending{}, err
	}
	c, err := repo.Collect(ctx, backup.Collection{DryRun: spec.DryRun, IndexOnly: spec.IndexOnly, Alive: func(id string) bool { return writing[id] },
		Listed: func(ctx context.Context) ([]string, error) { return a.listed(ctx, record.ID) }})
	if err != nil {
		return ending{}, fmt.Errorf("collect repository %s: %w", record.Name, err)
	}
	failpoint.Hit("collect.collected")
	a.tellCollected(ctx, record, spec, c)
	if err := a.markHurt(ctx, record.ID, c.Hurt); err != nil {
		return ending{}, err
	}
	if spec.DryRun {
		return ending{state: backup.JobSucceeded}, nil
	}
	return ending{state: backup.JobSucceeded, also: func(tx backup.Tx) error {
		u, err := tx.Upkeep(ctx, record.ID)
		if err != nil {
			return err
		}
		if spec.IndexOnly {
			u.Collected.IndexBlobs = c.IndexBlobs
		} else {
			u.CollectedAt, u.Collected = tx.Now(), c
		}
		u.Collected.GatheredAt = tx.Now()
		return tx.SaveUpkeep(ctx, u)
	}}, nil
}

// listed tells the refs of the images of a repository that should be whole.
func (a *attempt) listed(ctx context.Context, repositoryID string) (refs []string, err error) {
	for _, status := range []backup.ImageStatus{backup.ImageGood, backup.ImagePartial} {
		f := backup.ImageFilter{RepositoryID: repositoryID, Status: status, Page: backup.Page{Limit: 1000}}
		for more := true; more; more = f.Cursor != "" {
			err := a.Store.View(ctx, func(tx backup.Tx) (err error) {
				var images []backup.Image
				images, f.Cursor, err = tx.Images(ctx, f)
				for _, i := range images {
					refs = append(refs, i.Ref)
				}
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("list images: %w", err)
			}
		}
	}
	return refs, nil
}

func (a *attempt) tellCollected(ctx context.Context, r backup.RepositoryRecord, spec backup.CollectSpec, c backup.Collected) {
	a.log.InfoContext(ctx, "repository collected", "repository", r.Name, "dry_run", spec.DryRun, "index_only", spec.IndexOnly, "images", c.Images, "marked", c.Marked,
		"waiting", c.Waiting, "freed", c.Freed, "rewritten", c.Rewritten, "index_blobs", c.IndexBlobs, "abandoned", c.Abandoned)
	if spec.DryRun {
		a.say("%d images need %s; %s would be marked as needed by none, %s are marked and wait. Nothing was changed.", c.Images, backup.SizeText(c.Live), backup.SizeText(c.Marked), backup.SizeText(c.Waiting))
		return
	}
	if spec.IndexOnly {
		a.say("The index was gathered; it has %d blobs.", c.IndexBlobs)
	} else {
		a.tellFreed(c)
	}
	if c.IndexBlobs > backup.MaxIndexBlobs {
		a.log.WarnContext(ctx, "repository has many index blobs", "repository", r.Name, "index_blobs", c.IndexBlobs)
		a.say("The repository has %d index blobs, more than %d make it slow.", c.IndexBlobs, backup.MaxIndexBlobs)
	}
}

func (a *attempt) tellFreed(c backup.Collected) {
	a.say("%s were freed. %s are needed by %d images.", backup.SizeText(c.Freed), backup.SizeText(c.Live), c.Images)
	if c.Locked > 0 {
		a.say("%s were given up; the storage keeps them until their locks end, and then until the bucket's lifecycle rule takes older versions away.", backup.SizeText(c.Locked))
	}
	if rest := c.Marked + c.Waiting; rest > 0 {
		a.say("%s more are needed by no image and come free with the collections after %s.", backup.SizeText(rest), c.RestFrom.UTC().Format(time.DateTime+" UTC"))
	}
}
