package main

import (
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func events(jobs ...string) reply {
	text := ""
	for _, j := range jobs {
		text += "event: job\ndata: " + strings.ReplaceAll(j, "\n", "") + "\n\n: still here\n\n"
	}
	return ok(text)
}

// seed:N39
func TestTheHistoryHasItsColumnsInOrder(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/jobs", items(
		aJob(jobA, "erp", "running", half),
		aJob(jobB, "crm", "failed", noSpace),
		aJob(jobA, "late", "succeeded", done+`,"late_by_seconds":3600`)))
	f.kura("job", "list").want(t, 0, `START TIME               TYPE    STATUS     DURATION  VM    MESSAGE                                                          ID
2026-12-01 11:00:02 UTC  backup  running    59m58s    erp   reading disks, 50 %, 512.0 MiB of 1.0 GiB, 100.0 MiB/s, 5s left  `+jobA+`
2026-12-01 11:00:02 UTC  backup  failed     38s       crm   Datastore ds1 is full.                                           `+jobB+`
2026-12-01 11:00:02 UTC  backup  succeeded  12s       late  late by 1h0m0s                                                   `+jobA+`
`, "")
}

func TestJobsAreFilteredByTheServer(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?name=erp", items(aVM(vmA, "erp")))
	f.on("GET /v1/jobs?active=true&kind=backup&run_id="+runA+"&state=queued&virtual_machine_id="+vmA, items())
	f.kura("job", "list", "--vm", "erp", "--kind", "backup", "--state", "queued", "--run", runA, "--active").want(t, 0, "", "No jobs.\n")
}

func TestWatchingAJobFollowsItsEventsThroughABrokenStream(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/jobs/"+jobA+"/events",
		events(aJob(jobA, "erp", "queued", still), aJob(jobA, "erp", "running", half)),
		events(aJob(jobA, "erp", "running", half), aJob(jobA, "erp", "succeeded", done)))
	f.on("GET /v1/jobs/"+jobA, ok(aJob(jobA, "erp", "succeeded", done)))
	r := f.kura("job", "watch", jobA)
	if r.status != 0 || !strings.Contains(r.out, "state:            succeeded\n") {
		t.Errorf("status %d, stdout %s", r.status, r.out)
	}
	if got, want := strings.Count(r.errout, "\n"), 3; got != want {
		t.Errorf("stderr is\n%s\nwant %d lines: queued, running, succeeded", r.errout, want)
	}
}

func TestWatchingAJobThatFailsEndsWithStatusOne(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/jobs/"+jobB+"/events", events(aJob(jobB, "crm", "failed", noSpace)))
	f.on("GET /v1/jobs/"+jobB, ok(aJob(jobB, "crm", "failed", noSpace)))
	r := f.kura("job", "watch", jobB)
	if r.status != 1 || !strings.HasSuffix(r.errout, "kura: The job ended as failed. Datastore ds1 is full.\n") {
		t.Errorf("status %d, stderr %s", r.status, r.errout)
	}
}

// seed:A65
func TestARunningJobIsCancelled(t *testing.T) {
	f := newFake(t)
	stopped := aJob(jobA, "erp", "cancelled", done+`,"cancel_requested":true`)
	f.on("POST /v1/jobs/"+jobA+":cancel", accepted(aJob(jobA, "erp", "running", half+`,"cancel_requested":true`)))
	f.on("GET /v1/jobs/"+jobA+"/events", events(stopped))
	f.on("GET /v1/jobs/"+jobA, ok(stopped))
	if r := f.kura("job", "cancel", jobA, "--wait"); r.status != 0 || !strings.Contains(r.out, "cancelled") {
		t.Errorf("status %d, stdout %s, stderr %s", r.status, r.out, r.errout)
	}
	f.on("GET /v1/jobs/"+jobA+"/events", events(aJob(jobA, "erp", "succeeded", done)))
	f.on("GET /v1/jobs/"+jobA, ok(aJob(jobA, "erp", "succeeded", done)))
	if r := f.kura("job", "cancel", jobA, "--wait"); r.status != 1 || !strings.Contains(r.errout, "over before") {
		t.Errorf("a job that was over: status %d, stderr %s, want 1", r.status, r.errout)
	}
}

func TestOnATerminalOneLineIsDrawnAgain(t *testing.T) {
	var text strings.Builder
	m := &meter{w: &text, terminal: true, told: map[string]string{}}
	first, second := mustJob(t, aJob(jobA, "erp", "running", half)), mustJob(t, aJob(jobB, "crm", "queued", still))
	m.show(first)
	m.show(first, second)
	m.clear()
	const want = "\x1b[?7lreading disks [##########----------] 50 %, 512.0 MiB of 1.0 GiB, 100.0 MiB/s, 5s left\x1b[?7h" +
		"\r\x1b[K\x1b[?7l0 of 2 over [##########----------] 50 %, 512.0 MiB of 1.0 GiB, 100.0 MiB/s, 5s left\x1b[?7h" +
		"\r\x1b[K"
	if text.String() != want {
		t.Errorf("drawn\n%q\nwant\n%q", text.String(), want)
	}
}

func mustJob(t *testing.T, text string) api.Job {
	t.Helper()
	j, err := decode[api.Job]([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return j
}
