package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// upkeepMetrics tell, at each scrape, how the repositories are looked after.
type upkeepMetrics struct {
	store backup.Store
	log   *slog.Logger

	live, waiting, indexBlobs, collected, damaged *prometheus.Desc
}

func newUpkeepMetrics(store backup.Store, log *slog.Logger) *upkeepMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("kura_repository_"+name, help, []string{"repository"}, nil)
	}
	return &upkeepMetrics{store: store, log: log,
		live:       desc("live_bytes", "Bytes that images need, as of the last collection."),
		waiting:    desc("waiting_bytes", "Bytes that no image needs and that a later collection frees."),
		indexBlobs: desc("index_blobs", "Index blobs, as of the last collection; more than 1,000 make the repository slow."),
		collected:  desc("collected_timestamp_seconds", "When the last collection ended well."),
		damaged:    desc("damaged_images", "Images of which something is missing or wrong."),
	}
}

// Describe implements prometheus.Collector.
func (u *upkeepMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{u.live, u.waiting, u.indexBlobs, u.collected, u.damaged} {
		c <- d
	}
}

// kept is a repository at a scrape.
type kept struct {
	name    string
	upkeep  backup.Upkeep
	damaged int
}

// Collect implements prometheus.Collector.
func (u *upkeepMetrics) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	var all []kept
	err := u.store.View(ctx, func(tx backup.Tx) (err error) {
		all, err = keptRepositories(ctx, tx)
		return err
	})
	if err != nil { // the other metrics are told all the same
		u.log.WarnContext(ctx, "repositories not counted", "error", err)
		return
	}
	for _, k := range all {
		tell := func(d *prometheus.Desc, v float64) {
			c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, k.name)
		}
		tell(u.damaged, float64(k.damaged))
		if k.upkeep.CollectedAt.IsZero() {
			continue
		}
		tell(u.live, float64(k.upkeep.Collected.Live))
		tell(u.waiting, float64(k.upkeep.Collected.Marked+k.upkeep.Collected.Waiting))
		tell(u.indexBlobs, float64(k.upkeep.Collected.IndexBlobs))
		tell(u.collected, float64(k.upkeep.CollectedAt.UnixMilli())/float64(time.Second/time.Millisecond))
	}
}

func keptRepositories(ctx context.Context, tx backup.Tx) ([]kept, error) {
	records, _, err := tx.Repositories(ctx, backup.Page{Limit: 1000})
	if err != nil {
		return nil, err
	}
	all := make([]kept, len(records))
	for n, r := range records {
		all[n].name = r.Name
		if all[n].upkeep, err = tx.Upkeep(ctx, r.ID); err != nil {
			return nil, err
		}
		f := backup.ImageFilter{RepositoryID: r.ID, Status: backup.ImageDamaged, Page: backup.Page{Limit: 1000}}
		damaged, _, err := tx.Images(ctx, f) // more than a thousand are a thousand
		if err != nil {
			return nil, err
		}
		all[n].damaged = len(damaged)
	}
	return all, nil
}
