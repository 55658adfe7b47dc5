package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// unbookedSeats tells, at each scrape, which schedules have members without a
// seat. Those that have all their seats have no sample.
type unbookedSeats struct {
	store backup.Store
	log   *slog.Logger
	desc  *prometheus.Desc
}

func newUnbookedSeats(store backup.Store, log *slog.Logger) *unbookedSeats {
	return &unbookedSeats{store: store, log: log, desc: prometheus.NewDesc("kura_unbooked_seats",
		"VMs by which a schedule's group has grown without finding room in its hour.", []string{"schedule"}, nil)}
}

// Describe implements prometheus.Collector.
func (u *unbookedSeats) Describe(c chan<- *prometheus.Desc) { c <- u.desc }

// scrapeTime is how long the database may take to answer a scrape.
const scrapeTime = 5 * time.Second

// Collect implements prometheus.Collector.
func (u *unbookedSeats) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	var lacking []backup.Schedule
	err := u.store.View(ctx, func(tx backup.Tx) (err error) {
		lacking, _, err = tx.Schedules(ctx, backup.ScheduleFilter{EnabledOnly: true, Unbooked: true})
		return err
	})
	if err != nil { // the other metrics are told all the same
		u.log.WarnContext(ctx, "unbooked seats not counted", "error", err)
		return
	}
	for _, s := range lacking {
		c <- prometheus.MustNewConstMetric(u.desc, prometheus.GaugeValue, float64(s.UnbookedSeats), s.Name)
	}
}
