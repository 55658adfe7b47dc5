package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func aVCenter(state string) string {
	return `{"id":"` + vcenterA + `","name":"tokyo","endpoint":"https://vcenter.example.com","username":"kura@vsphere.local","time_zone":"Asia/Tokyo","slot_capacity":10,
		"sync_state":"` + state + `","sync_error":"The vCenter refused the password.","inventory_synced_at":"2026-12-01T01:58:00Z"}`
}

func aSchedule(name string) string {
	return `{"id":"` + scheduleA + `","name":"` + name + `","enabled":true,"group_id":"` + groupA + `","start_time":"02:00","time_zone":"Asia/Tokyo","daily":{},"retention_days":8,
		"extended_retention":[{"days_of_week":["sunday"],"retention_days":56}],"max_delay_hours":6,"repository":"default","seats":8,"summary":"Every day at 02:00 Asia/Tokyo.","next_run_at":"2026-12-02T02:00:00+09:00"}`
}

func aGroup() string {
	return `{"id":"` + groupA + `","name":"gold","selector":{"vcenter_id":"` + vcenterA + `","tags":[{"category":"backup","name":"gold"}],"folder":"/DC0/vm","recursive":true}}`
}

func anImage(id, status string) string {
	return `{"id":"` + id + `","virtual_machine":{"id":"` + vmA + `","name":"erp"},"vcenter_id":"` + vcenterA + `","started_at":"2026-11-30T17:03:12Z","ended_at":"2026-11-30T17:09:40Z",
		"point_in_time":"2026-11-30T17:03:21Z","expires_at":"2026-12-08T17:03:12Z","status":"` + status + `","consistency":"crash","change_detection":"cbt",
		"disks":[{"key":2000,"label":"Hard disk 1","capacity":68719476736,"read":1610612736,"changed":943718400,"stored":402653184},{"key":2001,"label":"Hard disk 2","capacity":0,"read":0,"changed":0,"stored":0,"skipped_reason":"independent"}],
		"sizes":{"provisioned":68719476736,"read":1610612736,"changed":943718400,"stored":402653184},"repository":"default","labels":{"tier":"gold"}}`
}

// seed:W22
func TestVCentersAreListedWithTheAgeOfTheirInventory(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/vcenters", items(aVCenter("ready")))
	f.kura("vcenter", "list").want(t, 0, `NAME   ENDPOINT                     SYNC   INVENTORY OF             SEATS  TIME ZONE   ID
tokyo  https://vcenter.example.com  ready  2026-12-01 01:58:00 UTC  10     Asia/Tokyo  `+vcenterA+`
`, "")
}

