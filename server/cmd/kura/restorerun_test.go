package main

import (
	"net/http"
	"strings"
	"testing"
)

const restoreB = "01JDZK3Q8X4T9V2M6B7N5C1RTB"

// ofVM is the image of a VM of the run.
func ofVM(id, vm string) string {
	return strings.Replace(anImage(id, "good"), `"name":"erp"`, `"name":"`+vm+`"`, 1)
}

// drill is a restore of a run as a server shows it.
func drill(id, image, job, name, status, more string) string {
	return `{"id":"` + id + `","image_id":"` + image + `","new_vm":{"name":"` + name + `"},"job_id":"` + job + `","status":"` + status + `","created_at":"2026-12-01T11:00:00Z","started_at":"2026-12-01T11:00:02Z"` + more + `}`
}

// two is a run of two VMs, crm and erp.
func two(f *fake) {
	f.on("GET /v1/backup-images?run_id="+runA, items(ofVM(imageA, "erp"), ofVM(imageB, "crm")))
}

// seed:N77
func TestAWholeRunIsRestoredAsNewVMs(t *testing.T) {
	f := newFake(t)
	two(f)
	f.on("POST /v1/restores:check", ok(`{"warnings":["Old passwords."]}`))
	f.on("POST /v1/restores", reply{status: http.StatusCreated, body: drill(restoreB, imageB, jobB, "drill-crm", "queued", "")},
		reply{status: http.StatusCreated, body: drill(restoreA, imageA, jobA, "drill-erp", "queued", "")})
	f.on("GET /v1/jobs/"+jobA, ok(aJob(jobA, "erp", "running", half)), ok(aJob(jobA, "erp", "succeeded", done)))
	f.on("GET /v1/jobs/"+jobB, ok(aJob(jobB, "crm", "succeeded", done)))
	const ended = `,"completed_at":"2026-12-01T11:00:14Z","restored_vm":{"moid":"vm-7","instance_uuid":"5015c0de","bios_uuid":"4215c0de","name":"drill-x"}`
	f.on("GET /v1/restores/"+restoreA, ok(drill(restoreA, imageA, jobA, "drill-erp", "succeeded", ended)))
	f.on("GET /v1/restores/"+restoreB, ok(drill(restoreB, imageB, jobB, "drill-crm", "succeeded", ended)))
	f.kura("restore", "create", "--run", runA, "--new-vm-prefix", "drill-", "--network", "prod=isolated", "--wait").want(t, 0,
		`NAME  STATUS     DURATION  RESTORED VM  ERROR  IMAGE                       ID
crm   succeeded  12s       drill-x      -      `+imageB+`  `+restoreB+`
erp   succeeded  12s       drill-x      -      `+imageA+`  `+restoreA+`
`, `Warning: crm: Old passwords.
Warning: erp: Old passwords.
backup of crm: succeeded after 12s
backup of erp: running, reading disks, 50 %, 512.0 MiB of 1.0 GiB, 100.0 MiB/s, 5s left
backup of erp: succeeded after 12s
`)
	keys := map[string]bool{}
	for _, q := range f.asked {
		if q.route == "POST /v1/restores" {
			keys[q.header.Get("Idempotency-Key")] = true
			name := "drill-erp"
			if strings.Contains(q.body, imageB) {
				name = "drill-crm"
			}
			if !strings.Contains(q.body, `"name":"`+name+`"`) || !strings.Contains(q.body, `"prod":"isolated"`) {
				t.Errorf("asked for %s, want the VM %s in the isolated network", q.body, name)
			}
		}
	}
	if len(keys) != 2 || keys[""] {
		t.Errorf("keys are %v, want one for each restore", keys)
	}
}

