package main

import (
	"net/http"
	"strings"
	"testing"
)

func aServer(clock string) reply {
	return ok(`{"version":"1.2.3","api_version":"1.0","installation_id":"` + groupA + `","time":"2036-12-01T12:00:00Z","retention_profile":"standard","retention_choices":{"one_time":[],"daily":[],"weekly":[],"monthly":[]},"clock":` + clock + `}`)
}

func TestAClockIsShownAndConfirmed(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/server", aServer(`{"time":"2036-12-01T12:00:00Z","trusted":false,"expected":"2026-12-01T12:00:00Z","warning":"The clock says otherwise."}`))
	r := f.kura("clock", "show")
	for _, want := range []string{"2036-12-01 12:00:00 UTC", "2026-12-01 12:00:00 UTC", "The clock says otherwise."} {
		if r.status != 0 || !strings.Contains(r.out, want) {
			t.Errorf("show: %d, lacks %q:\n%s", r.status, want, r.out)
		}
	}
	f.on("POST /v1/server:confirm-clock", problem(http.StatusConflict, "conflict", "Conflict", "Set the clock that is wrong."), ok(`{"time":"2026-12-01T12:00:00Z","trusted":true}`))
	if r := f.kura("clock", "confirm"); r.status != 1 || !strings.Contains(r.errout, "Set the clock that is wrong.") {
		t.Errorf("confirm by another time: %d %s", r.status, r.errout)
	}
	if r := f.kura("clock", "confirm"); r.status != 0 || !strings.Contains(r.errout, "trusted") || !strings.Contains(r.out, "2026-12-01 12:00:00 UTC") {
		t.Errorf("confirm: %d %s %s", r.status, r.out, r.errout)
	}
	if got := f.asked[len(f.asked)-1].body; !strings.Contains(got, `"time":"20`) {
		t.Errorf("sent %s, want this machine's time", got)
	}
}
