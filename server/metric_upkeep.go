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
	store        backup.Store
	installation string
	log          *slog.Logger

	live, waiting, indexBlobs, collected, damaged, sheet, warnings *prometheus.Desc
}

func newUpkeepMetrics(store backup.Store, installation string, log *slog.Logger) *upkeepMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("kura_repository_"+name, help, []string{"repository"}, nil)
	}
	return &upkeepMetrics{store: store, installation: installation, log: log,
		live:       desc("live_bytes", "Bytes that images need, as of the last collection."),
		waiting:    desc("waiting_bytes", "Bytes that no image needs and that a later collection frees."),
		indexBlobs: desc("index_blobs", "Index blobs, as of the last collection; more than 1,000 make the repository slow."),
		collected:  desc("collected_timestamp_seconds", "When the last collection ended well."),
		damaged:    desc("damaged_images", "Images of which something is missing or wrong."),
		sheet:      desc("recovery_sheet_timestamp_seconds", "When the recovery sheet was given out that is still right; 0 = none is."),
		warnings:   desc("warnings", "What an operator should see to; GET /v1/repositories tells it."),
	}
}

// Describe implements prometheus.Collector.
func (u *upkeepMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{u.live, u.waiting, u.indexBlobs, u.collected, u.damaged, u.sheet, u.warnings} {
		c <- d
	}
}

// kept is a repository at a scrape.
type kept struct {
	record  backup.RepositoryRecord
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
			c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, k.record.Name)
		}
		tell(u.damaged, float64(k.damaged))
		tell(u.sheet, seconds(k.record.SheetAt))
		tell(u.warnings, float64(len(k.record.Warnings(u.installation, k.upkeep))))
		if k.upkeep.CollectedAt.IsZero() {
			continue
		}
		tell(u.live, float64(k.upkeep.Collected.Live))
		tell(u.waiting, float64(k.upkeep.Collected.Marked+k.upkeep.Collected.Waiting))
		tell(u.indexBlobs, float64(k.upkeep.Collected.IndexBlobs))
		tell(u.collected, seconds(k.upkeep.CollectedAt))
	}
}

// seconds is an instant as metrics tell it; 0 = never.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / float64(time.Second/time.Millisecond)
}

func keptRepositories(ctx context.Context, tx backup.Tx) ([]kept, error) {
	records, _, err := tx.Repositories(ctx, backup.Page{Limit: 1000})
	if err != nil {
		return nil, err
	}
	all := make([]kept, len(records))
	for n, r := range records {
		all[n].record = r
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