func TestARunOfWhichSomeCannotBeRestoredIsBegunOnlyWhenAsked(t *testing.T) {
	f := newFake(t)
	two(f)
	refusal := problem(http.StatusConflict, "vm_running", "The VM is running", "VM crm is running.")
	f.on("POST /v1/restores:check", refusal, ok(`{"warnings":[]}`))
	r := f.kura("restore", "create", "--run", runA, "--in-place", "--wait")
	r.want(t, 1, "", "Refused: crm: VM crm is running. (vm_running)\nkura: 1 of 2 images cannot be restored; none was begun. --keep-going restores the others.\n")

	f.on("POST /v1/restores:check", refusal, ok(`{"warnings":[]}`))
	f.kura("restore", "create", "--run", runA, "--in-place", "--keep-going", "--check").want(t, 0, "", "Refused: crm: VM crm is running. (vm_running)\n1 image of 2 can be restored.\n")

	f.on("POST /v1/restores:check", refusal, ok(`{"warnings":[]}`))
	f.on("POST /v1/restores", reply{status: http.StatusCreated, body: drill(restoreA, imageA, jobA, "x", "queued", "")})
	r = f.kura("restore", "create", "--run", runA, "--in-place", "--keep-going")
	if r.status != 1 || !strings.Contains(r.out, "erp   queued") || !strings.Contains(r.errout, "1 of 2 restores could not be begun.") || !strings.Contains(f.only("POST /v1/restores").body, imageA) {
		t.Errorf("status %d, stdout %s, stderr %s, want the other one begun", r.status, r.out, r.errout)
	}
}

func TestARunEndsWithStatusOneWhenOneOfItsRestoresFails(t *testing.T) {
	f := newFake(t)
	two(f)
	f.on("POST /v1/restores:check", ok(`{"warnings":[]}`))
	f.on("POST /v1/restores", reply{status: http.StatusCreated, body: drill(restoreB, imageB, jobB, "x", "queued", "")}, reply{status: http.StatusCreated, body: drill(restoreA, imageA, jobA, "x", "queued", "")})
	f.on("GET /v1/jobs/"+jobA, ok(aJob(jobA, "erp", "succeeded", done)))
	f.on("GET /v1/jobs/"+jobB, ok(aJob(jobB, "crm", "failed", noSpace)))
	f.on("GET /v1/restores/"+restoreA, ok(drill(restoreA, imageA, jobA, "x", "succeeded", "")))
	f.on("GET /v1/restores/"+restoreB, ok(drill(restoreB, imageB, jobB, "x", "failed", `,"error":{"code":"no_space","message":"Datastore ds1 is full."}`)))
	r := f.kura("restore", "create", "--run", runA, "--in-place", "--power-off", "--wait")
	if r.status != 1 || !strings.Contains(r.out, "Datastore ds1 is full. (no_space)") || !strings.Contains(r.errout, "1 of 2 restores did not succeed.") {
		t.Errorf("status %d, stdout %s, stderr %s, want the failure told", r.status, r.out, r.errout)
	}
}

func TestNamesThatARunHasTwiceAreNotMadeUp(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-images?run_id="+runA, items(ofVM(imageA, "erp"), ofVM(imageB, "erp")))
	f.on("POST /v1/restores:check", ok(`{"warnings":[]}`))
	r := f.kura("restore", "create", "--run", runA, "--new-vm-prefix", "drill-")
	if r.status != 1 || !strings.Contains(r.errout, "--image "+imageB) {
		t.Errorf("status %d, stderr %s, want the second of the name refused", r.status, r.errout)
	}
	for _, args := range [][]string{
		{"--run", runA, "--new-vm", "x"}, {"--run", runA, "--disk", "2000"}, {"--run", "nightly", "--in-place"}, {"--run", runA, "--image", imageA, "--in-place"},
		{"--image", imageA, "--new-vm-prefix", "x"}, {"--image", imageA, "--in-place", "--keep-going"}, {"--run", runA},
	} {
		if r := f.kura(append([]string{"restore", "create"}, args...)...); r.status != 2 || r.errout == "" {
			t.Errorf("%q: status %d, stderr %q, want 2 and why", args, r.status, r.errout)
		}
	}
}
