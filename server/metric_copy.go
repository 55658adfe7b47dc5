package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// copyMetrics tell, at each scrape, how far copies lag behind their originals.
type copyMetrics struct {
	store backup.Store
	log   *slog.Logger

	waiting, oldest, failed *prometheus.Desc
}

func newCopyMetrics(store backup.Store, log *slog.Logger) *copyMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("kura_copies_"+name, help, []string{"repository"}, nil)
	}
	return &copyMetrics{store: store, log: log,
		waiting: desc("waiting", "Copies of images that wait or are being made, by the repository that they go to."),
		oldest:  desc("oldest_wait_seconds", "For how long the oldest copy that is not made yet has been waited for."),
		failed:  desc("failed", "Copies that failed for good within the last day."),
	}
}

// Describe implements prometheus.Collector.
func (m *copyMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.waiting, m.oldest, m.failed} {
		c <- d
	}
}

// lag is how the copies to one repository stand.
type lag struct {
	name            string
	waiting, failed int
	oldest          time.Duration
}

// Collect implements prometheus.Collector.
func (m *copyMetrics) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	var all map[string]*lag
	err := m.store.View(ctx, func(tx backup.Tx) (err error) {
		all, err = lags(ctx, tx)
		return err
	})
	if err != nil { // the other metrics are told all the same
		m.log.WarnContext(ctx, "copies not counted", "error", err)
		return
	}
	for _, l := range all {
		tell := func(d *prometheus.Desc, v float64) {
			c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, l.name)
		}
		tell(m.waiting, float64(l.waiting))
		tell(m.oldest, l.oldest.Seconds())
		tell(m.failed, float64(l.failed))
	}
}

// A copy is tried for a day and a half before it has failed for good.
const (
	copyTries = 7 * 24 * time.Hour
	copyNews  = 24 * time.Hour
)

// lags counts the copies of each repository that others are copied to.
func lags(ctx context.Context, tx backup.Tx) (map[string]*lag, error) {
	all := map[string]*lag{}
	now := tx.Now()
	err := eachCopy(ctx, tx, backup.JobFilter{Active: true}, all, func(l *lag, j backup.Job) {
		l.waiting++
		l.oldest = max(l.oldest, now.Sub(j.CreatedAt))
	})
	if err == nil {
		err = eachCopy(ctx, tx, backup.JobFilter{State: backup.JobFailed, After: now.Add(-copyTries)}, all, func(l *lag, j backup.Job) {
			if now.Sub(j.EndedAt) < copyNews {
				l.failed++
			}
		})
	}
	return all, err
}

func eachCopy(ctx context.Context, tx backup.Tx, f backup.JobFilter, all map[string]*lag, count func(*lag, backup.Job)) error {
	for f.Kind, f.Limit = backup.KindCopy, 1000; ; {
		jobs, next, err := tx.Jobs(ctx, f)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			var spec backup.CopySpec
			if err := json.Unmarshal(j.Spec, &spec); err != nil {
				return err
			}
			l := all[spec.RepositoryID]
			if l == nil {
				r, err := tx.Repository(ctx, spec.RepositoryID)
				if backup.CodeOf(err) == backup.NotFound {
					continue // it was forgotten
				}
				if err != nil {
					return err
				}
				l = &lag{name: r.Name}
				all[spec.RepositoryID] = l
			}
			count(l, j)
		}
		if f.Cursor = next; next == "" {
			return nil
		}
	}
}
