package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func TestMembersWithoutASeatAreAMetric(t *testing.T) {
	t.Parallel()
	l := newLab(t, lab.Config{VMs: 3})
	s := start(t, server.Config{})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
	v := w.vcenter("a")
	p := s.Planner()
	g, err := p.CreateGroup(t.Context(), backup.Group{Name: "all", ReservedSeats: 1, Selector: &backup.Selector{VCenterID: v.ID}})
	if err != nil {
		t.Fatal(err)
	}
	if got := scrape(t, s, "kura_unbooked_seats"); got != "" {
		t.Errorf("without a schedule the metric is %q, want none", got)
	}
	_, err = p.CreateSchedule(t.Context(), backup.Schedule{Name: "nightly", Enabled: true, GroupID: g.ID, RetentionDays: 7, LatestHour: 23,
		Recurrence: backup.Recurrence{Kind: backup.Daily, TimeZone: "UTC", Hour: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := scrape(t, s, "kura_unbooked_seats"), `kura_unbooked_seats{schedule="nightly"} 2`; got != want {
		t.Errorf("the metric is %q, want %q", got, want)
	}
	w.syncNow(v.ID)
	if got := scrape(t, s, "kura_unbooked_seats"); got != "" {
		t.Errorf("with room for all the metric is %q, want none", got)
	}
}

// syncNow reads the vcenter's inventory and waits for its end.
func (w *world) syncNow(id string) {
	w.Helper()
	r, err := w.api.SyncVCenterWithResponse(w.ctx, id, nil)
	w.ok(r, err)
	job := r.JSON202.ID
	w.until("the end of the sync", func() bool {
		g, err := w.api.GetJobWithResponse(w.ctx, job)
		w.ok(g, err)
		return !g.JSON200.EndedAt.IsZero()
	})
}

// scrape returns the samples of that metric.
func scrape(t *testing.T, s *server.Server, name string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("metrics answer %s (%v)", a.Status, err)
	}
	var samples []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name) {
			samples = append(samples, strings.TrimSpace(line))
		}
	}
	return strings.Join(samples, "\n")
}
