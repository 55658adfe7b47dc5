package server

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// storageMetrics tell, at each scrape, what the storages are asked for and how
// their locks stand.
type storageMetrics struct {
	store    backup.Store
	requests func(repositoryID string) map[string]int64
	log      *slog.Logger

	calls, extended, until, cost, took *prometheus.Desc
}

func newStorageMetrics(store backup.Store, requests func(string) map[string]int64, log *slog.Logger) *storageMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("kura_repository_"+name, help, append([]string{"repository"}, labels...), nil)
	}
	return &storageMetrics{store: store, requests: requests, log: log,
		calls:    desc("storage_requests_total", "Requests that this server has sent to a storage that is paid by them, tries included.", "request"),
		extended: desc("lock_extended_timestamp_seconds", "When the storage's locks were last extended; should be less than 36 h ago. 0 = never."),
		until:    desc("locked_until_timestamp_seconds", "Until when the storage refuses to delete what images needed at the last extension."),
		cost:     desc("lock_requests", "Requests of the last extension of locks."),
		took:     desc("lock_duration_seconds", "How long the last extension of locks took."),
	}
}

// Describe implements prometheus.Collector.
func (m *storageMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.calls, m.extended, m.until, m.cost, m.took} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (m *storageMetrics) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	err := m.store.View(ctx, func(tx backup.Tx) error {
		records, _, err := tx.Repositories(ctx, backup.Page{Limit: 1000})
		if err != nil {
			return err
		}
		for _, r := range records {
			if err := m.tell(ctx, tx, r, c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil { // the other metrics are told all the same
		m.log.WarnContext(ctx, "storages not counted", "error", err)
	}
}

func (m *storageMetrics) tell(ctx context.Context, tx backup.Tx, r backup.RepositoryRecord, c chan<- prometheus.Metric) error {
	for request, n := range m.requests(r.ID) {
		c <- prometheus.MustNewConstMetric(m.calls, prometheus.CounterValue, float64(n), r.Name, request)
	}
	if !r.StorageLock().Locks() {
		return nil
	}
	u, err := tx.Upkeep(ctx, r.ID)
	if err != nil {
		return err
	}
	gauge := func(d *prometheus.Desc, v float64) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, r.Name)
	}
	gauge(m.extended, seconds(u.Locked.At))
	gauge(m.until, seconds(u.Locked.Until))
	gauge(m.cost, float64(u.Locked.Calls))
	gauge(m.took, u.Locked.Seconds)
	return nil
}
