package server_test

import (
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func TestACollectionOfARunningServerIsAJobAndAMetric(t *testing.T) {
	t.Parallel()
	l := newLab(t, lab.Config{VMs: 1})
	s := start(t, server.Config{})
	w := &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
	want := `kura_repository_damaged_images{repository="default"} 0
kura_repository_recovery_sheet_timestamp_seconds{repository="default"} 0
kura_repository_warnings{repository="default"} 1`
	if got := scrape(t, s, "kura_repository_"); got != want {
		t.Errorf("before a collection the metrics are %q, want %q", got, want)
	}
	r, err := w.api.ListRepositoriesWithResponse(w.ctx, nil)
	w.ok(r, err)
	id := r.JSON200.Items[0].ID
	sheet, err := w.api.RecoverySheetWithResponse(w.ctx, id, api.RecoverySheet{})
	w.ok(sheet, err)
	if got := scrape(t, s, "kura_repository_warnings"); got != `kura_repository_warnings{repository="default"} 0` {
		t.Errorf("with a recovery sheet the metric is %q, want nothing to see to", got)
	}
	if got := scrape(t, s, "kura_repository_recovery_sheet"); strings.HasSuffix(got, " 0") {
		t.Errorf("with a recovery sheet the metric is %q, want when it was given out", got)
	}
	j, err := s.Planner().Collect(w.ctx, id, false)
	if err != nil {
		t.Fatal(err)
	}
	var ended api.Job
	w.until("the end of the collection", func() bool {
		g, err := w.api.GetJobWithResponse(w.ctx, j.ID)
		w.ok(g, err)
		ended = *g.JSON200
		return !ended.EndedAt.IsZero()
	})
	if ended.State != api.JobStateSucceeded || ended.Kind != api.JobKindCollect || !strings.Contains(strings.Join(ended.Messages, " "), "were freed") {
		t.Errorf("job = %+v, want it to say what was freed", ended)
	}
	got := scrape(t, s, "kura_repository_")
	for _, name := range []string{"live_bytes", "waiting_bytes", "index_blobs", "collected_timestamp_seconds"} {
		if !strings.Contains(got, "kura_repository_"+name+`{repository="default"} `) {
			t.Errorf("metrics lack %s:\n%s", name, got)
		}
	}
}
