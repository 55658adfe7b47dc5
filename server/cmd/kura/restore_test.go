package main

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestADiskOfAnImageIsNamedByLabelOrKey(t *testing.T) {
	f := newFake(t)
	f.on("POST /v1/restores:check", ok(`{"warnings":[]}`))
	f.on("POST /v1/restores", reply{status: http.StatusCreated, body: `{"id":"` + restoreA + `","image_id":"` + imageA + `","disk":{"source_disk_label":"Hard disk 2","mode":"attach","virtual_machine_id":"` + vmA + `"},"job_id":"` + jobA + `","status":"queued","created_at":"2026-12-01T11:00:00Z"}`})
	f.on("GET /v1/backup-images/"+imageA, ok(anImage(imageA, "good")))
	f.on("GET /v1/virtual-machines?name=erp-test", items(aVM(vmB, "erp-test")))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--disk", "Hard disk 2"}, `{"source_disk_label":"Hard disk 2","virtual_machine_id":"` + vmA + `","mode":"replace"}`},
		{[]string{"--disk", "2001", "--vm", "erp-test", "--attach", "--datastore", "ds2"}, `{"source_disk_key":2001,"virtual_machine_id":"` + vmB + `","mode":"attach","datastore":"ds2"}`},
	} {
		r := f.kura(append([]string{"restore", "create", "--image", imageA}, c.args...)...)
		last := f.asked[len(f.asked)-1]
		if r.status != 0 || !sameJSON(t, last.body, `{"image_id":"`+imageA+`","disk":`+c.want+`}`) || !strings.Contains(r.out, "restores:  Hard disk 2, attached\n") {
			t.Errorf("%q: status %d (%s), asked %s, want %s; printed\n%s", c.args, r.status, r.errout, last.body, c.want, r.out)
		}
	}
	for _, args := range [][]string{
		{"--disk", "a", "--in-place"}, {"--disk", "a", "--datastore", "ds2"}, {"--disk", "a", "--power-on"}, {"--disk", "a", "--folder", "x"},
		{"--in-place", "--vm", "erp"}, {"--new-vm", "x", "--attach"}, {"--disk", "a", "--safety", "none"},
	} {
		if r := f.kura(append([]string{"restore", "create", "--image", imageA}, args...)...); r.status != 2 || r.errout == "" {
			t.Errorf("%q: status %d, stderr %q, want 2 and why", args, r.status, r.errout)
		}
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	for text, into := range map[string]*any{a: &x, b: &y} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return reflect.DeepEqual(x, y)
}
