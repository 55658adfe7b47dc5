package main

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"
)

func aRun(state string, jobs ...string) string {
	ended := ""
	if state != "queued" && state != "running" {
		ended = `,"ended_at":"2026-12-01T11:00:42Z"`
	}
	return `{"id":"` + runA + `","schedule_id":"` + scheduleA + `","trigger":"manual","state":"` + state + `","created_at":"2026-12-01T11:00:00Z"` + ended + `,"jobs":[` + strings.Join(jobs, ",") + `]}`
}

// aJob is a job of a VM; more is further properties, each after a comma.
func aJob(id, vm, state, more string) string {
	return `{"id":"` + id + `","kind":"backup","run_id":"` + runA + `","virtual_machine":{"id":"` + vmA + `","name":"` + vm + `"},"state":"` + state + `",
		"attempt":1,"max_attempts":3,"created_at":"2026-12-01T11:00:00Z","started_at":"2026-12-01T11:00:02Z"` + more + `}`
}

const (
	still   = `,"messages":[],"progress":{"done":0,"total":0,"bytes_per_second":0}`
	half    = `,"messages":[],"step":"reading disks","progress":{"done":536870912,"total":1073741824,"bytes_per_second":104857600,"eta_seconds":5}`
	done    = `,"messages":[],"ended_at":"2026-12-01T11:00:14Z","progress":{"done":1073741824,"total":1073741824,"bytes_per_second":0}`
	told    = `,"messages":["Changed blocks could not be used; all were compared."],"ended_at":"2026-12-01T11:00:14Z","progress":{"done":1073741824,"total":1073741824,"bytes_per_second":0}`
	noSpace = `,"messages":[],"ended_at":"2026-12-01T11:00:40Z","progress":{"done":1,"total":2,"bytes_per_second":0},"error":{"code":"no_space","message":"Datastore ds1 is full."}`
)

func waiting(f *fake, runs ...reply) {
	f.on("GET /v1/backup-schedules?name=nightly", items(aSchedule("nightly")))
	f.on("POST /v1/backup-schedules/"+scheduleA+":run", accepted(aRun("queued")))
	f.on("GET /v1/runs/"+runA, runs...)
}

// seed:W8
func TestWaitingForARunTellsEveryChangeOnceAndEndsWithIt(t *testing.T) {
	f := newFake(t)
	waiting(f,
		ok(aRun("queued", aJob(jobA, "erp", "queued", still))),
		ok(aRun("running", aJob(jobA, "erp", "running", half))),
		ok(aRun("running", aJob(jobA, "erp", "running", half))),
		ok(aRun("succeeded", aJob(jobA, "erp", "succeeded", told))))
	f.kura("schedule", "run", "nightly", "--wait").want(t, 0, `id:           `+runA+`
type:         manual
state:        succeeded
schedule id:  `+scheduleA+`
started:      2026-12-01 11:00:00 UTC
ended:        2026-12-01 11:00:42 UTC

jobs:
START TIME               TYPE    STATUS     DURATION  VM   MESSAGE                                               ID
2026-12-01 11:00:02 UTC  backup  succeeded  12s       erp  Changed blocks could not be used; all were compared.  `+jobA+`
`, `backup of erp: queued
backup of erp: running, reading disks, 50 %, 512.0 MiB of 1.0 GiB, 100.0 MiB/s, 5s left
backup of erp: succeeded after 12s Changed blocks could not be used; all were compared.
`)
}

func TestARunThatIsPartialEndsWithStatusOne(t *testing.T) {
	f := newFake(t)
	waiting(f, ok(aRun("partial", aJob(jobA, "erp", "succeeded", done), aJob(jobB, "crm", "failed", noSpace))))
	r := f.kura("schedule", "run", "nightly", "--wait", "-o", "json")
	if r.status != 1 || !strings.Contains(r.out, `"state": "partial"`) {
		t.Errorf("status %d, stdout %s, want 1 and the run", r.status, r.out)
	}
	const want = `backup of erp: succeeded after 12s
backup of crm: failed after 38s: Datastore ds1 is full. (no_space)
kura: The run ended as partial: 1 of 2 jobs did not succeed.
`
	if r.errout != want {
		t.Errorf("stderr is\n%s\nwant\n%s", r.errout, want)
	}
}

