package server

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// clockMetric tells, at each scrape, whether the clock is trusted that decides
// when images end.
type clockMetric struct {
	planner *backup.Planner
	log     *slog.Logger
	desc    *prometheus.Desc
}

func newClockMetric(p *backup.Planner, log *slog.Logger) *clockMetric {
	return &clockMetric{planner: p, log: log, desc: prometheus.NewDesc("kura_clock_trusted",
		"1 while the clock is trusted; 0 after it has leapt, when nothing expires: see kura clock show.", nil, nil)}
}

// Describe implements prometheus.Collector.
func (m *clockMetric) Describe(c chan<- *prometheus.Desc) { c <- m.desc }

// Collect implements prometheus.Collector.
func (m *clockMetric) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	s, err := m.planner.Clock(ctx)
	if err != nil { // the other metrics are told all the same
		m.log.WarnContext(ctx, "clock not looked at", "error", err)
		return
	}
	v := 0.0
	if s.Trusted {
		v = 1
	}
	c <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, v)
}
