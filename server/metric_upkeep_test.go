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
	if got, want := scrape(t, s, "kura_repository_"), `kura_repository_damaged_images{repository="default"} 0`; got != want {
		t.Errorf("before a collection the metrics are %q, want %q", got, want)
	}
	r, err := w.api.ListRepositoriesWithResponse(w.ctx, nil)
	w.ok(r, err)
	j, err := s.Planner().Collect(w.ctx, r.JSON200.Items[0].ID, false)
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