func TestWaitingOutlivesAServerThatIsStartedAgain(t *testing.T) {
	f := newFake(t)
	waiting(f,
		ok(aRun("running", aJob(jobA, "erp", "running", half))),
		problem(http.StatusServiceUnavailable, "unavailable", "Stopping", "The server is stopping."),
		problem(http.StatusServiceUnavailable, "unavailable", "Stopping", "The server is stopping."),
		problem(http.StatusServiceUnavailable, "unavailable", "Stopping", "The server is stopping."),
		problem(http.StatusServiceUnavailable, "unavailable", "Stopping", "The server is stopping."),
		ok(aRun("succeeded", aJob(jobA, "erp", "succeeded", done))))
	var out, errout strings.Builder
	s := &session{stdout: &out, stderr: &errout, now: time.Now, poll: time.Millisecond, patience: time.Minute}
	status := s.run(t.Context(), []string{"schedule", "run", "nightly", "--wait", "--endpoint", f.url}, func(string) string { return "" })
	if status != 0 || !strings.Contains(errout.String(), "The server does not answer; waiting for it.\nbackup of erp: succeeded") {
		t.Errorf("status %d, stderr %s", status, errout.String())
	}
}

func TestASignalEndsTheWaitAndSaysThatTheRunGoesOn(t *testing.T) {
	f := newFake(t)
	waiting(f, ok(aRun("running", aJob(jobA, "erp", "running", half))))
	ctx, cancel := context.WithCancel(t.Context())
	s := &session{stdout: new(strings.Builder), now: time.Now, poll: time.Millisecond}
	var errout strings.Builder
	s.stderr = writer(func(p []byte) (int, error) { // the first line of progress is the event to act on
		cancel()
		return errout.Write(p)
	})
	status := s.run(ctx, []string{"schedule", "run", "nightly", "--wait", "--endpoint", f.url}, func(string) string { return "" })
	if status != 1 || !strings.HasSuffix(errout.String(), "kura: interrupted\nThe run goes on: see kura run show "+runA+".\n") {
		t.Errorf("status %d, stderr %s", status, errout.String())
	}
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// seed:N40
func TestTheHistoryIsOfTheLastDaysOrOfAllTime(t *testing.T) {
	f := newFake(t)
	old := strings.Replace(aRun("succeeded"), "2026-12-01T11:00:00Z", "2026-11-01T11:00:00Z", 1)
	f.on("GET /v1/runs", ok(`{"items":[`+aRun("partial")+`,`+old+`],"next_cursor":"p2"}`))
	f.on("GET /v1/runs?cursor=p2", items(old))
	f.on("GET /v1/backup-schedules", items(aSchedule("nightly")))
	f.kura("run", "list", "--last", "7d").want(t, 0, `START TIME               TYPE    STATUS   DURATION  SCHEDULE  MESSAGE  ID
2026-12-01 11:00:00 UTC  manual  partial  42s       nightly   -        `+runA+`
`, "")
	if r := f.kura("run", "list"); strings.Count(r.out, runA) != 3 {
		t.Errorf("stdout is %s, want all three runs", r.out)
	}
	if r := f.kura("run", "list", "--limit", "1", "-o", "json"); strings.Count(r.out, `"id": "`+runA) != 1 {
		t.Errorf("stdout is %s, want one run", r.out)
	}
	f.on("GET /v1/jobs?created_after=2026-11-24T12%3A00%3A00Z", items())
	f.kura("job", "list", "--last", "7d").want(t, 0, "", "No jobs.\n")
	for _, bad := range []string{"7", "0d", "-1h", "d", "7 d", "99999999d"} {
		if r := f.kura("job", "list", "--last="+bad); r.status != 2 {
			t.Errorf("--last=%s: status %d, want 2", bad, r.status)
		}
	}
}
