package backup

import (
	"context"
	"encoding/json"
	"time"
)

const (
	// gatherEvery is how often the index of a repository in use is gathered: as
	// often as its epochs may end.
	gatherEvery = 30 * time.Minute
	// gatherImages is after how many images, each of which brings an index blob.
	gatherImages = 50
	// gatherBlobs is above how many index blobs, however they came.
	gatherBlobs = 300
)

// planDueGathering asks for a gathering of the repository's index where many
// backups have added to it. It is a collection's last step alone, under the
// same key: nothing of the kind runs twice in the whole fleet.
func planDueGathering(ctx context.Context, tx Tx, r RepositoryRecord) (jobs int, err error) {
	u, err := tx.Upkeep(ctx, r.ID)
	if err != nil {
		return 0, err
	}
	last := u.Collected.GatheredAt
	if since := tx.Now().Sub(last); since >= 0 && since < gatherEvery {
		return 0, nil
	}
	if u.Collected.IndexBlobs <= gatherBlobs {
		images, _, err := tx.Images(ctx, ImageFilter{RepositoryID: r.ID, CreatedAfter: last, Page: Page{Limit: gatherImages}})
		if err != nil || len(images) < gatherImages {
			return 0, err
		}
	}
	active, _, err := tx.Jobs(ctx, JobFilter{Kind: KindCollect, Active: true, Page: Page{Limit: 1000}})
	if err != nil {
		return 0, err
	}
	for _, j := range active {
		var s CollectSpec
		if json.Unmarshal(j.Spec, &s) == nil && s.RepositoryID == r.ID && !s.DryRun {
			return 0, nil // it gathers, too
		}
	}
	u.Collected.GatheredAt = tx.Now()
	if err := tx.SaveUpkeep(ctx, u); err != nil {
		return 0, err
	}
	return 1, tx.InsertJob(ctx, newCollection(tx.Now(), r, CollectSpec{RepositoryID: r.ID, IndexOnly: true}))
}