func TestAVCenterIsAddedWithAPasswordThatIsNeverShown(t *testing.T) {
	f := newFake(t)
	env := map[string]string{"KURA_ENDPOINT": f.url, "KURA_TOKEN": "t"}
	f.on("POST /v1/vcenters", reply{status: http.StatusCreated, body: aVCenter("pending")})
	f.on("GET /v1/vcenters/"+vcenterA, ok(aVCenter("pending")), ok(aVCenter("ready")))
	args := []string{"vcenter", "create", "tokyo", "https://vcenter.example.com", "--username", "kura@vsphere.local", "--time-zone", "Asia/Tokyo", "--wait"}
	r := kura(t.Context(), env, " p\"w \r\n", args...)
	if r.status != 0 || !strings.Contains(r.out, "sync:            ready") || strings.Contains(r.out+r.errout, "p\"w") {
		t.Errorf("status %d, stdout %s, stderr %s", r.status, r.out, r.errout)
	}
	const want = `{"endpoint":"https://vcenter.example.com","name":"tokyo","password":" p\"w ","time_zone":"Asia/Tokyo","username":"kura@vsphere.local"}`
	if got := strings.TrimSpace(f.only("POST /v1/vcenters").body); got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	f.on("GET /v1/vcenters/"+vcenterA, ok(aVCenter("failed")))
	file := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(file, []byte("pw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = kura(t.Context(), env, "", append(args, "--password-file", file)...)
	if r.status != 1 || !strings.Contains(r.errout, "The vCenter refused the password.") {
		t.Errorf("a password that is refused: status %d, stderr %s", r.status, r.errout)
	}
	if r := kura(t.Context(), env, "\n", args...); r.status != 2 {
		t.Errorf("no password: status %d, want 2", r.status)
	}
}

func TestAVCenterIsRemovedByName(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/vcenters?name=tokyo", items(aVCenter("ready")))
	f.on("DELETE /v1/vcenters/"+vcenterA, reply{status: http.StatusNoContent})
	f.kura("vcenter", "delete", "tokyo").want(t, 0, "Deleted vcenter tokyo ("+vcenterA+").\n", "")
	f.on("DELETE /v1/vcenters/"+vcenterA, problem(http.StatusConflict, "in_use", "The vcenter is in use", "Group gold names it."))
	f.kura("vcenter", "delete", "tokyo").want(t, 1, "", "kura: The vcenter is in use\n  Group gold names it.\n  Code: in_use   Request: 01JDZK3Q8X4T9V2M6B7N5C1R0Z\n")
}

func TestAGroupIsListedWithWhatItSelectsAndItsMembers(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-groups", items(aGroup()))
	f.on("GET /v1/backup-groups?name=gold", items(aGroup()))
	f.on("GET /v1/backup-groups/"+groupA+"/members", items(aVM(vmA, "erp")))
	f.kura("group", "list").want(t, 0, `NAME  LISTED  SELECTS                                     ID
gold  0       tags backup:gold; folder /DC0/vm and below  `+groupA+`
`, "")
	f.kura("group", "members", "gold").want(t, 0, `NAME  POWER  DISKS  SIZE      TAGS         FOLDER        CANNOT BE BACKED UP  ID
erp   on     1      64.0 GiB  backup:gold  /DC0/vm/prod  -                    `+vmA+`
`, "")
}

// seed:N35
func TestTheComingSlotsAreShownInBothClocks(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-schedules?name=nightly", items(aSchedule("nightly")))
	f.on("GET /v1/backup-schedules/"+scheduleA+"/occurrences?count=2&from=2026-12-01T00%3A00%3A00Z", items(`{"starts_at":"2026-12-01T23:00:00+09:00"}`, `{"starts_at":"2026-12-02T00:00:00+09:00"}`))
	f.kura("schedule", "occurrences", "nightly", "--from", "2026-12-01", "--count", "2").want(t, 0, `STARTS AT                LOCAL TIME                   LOCAL SLOT
2026-12-01 14:00:00 UTC  Tue 2026-12-01 23:00 +09:00  23-24
2026-12-01 15:00:00 UTC  Wed 2026-12-02 00:00 +09:00  00-01
`, "")
}

func TestAScheduleIsShownInWords(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-schedules/"+scheduleA, ok(aSchedule("nightly")))
	r := f.kura("schedule", "show", scheduleA)
	for _, want := range []string{"when:                 Every day at 02:00 Asia/Tokyo.", "kept:                 8 days", "kept longer:          56 days on sunday", "next run:             2026-12-01 17:00:00 UTC", "late at most:         6 hours"} {
		if !strings.Contains(r.out, want+"\n") {
			t.Errorf("stdout is\n%s\nwant the line %q", r.out, want)
		}
	}
}

func TestAFileIsCheckedWithNamesInThePlaceOfIDs(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/backup-groups?name=gold", items(aGroup()))
	f.on("GET /v1/backup-schedules?name=old", items(aSchedule("old")))
	f.on("POST /v1/backup-schedules:check", ok(`{"schedule":`+aSchedule("n")+`,"warnings":["No run in February."]}`))
	env := map[string]string{"KURA_ENDPOINT": f.url}
	r := kura(t.Context(), env, "name: n\ngroup: gold\nstart_time: 02:00\none_time: {date: 2026-12-24}\nretention_days: 31\nenabled: false\n", "schedule", "check", "-", "--change", "old")
	if r.status != 0 {
		t.Errorf("status %d, stderr %s", r.status, r.errout)
	}
	const want = `{"id":"` + scheduleA + `","schedule":{"enabled":false,"group_id":"` + groupA + `","name":"n","one_time":{"date":"2026-12-24"},"retention_days":31,"start_time":"02:00"}}`
	if got := f.only("POST /v1/backup-schedules:check").body; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	if !strings.Contains(r.out, "warning:     No run in February.\n") {
		t.Errorf("stdout is %s, want the warning", r.out)
	}
	for name, text := range map[string]string{"a list": "- 1", "nothing": "", "no YAML": "{", "a key twice": "a: 1\na: 2", "an alias": "a: &x 1\nb: *x"} {
		if r := kura(t.Context(), env, text, "schedule", "check", "-"); r.status != 2 {
			t.Errorf("%s: status %d, stderr %s, want 2", name, r.status, r.errout)
		}
	}
}

// seed:N41
func TestImagesAreListedWithStartEndSizeAndDisks(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?name=erp", items())
	f.on("GET /v1/virtual-machines?include_gone=true&name=erp", items())
	f.on("GET /v1/backup-images?created_after=2026-11-30T00%3A00%3A00Z&label=tier%3Dgold&status=good&virtual_machine_name=erp", items(anImage(imageA, "good")))
	f.kura("image", "list", "--vm", "erp", "--after", "2026-11-30", "--status", "good", "--label", "tier=gold").want(t, 0,
		`START                    END                      SIZE      DISKS   STATUS  VM   EXPIRES                  ID
2026-11-30 17:03:12 UTC  2026-11-30 17:09:40 UTC  64.0 GiB  1 of 2  good    erp  2026-12-08 17:03:12 UTC  `+imageA+`
`, "")
}

// seed:A62 seed:N43
func TestImagesOfAPeriodAreDeletedAndALockedOneStays(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?name=erp", items(aVM(vmA, "erp")))
	f.on("GET /v1/backup-images?created_before=2026-12-01T00%3A00%3A00Z&virtual_machine_id="+vmA, items(anImage(imageA, "good"), anImage(imageB, "good")))
	args := []string{"image", "delete", "--vm", "erp", "--before", "2026-12-01"}
	if r := f.kura(append(args, "--dry-run")...); r.status != 0 || strings.Count(r.out, "64.0 GiB") != 2 {
		t.Errorf("dry run: status %d, stdout %s, want both listed", r.status, r.out)
	}
	f.on("DELETE /v1/backup-images/"+imageA, problem(http.StatusConflict, "locked", "The image is locked", "It is locked until 2027."))
	f.on("DELETE /v1/backup-images/"+imageB, reply{status: http.StatusNoContent})
	f.kura(args...).want(t, 1, "Deleted image "+imageB+" of erp, made 2026-11-30 17:03:12 UTC.\n", "Image "+imageA+` of erp stays.
kura: The image is locked
  It is locked until 2027.
  Code: locked   Request: 01JDZK3Q8X4T9V2M6B7N5C1R0Z
kura: 1 of 2 images could not be deleted.
`)
	r := f.kura(append(args, "-o", "json")...)
	if r.status != 1 || !strings.Contains(r.out, imageB) || strings.Contains(r.out, imageA) {
		t.Errorf("as JSON: status %d, stdout %s, want the deleted one", r.status, r.out)
	}
	for _, bad := range [][]string{{"image", "delete"}, {"image", "delete", imageA, "--vm", "erp"}, {"image", "delete", "erp"}, {"image", "delete", "--before", "yesterday"}} {
		if r := f.kura(bad...); r.status != 2 {
			t.Errorf("%v: status %d, want 2", bad, r.status)
		}
	}
}

func aRestore(status string) string {
	return `{"id":"` + restoreA + `","image_id":"` + imageA + `","new_vm":{"name":"erp-check"},"job_id":"` + jobA + `","status":"` + status + `",
		"restored_vm":{"moid":"vm-77","instance_uuid":"5015c0de","bios_uuid":"4215c0de","name":"erp-check"},"bytes_restored":1073741824,
		"created_at":"2026-12-01T11:00:00Z","started_at":"2026-12-01T11:00:02Z","completed_at":"2026-12-01T11:00:14Z"}`
}

// seed:N66
func TestARestoreIsCheckedItsWarningsShownAndThenStarted(t *testing.T) {
	f := newFake(t)
	f.on("POST /v1/restores:check", ok(`{"warnings":["Passwords are those of that time."]}`))
	f.on("POST /v1/restores", reply{status: http.StatusCreated, body: aRestore("queued")})
	f.on("GET /v1/jobs/"+jobA+"/events", events(aJob(jobA, "erp", "succeeded", done)))
	f.on("GET /v1/restores/"+restoreA, ok(aRestore("succeeded")))
	r := f.kura("restore", "create", "--image", imageA, "--new-vm", "erp-check", "--datastore", "ds2", "--network", "prod=isolated", "--power-on", "--wait")
	if r.status != 0 || !strings.HasPrefix(r.errout, "Warning: Passwords are those of that time.\n") || !strings.Contains(r.out, "restored VM:    erp-check (vm-77)\n") {
		t.Errorf("status %d, stderr %s, stdout %s", r.status, r.errout, r.out)
	}
	const want = `{"image_id":"` + imageA + `","new_vm":{"datastore":"ds2","name":"erp-check","network_mappings":{"prod":"isolated"},"power_on":true}}`
	if got := f.only("POST /v1/restores"); strings.TrimSpace(got.body) != want || got.header.Get("Idempotency-Key") == "" {
		t.Errorf("asked for %s with header %v, want %s and a key", got.body, got.header, want)
	}
	r = f.kura("restore", "create", "--image", imageA, "--in-place", "--power-off", "--safety", "none", "--check")
	const inPlace = `{"image_id":"` + imageA + `","in_place":{"power_off":true,"safety":"none"}}`
	if last := f.asked[len(f.asked)-1]; r.status != 0 || last.route != "POST /v1/restores:check" || strings.TrimSpace(last.body) != inPlace {
		t.Errorf("status %d, asked %s with %s, want only the check of %s", r.status, last.route, last.body, inPlace)
	}
}

func TestARestoreIsOfOneKind(t *testing.T) {
	f := newFake(t)
	for name, args := range map[string][]string{
		"neither":                       {},
		"both":                          {"--in-place", "--new-vm", "x"},
		"in place on another datastore": {"--in-place", "--datastore", "ds2"},
		"in place with networks":        {"--in-place", "--network", "a=b"},
		"in place as a template":        {"--in-place", "--as-template"},
		"new with power off":            {"--new-vm", "x", "--power-off"},
		"new with safety":               {"--new-vm", "x", "--safety", "none"},
		"two places":                    {"--new-vm", "x", "--host", "a", "--cluster", "b"},
		"a network without a target":    {"--new-vm", "x", "--network", "prod"},
	} {
		if r := f.kura(append([]string{"restore", "create", "--image", imageA}, args...)...); r.status != 2 || r.errout == "" {
			t.Errorf("%s: status %d, stderr %q, want 2 and why", name, r.status, r.errout)
		}
	}
	if len(f.asked) > 0 {
		t.Errorf("asked %v, want nothing asked", f.asked)
	}
}

func TestATokenIsShownOnceAndRevokedByItsName(t *testing.T) {
	f := newFake(t)
	token := func(id, more string) string {
		return `{"id":"` + id + `","name":"pipeline","role":"backup","created_at":"2026-12-01T00:00:00Z"` + more + `}`
	}
	f.on("POST /v1/tokens", reply{status: http.StatusCreated, body: token(tokenA, `,"text":"kura_text"`)})
	f.kura("token", "create", "pipeline", "--role", "backup", "--expires-in", "90d").want(t, 0, `name:     pipeline
id:       `+tokenA+`
role:     backup
text:     kura_text
created:  2026-12-01 00:00:00 UTC
expires:  never
`, "The text is not shown again: keep it where secrets are kept.\n")
	if got, want := strings.TrimSpace(f.only("POST /v1/tokens").body), `{"expires_at":"2027-03-01T12:00:00Z","name":"pipeline","role":"backup"}`; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	f.on("GET /v1/tokens", items(token(tokenA, `,"revoked_at":"2026-12-01T00:00:00Z"`), token(tokenB, "")))
	f.on("DELETE /v1/tokens/"+tokenB, reply{status: http.StatusNoContent})
	f.kura("token", "revoke", "pipeline").want(t, 0, "Revoked token pipeline ("+tokenB+").\n", "")
	if r := f.kura("token", "revoke", "other"); r.status != 1 {
		t.Errorf("a token that is not there: status %d, want 1", r.status)
	}
}

func TestRepositoriesAreListedAndShown(t *testing.T) {
	f := newFake(t)
	r := `{"id":"` + groupA + `","name":"default","kind":"filesystem","settings":{"path":"/var/lib/kura/repository"},"compression":"s2","verify_days":30,"default":true,"image_count":412,"stored_bytes":987842478080,"read_only":false,"created_at":"2026-11-23T09:00:00Z"}`
	f.on("GET /v1/repositories", items(r))
	f.on("GET /v1/repositories?name=default", items(r))
	f.kura("repository", "list").want(t, 0, `NAME     KIND        DEFAULT  IMAGES  STORED     FREE       CHECKED  SHEET  WARNINGS  ID
default  filesystem  yes      412     920.0 GiB  not known  -        -      0         `+groupA+`
`, "")
	if r := f.kura("repository", "show", "default"); !strings.Contains(r.out, "path:            /var/lib/kura/repository\n") {
		t.Errorf("stdout is %s, want the path", r.out)
	}
}

func TestVersionsAreToldEvenWithoutAServer(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/server", ok(`{"version":"1.2.3","api_version":"1.0","installation_id":"`+groupA+`","time":"2026-12-01T12:00:00Z","retention_profile":"standard","retention_choices":{"one_time":[],"daily":[],"weekly":[],"monthly":[]}}`))
	f.kura("version").want(t, 0, "PROGRAM  VERSION  API  INSTALLATION\nkura     dev      1.0  -\nserver   1.2.3    1.0  "+groupA+"\n", "")
	r := kura(context.Background(), map[string]string{"KURA_ENDPOINT": "http://127.0.0.1:1"}, "", "version", "-o", "json")
	if r.status != 3 || !strings.Contains(r.out, `"version": "dev"`) {
		t.Errorf("status %d, stdout %s, want 3 and the client's version", r.status, r.out)
	}
	if r := kura(context.Background(), nil, "", "version", "--client", "--endpoint", "http://127.0.0.1:1"); r.status != 0 {
		t.Errorf("--client: status %d, want 0", r.status)
	}
}

// seed:W26
func TestWhoHasJoinedAndLeftAGroupIsListedAndShownWithARun(t *testing.T) {
	f := newFake(t)
	const joined = `{"virtual_machine":{"id":"` + vmA + `","name":"erp"},"change":"joined","cause":"tag backup:gold","at":"2026-12-01T10:58:00+09:00"}`
	left := strings.NewReplacer("joined", "left", "tag backup:gold", "it left the inventory", "erp", "old").Replace(joined)
	f.on("GET /v1/backup-groups?name=gold", items(aGroup()))
	f.on("GET /v1/backup-groups/"+groupA+"/changes", items(joined, left))
	f.kura("group", "members", "gold", "--changes").want(t, 0, `TIME                     VM   CHANGE  CAUSE                  VM ID
2026-12-01 01:58:00 UTC  erp  joined  tag backup:gold        `+vmA+`
2026-12-01 01:58:00 UTC  old  left    it left the inventory  `+vmA+`
`, "")
	f.on("GET /v1/runs/"+runA, ok(strings.Replace(aRun("queued"), `"jobs"`, `"joined":[`+joined+`],"left":[`+left+`],"jobs"`, 1)))
	r := f.kura("run", "show", runA)
	if want := "changes of the group since its run before:\nVM   CHANGE  CAUSE\nerp  joined  tag backup:gold\nold  left    it left the inventory\n"; r.status != 0 || !strings.Contains(r.out, want) {
		t.Errorf("status %d, stdout\n%s\nwant in it\n%s", r.status, r.out, want)
	}
}
