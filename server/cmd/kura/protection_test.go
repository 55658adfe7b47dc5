package main

import (
	"strings"
	"testing"
	"time"
)

func TestWhatLacksProtectionIsListedAndEndsWithStatusOne(t *testing.T) {
	entry := func(id, name, rest string) string {
		return `{"virtual_machine":{"id":"` + id + `","name":"` + name + `"},"vcenter_id":"` + vcenterA + `",` + rest + `}`
	}
	fresh := time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)
	const scheduled = `"schedules":[{"id":"s1","name":"nightly"},{"id":"s2","name":"weekly"}]`
	f := newFake(t)
	f.on("GET /v1/protection", items(
		entry(vmA, "erp", `"protected":true,`+scheduled+`,"last_good_at":"`+fresh+`"`),
		entry(vmB, "old", `"protected":true,`+scheduled+`,"last_good_at":"2026-01-01T00:00:00Z"`),
		entry(vmB, "bare", `"protected":false,"schedules":[]`),
		entry(vmB, "new", `"protected":true,`+scheduled),
		entry(vmB, "odd", `"protected":false,`+scheduled+`,"unprotectable_reason":"Hard disk 1: it is independent"`),
	))
	r := f.kura("vm", "protection")
	if r.status != 0 || !strings.Contains(r.out, "nightly, weekly") || strings.Count(r.out, "\n") != 6 {
		t.Errorf("status %d, stdout\n%s", r.status, r.out)
	}
	r = f.kura("vm", "protection", "--lacking", "--max-age", "26h")
	for _, want := range []string{"an image that is newer", "a schedule", "an image ", "Hard disk 1: it is independent"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("stdout has no %q:\n%s", want, r.out)
		}
	}
	if r.status != 1 || strings.Contains(r.out, "erp") || !strings.Contains(r.errout, "4 virtual machines of 5 lack protection") {
		t.Errorf("status %d, stderr %q, stdout\n%s", r.status, r.errout, r.out)
	}
	f.on("GET /v1/protection", items(entry(vmA, "erp", `"protected":true,`+scheduled)))
	if r := f.kura("vm", "protection", "--lacking"); r.status != 0 {
		t.Errorf("status %d, stderr %q", r.status, r.errout)
	}
}
