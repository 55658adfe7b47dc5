package main

import (
	"net/http"
	"strings"
	"testing"
)

const holdA = "01JDZK3Q8X4T9V2M6B7N5C1R0P"

func aHold(until string) string {
	return `{"id":"` + holdA + `","image_id":"` + imageA + `",` + until + `"reason":"audit\u001b[2J","created_by":"pipeline","created_at":"2026-12-01T02:20:00Z"}`
}

// seed:A33
func TestAnImageIsHeldAndGivenBack(t *testing.T) {
	f := newFake(t)
	f.on("POST /v1/backup-images/"+imageA+"/holds", reply{status: http.StatusCreated, body: aHold(`"until":"2027-04-01T00:00:00Z",`)})
	f.kura("image", "hold", imageA, "--until", "2027-04-01", "--reason", "audit").want(t, 0, `id:          `+holdA+`
image id:    `+imageA+`
until:       2027-04-01 00:00:00 UTC
reason:      audit\x1b[2J
created by:  pipeline
created:     2026-12-01 02:20:00 UTC
`, "")
	f.on("DELETE /v1/backup-images/"+imageA+"/holds/"+holdA, ok(`{"image_id":"`+imageA+`","held":false,"message":"The image never expires."}`))
	f.kura("image", "hold", imageA, "--release", holdA).want(t, 0, "Released hold "+holdA+". The image never expires.\n", "")
	if r := f.kura("image", "hold", imageA, "--release", holdA, "-o", "json"); r.status != 0 || !strings.Contains(r.out, `"held": false`) {
		t.Errorf("as JSON: %d %s", r.status, r.out)
	}
	for _, bad := range [][]string{{"image", "hold", "erp"}, {"image", "hold", imageA, "--release", "audit"}, {"image", "hold", imageA, "--release", holdA, "--reason", "x"},
		{"image", "hold", imageA, "--until", "soon"}, {"image", "extend", imageA}, {"image", "extend", imageA, "--never", "--retention-days", "3"}, {"image", "extend", "erp", "--never"}} {
		if r := f.kura(bad...); r.status != 2 {
			t.Errorf("%v: status %d (%s), want 2", bad, r.status, r.errout)
		}
	}
}

func TestAHeldImageIsShownWithItsHolds(t *testing.T) {
	f := newFake(t)
	held := strings.Replace(anImage(imageA, "good"), `"status"`, `"held":true,"storage_locked_until":"2026-12-07T00:00:00Z","holds":[`+aHold("")+`],"status"`, 1)
	f.on("GET /v1/backup-images/"+imageA, ok(held))
	r := f.kura("image", "show", imageA)
	for _, want := range []string{"2026-12-07 00:00:00 UTC", "changed:", "900.0 MiB", "(held)", holdA + "  until it is released  audit\\x1b[2J  pipeline"} {
		if r.status != 0 || !strings.Contains(r.out, want) {
			t.Errorf("show: %d, lacks %q:\n%s", r.status, want, r.out)
		}
	}
	until := strings.Replace(anImage(imageB, "good"), `"status"`, `"held":true,"held_until":"2027-04-01T00:00:00Z","status"`, 1)
	f.on("GET /v1/backup-images", items(held, until))
	r = f.kura("image", "list")
	if !strings.Contains(r.out, "2026-12-08 17:03:12 UTC (held) ") || !strings.Contains(r.out, "(held until 2027-04-01 00:00:00 UTC)") {
		t.Errorf("list: %s, want how the images are held", r.out)
	}
}

// seed:A37 seed:A43
func TestAnImageIsExtended(t *testing.T) {
	for want, args := range map[string][]string{
		`{"retention_days":366}`:                {"--retention-days", "366"},
		`{"expires_at":"2030-01-01T00:00:00Z"}`: {"--expires-at", "2030-01-01"},
		`{"retention_days":0}`:                  {"--never"},
	} {
		f := newFake(t)
		f.on("PATCH /v1/backup-images/"+imageA, ok(anImage(imageA, "good")))
		if r := f.kura(append([]string{"image", "extend", imageA}, args...)...); r.status != 0 || !strings.Contains(r.out, imageA) {
			t.Errorf("extend %v: %d %s %s", args, r.status, r.out, r.errout)
		}
		if got := f.only("PATCH /v1/backup-images/" + imageA).body; got != want {
			t.Errorf("extend %v asks for %s, want %s", args, got, want)
		}
	}
}
