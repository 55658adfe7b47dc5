package main

import (
	"strings"
	"testing"
)

const (
	copyA    = "01JDZK3Q8X4T9V2M6B7N5C1R0V"
	aCopyJob = "01JDZK3Q8X4T9V2M6B7N5C1R0W"
	aCopy    = `{"id":"` + copyA + `","repository":"second-site","status":"good","expires_at":"2026-12-31T17:03:12Z","copied_at":"2026-11-30T17:21:08Z","job_id":"` + aCopyJob + `"}`
	failed   = `{"repository":"third","status":"failed","job_id":"` + aCopyJob + `","message":"It is away\u001b[2J"}`
)

// seed:K2 seed:A46
func TestAnImageIsCopiedAndItsCopiesAreListed(t *testing.T) {
	f := newFake(t)
	f.on("POST /v1/backup-images/"+imageA+"/copies", accepted(aJob(aCopyJob, "erp", "queued", still)))
	if r := f.kura("image", "copy", imageA, "--to", "second-site", "--retention-days", "0"); r.status != 0 || !strings.Contains(r.out, aCopyJob) {
		t.Errorf("copy: %d %s%s, want the job", r.status, r.out, r.errout)
	}
	if body := f.only("POST /v1/backup-images/" + imageA + "/copies").body; !strings.Contains(body, `"retention_days":0`) || !strings.Contains(body, `"repository":"second-site"`) {
		t.Errorf("asked for %s, want both as given", body)
	}
	f.on("GET /v1/backup-images/"+imageA+"/copies", items(aCopy, failed))
	f.kura("image", "copies", imageA).want(t, 0, `REPOSITORY   STATUS  COPIED                   EXPIRES                  ID                          JOB                         MESSAGE
second-site  good    2026-11-30 17:21:08 UTC  2026-12-31 17:03:12 UTC  `+copyA+`  `+aCopyJob+`  -
third        failed  -                        never                    -                           `+aCopyJob+`  It is away\x1b[2J
`, "")
	for _, bad := range [][]string{{"image", "copy", imageA}, {"image", "copy", "erp", "--to", "x"}, {"image", "copies", "erp"}, {"image", "copy", imageA, "--to", "x", "--retention-days", "many"}} {
		if r := f.kura(bad...); r.status != 2 {
			t.Errorf("%v: status %d (%s), want 2", bad, r.status, r.errout)
		}
	}
}

func TestAnImageIsShownWithItsCopies(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-images/"+imageA, ok(strings.Replace(anImage(imageA, "good"), `"status"`, `"copies":[`+aCopy+`],"status"`, 1)))
	if r := f.kura("image", "show", imageA); r.status != 0 || !strings.Contains(r.out, "second-site  good") || !strings.Contains(r.out, copyA) {
		t.Errorf("show: %d, want the copy:\n%s", r.status, r.out)
	}
	f.on("GET /v1/backup-images/"+copyA, ok(strings.Replace(anImage(copyA, "good"), `"status"`, `"copy_of":"`+imageA+`","status"`, 1)))
	if r := f.kura("image", "show", copyA); !strings.Contains(r.out, "copy of") || !strings.Contains(r.out, imageA) {
		t.Errorf("show of a copy: want whose it is:\n%s", r.out)
	}
	f.on("GET /v1/backup-images?copies=true", items(anImage(imageA, "good"), anImage(copyA, "good")))
	if r := f.kura("image", "list", "--copies"); r.status != 0 || !strings.Contains(r.out, copyA) {
		t.Errorf("list: %d %s%s, want the copy", r.status, r.out, r.errout)
	}
}
