package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// trackingMetrics count how often this server could not rely on what vSphere
// told about changed blocks.
type trackingMetrics struct {
	distrust *prometheus.CounterVec
	lies     prometheus.Counter
}

func newTrackingMetrics() *trackingMetrics {
	m := &trackingMetrics{
		distrust: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kura_cbt_distrust_total",
			Help: "Disks whose changes were not taken from vSphere but found by reading all, by the reason."}, []string{"reason"}),
		lies: prometheus.NewCounter(prometheus.CounterOpts{Name: "kura_cbt_lies_total",
			Help: "Disks of which vSphere left out blocks that had changed, as a sample or a compare showed."}),
	}
	for _, r := range backup.DoubtReasons() {
		m.distrust.WithLabelValues(string(r))
	}
	return m
}

// count is told of each such disk.
func (m *trackingMetrics) count(r backup.DoubtReason) {
	m.distrust.WithLabelValues(string(r)).Inc()
	if r == backup.DoubtLie {
		m.lies.Inc()
	}
}

// Describe implements prometheus.Collector.
func (m *trackingMetrics) Describe(c chan<- *prometheus.Desc) {
	m.distrust.Describe(c)
	m.lies.Describe(c)
}

// Collect implements prometheus.Collector.
func (m *trackingMetrics) Collect(c chan<- prometheus.Metric) {
	m.distrust.Collect(c)
	m.lies.Collect(c)
}
