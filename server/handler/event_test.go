package handler_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func (r *rig) backup() api.Run {
	r.t.Helper()
	return into[api.Run](r, r.do(call{method: "POST", path: "/v1/virtual-machines/" + r.vms[0].ID + ":backup", role: auth.Backup, body: api.BackupOptions{RetentionDays: 1}}), 202)
}

func TestAJobIsFollowedToItsEnd(t *testing.T) {
	r := newRig(t)
	run := r.backup()
	var lease backup.Lease
	var steps []string
	last, err := r.client(auth.Viewer).FollowJob(context.Background(), run.Jobs[0].ID, func(j api.Job) {
		steps = append(steps, string(j.State)+" "+j.Step)
		switch { // each event brings the next change about
		case j.State == api.JobStateQueued:
			lease = r.claim(j.ID)
		case j.Step == "":
			r.must(r.db.Save(context.Background(), lease, backup.Progress{Step: "reading disks", Done: 256, Total: 1024, Rate: 256}))
		case !j.State.Final():
			if j.Progress.EtaSeconds != 3 || j.Progress.Done != 256 {
				t.Errorf("progress = %+v, want 256 done and 3 seconds left", j.Progress)
			}
			r.finish(lease, backup.JobSucceeded)
		}
	})
	r.must(err)
	if last.State != api.JobStateSucceeded {
		t.Errorf("last = %s, want succeeded", last.State)
	}
	want := []string{"queued ", "running ", "running reading disks"}
	if diff := cmp.Diff(want, steps[:min(3, len(steps))]); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestAStreamBeatsWhileNothingHappensAndEndsWithItsRequest(t *testing.T) {
	r := newRig(t)
	run := r.backup()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	resp, err := r.client(auth.Viewer).StreamJobEvents(ctx, run.Jobs[0].ID)
	r.must(err)
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s, want 200 text/event-stream", resp.StatusCode, got)
	}
	in := bufio.NewReader(resp.Body)
	beats, events := 0, 0
	for beats < 3 {
		line, err := in.ReadString('\n')
		r.must(err)
		switch {
		case strings.HasPrefix(line, ":"):
			beats++
		case strings.HasPrefix(line, "event: job"):
			events++
		}
	}
	if events != 1 {
		t.Errorf("%d events, want 1: nothing changed", events)
	}
	cancel()
	if _, err := io.ReadAll(in); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller left: %v, want the stream to end", err)
	}
}

func TestAJobThatIsOverIsToldOnce(t *testing.T) {
	r := newRig(t)
	run := r.backup()
	r.finish(r.claim(run.Jobs[0].ID), backup.JobFailed)
	a := r.do(call{method: "GET", path: "/v1/jobs/" + run.Jobs[0].ID + "/events", role: auth.Viewer})
	if n := strings.Count(string(a.body), "event: job"); a.status != 200 || n != 1 {
		t.Errorf("%d with %d events, want 200 with 1:\n%s", a.status, n, a.body)
	}
	if a := r.do(call{method: "GET", path: "/v1/jobs/" + nobody + "/events", role: auth.Viewer}); a.status != 404 {
		t.Errorf("events of a job that is not there: %d, want 404", a.status)
	}
}
