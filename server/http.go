package server

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/handler"
)

// routes is what the server answers. A mover answers health and metrics only:
// it stands where datastores are, not where users come from.
func (s *Server) routes() (http.Handler, error) {
	metrics := s.metrics()
	if s.config.Role == RoleMover {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", metrics)
		mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
		mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
			if err := s.Ready(r.Context()); err != nil {
				http.Error(w, "The server is not ready.", http.StatusServiceUnavailable)
			}
		})
		return mux, nil
	}
	return handler.New(handler.Config{
		Planner: s.planner, Store: s.db, Tokens: s.db, Replies: s.db,
		Auth:    auth.New(auth.Config{Store: s.db, Now: s.config.Now, Log: s.log}),
		Version: s.config.Version, Installation: s.installation, Profile: s.config.RetentionProfile,
		Now: s.config.Now, Log: s.log, Ready: s.Ready, Metrics: metrics,
	})
}

func (s *Server) metrics() http.Handler {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kura_build_info", Help: "Always 1; the labels tell what runs.",
		ConstLabels: prometheus.Labels{"version": s.config.Version, "role": string(s.config.Role)}})
	info.Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info,
		newUnbookedSeats(s.db, s.log), newUpkeepMetrics(s.db, s.installation, s.log), newCopyMetrics(s.db, s.log), newClockMetric(s.planner, s.log), newStorageMetrics(s.db, s.repositories.Requests, s.log), s.tracking)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}
