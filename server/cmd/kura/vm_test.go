package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// aVM is a virtual machine as the API tells it.
func aVM(id, name string) string {
	quoted, _ := json.Marshal(name)
	return `{"id":"` + id + `","vcenter_id":"` + vcenterA + `","instance_uuid":"50159b1c-7f2e-0d54-8a3b-1b0c6a3f2d11","moid":"vm-42","name":` + string(quoted) + `,
		"folder":"/DC0/vm/prod","power_state":"on","template":false,"disks":[{"key":2000,"label":"Hard disk 1","capacity":68719476736,"file":"[ds1] erp/erp.vmdk"}],
		"nics":[],"datastores":["ds1"],"tags":[{"category":"backup","name":"gold"}],"warnings":[],"seen_at":"2026-12-01T10:58:00+09:00","color":"of a <later> version"}`
}

func TestVirtualMachinesAreListedInColumnsWhateverTheirNames(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines",
		ok(`{"items":[`+aVM(vmA, "erp")+`,`+aVM(vmB, "蔵🚚")+`],"next_cursor":"p2"}`))
	f.on("GET /v1/virtual-machines?cursor=p2", items(aVM(vmA, "nul\x00 red\x1b[31m \u202eback\n"), aVM(vmB, `é`)))
	f.kura("vm", "list").want(t, 0, `NAME                                POWER  DISKS  SIZE      TAGS         FOLDER        CANNOT BE BACKED UP  ID
erp                                 on     1      64.0 GiB  backup:gold  /DC0/vm/prod  -                    `+vmA+`
nul\x00 red\x1b[31m \u202eback\x0a  on     1      64.0 GiB  backup:gold  /DC0/vm/prod  -                    `+vmA+`
é                                   on     1      64.0 GiB  backup:gold  /DC0/vm/prod  -                    `+vmB+`
蔵🚚                                on     1      64.0 GiB  backup:gold  /DC0/vm/prod  -                    `+vmB+`
`, "")
}

// seed:A8
func TestWhatCannotBeBackedUpIsListedAndShownWithItsReason(t *testing.T) {
	f := newFake(t)
	disk := strings.Replace(aVM(vmA, "erp"), `erp.vmdk"`, `erp.vmdk","unprotectable_reason":"it is independent"`, 1)
	all := strings.Replace(aVM(vmB, "ft"), `"tags":`, `"unprotectable_reason":"it is protected by Fault Tolerance","tags":`, 1)
	f.on("GET /v1/virtual-machines?unprotectable=true", items(disk, all))
	f.on("GET /v1/virtual-machines/"+vmB, ok(all))
	r := f.kura("vm", "list", "--unprotectable")
	if r.status != 0 || !strings.Contains(r.out, "/DC0/vm/prod  Hard disk 1          "+vmA) || !strings.Contains(r.out, "/DC0/vm/prod  all of it            "+vmB) {
		t.Errorf("status %d, stdout\n%s", r.status, r.out)
	}
	if r := f.kura("vm", "show", vmB); r.status != 0 || !strings.Contains(r.out, "cannot be backed up:  it is protected by Fault Tolerance") {
		t.Errorf("status %d, stdout\n%s", r.status, r.out)
	}
}

func TestAListAsJSONHoldsAllPagesAsTheServerToldThem(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?vcenter_id="+vcenterA, ok(`{"items":[`+aVM(vmA, "a\x00<b>")+`],"next_cursor":"p2"}`))
	f.on("GET /v1/virtual-machines?cursor=p2&vcenter_id="+vcenterA, items(aVM(vmB, "🚚")))
	f.on("GET /v1/vcenters?name=tokyo", items(aVCenter("ready")))
	r := f.kura("vm", "list", "--vcenter", "tokyo", "-o", "json")
	var got struct {
		Items []map[string]any `json:"items"`
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.status != 0 || r.errout != "" {
		t.Fatalf("status %d, %v, stderr %q, stdout %s", r.status, err, r.errout, r.out)
	}
	if len(got.Items) != 2 || got.Items[0]["name"] != "a\x00<b>" || got.Items[1]["name"] != "🚚" || got.Items[1]["color"] != "of a <later> version" {
		t.Errorf("items = %v, want both pages with every property", got.Items)
	}
	if !strings.Contains(r.out, "of a <later> version") {
		t.Errorf("stdout is %s, want < and > as the server wrote them", r.out)
	}
}

func TestAnEmptyListIsNoErrorAndAnEmptyArray(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?tag=backup%3Agold", items())
	f.kura("vm", "list", "--tag", "backup:gold").want(t, 0, "", "No virtual machines.\n")
	f.kura("vm", "list", "--tag", "backup:gold", "-o", "json").want(t, 0, "{\n  \"items\": []\n}\n", "")
}

func TestATagWithACommaStaysOne(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?tag=a%3Ab%2Cc", items())
	f.kura("vm", "list", "--tag", "a:b,c").want(t, 0, "", "No virtual machines.\n")
}

func TestANameThatLooksLikeAnIDIsFoundAfterTheID(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?name="+vmB, items(aVM(vmA, vmB)))
	f.on("GET /v1/virtual-machines/"+vmB, ok(aVM(vmB, "the one with the id")))
	if r := f.kura("vm", "show", vmB); r.status != 0 || !strings.Contains(r.out, "the one with the id") {
		t.Errorf("status %d, stdout %s, want the VM of that id", r.status, r.out)
	}
	f.on("GET /v1/virtual-machines/"+vmB, problem(http.StatusNotFound, "not_found", "Not found", "There is no such VM."))
	if r := f.kura("vm", "show", vmB); r.status != 0 || !strings.Contains(r.out, vmA) {
		t.Errorf("status %d, stdout %s, want the VM of that name", r.status, r.out)
	}
	f.on("GET /v1/virtual-machines/"+vmB, problem(http.StatusForbidden, "forbidden", "Not allowed", "Your token may not."))
	if r := f.kura("vm", "show", vmB); r.status != 1 || !strings.Contains(r.errout, "forbidden") {
		t.Errorf("status %d, stderr %s, want the refusal", r.status, r.errout)
	}
}

func TestANameThatSeveralHaveIsRefusedWithTheirIDs(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?name=erp", items(aVM(vmA, "erp"), aVM(vmB, "erp")))
	f.kura("vm", "backup", "erp").want(t, 1, "", "kura: 2 virtual machines are named \"erp\".\nGive the id of the one that is meant: "+vmA+", "+vmB+".\n")
}

func TestAVMThatIsGoneIsFoundWhereNoOtherHasItsName(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?name=erp", items())
	f.on("GET /v1/virtual-machines?include_gone=true&name=erp", items(strings.Replace(aVM(vmA, "erp"), `"seen_at"`, `"gone_at":"2026-11-30T00:00:00Z","seen_at"`, 1)))
	if r := f.kura("vm", "show", "erp"); r.status != 0 || !strings.Contains(r.out, "gone since:     2026-11-30 00:00:00 UTC") {
		t.Errorf("status %d, stdout %s, want the VM with the time when it left", r.status, r.out)
	}
}

func TestWhatHasNoNameIsRefused(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?name=nobody", items())
	f.on("GET /v1/virtual-machines?include_gone=true&name=nobody", items())
	r := f.kura("vm", "backup", "nobody")
	if r.status != 1 || !strings.HasPrefix(r.errout, "kura: No virtual machine is named \"nobody\".\nkura vm list --gone") {
		t.Errorf("status %d, stderr %s", r.status, r.errout)
	}
	if r := f.kura("group", "show", ""); r.status != 2 || len(f.asked) != 2 {
		t.Errorf("an empty name: status %d after %d requests, want 2 after 2", r.status, len(f.asked))
	}
}

func TestAVirtualMachineIsShownWithItsDisksAndTimesInUTC(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines/"+vmA, ok(aVM(vmA, "erp")))
	f.kura("vm", "show", vmA).want(t, 0, `name:           erp
id:             `+vmA+`
vcenter id:     `+vcenterA+`
moid:           vm-42
instance uuid:  50159b1c-7f2e-0d54-8a3b-1b0c6a3f2d11
power:          on
template:       no
cpus:           0
memory:         0 B
folder:         /DC0/vm/prod
datastores:     ds1
tags:           backup:gold
seen:           2026-12-01 01:58:00 UTC

disks:
KEY   LABEL        SIZE      FILE                CANNOT BE BACKED UP
2000  Hard disk 1  64.0 GiB  [ds1] erp/erp.vmdk  -
`, "")
}

func TestABackupByHandAsksForWhatTheFlagsSay(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/virtual-machines?name=erp", items(aVM(vmA, "erp")))
	f.on("POST /v1/virtual-machines/"+vmA+":backup", accepted(aRun("queued")))
	r := f.kura("vm", "backup", "erp", "--retention-days", "366", "--consistency", "app", "--full", "--label", "why=patch,day", "--label", "a=", "--repository", "second", "-o", "json")
	if r.status != 0 || r.errout != "" || !strings.Contains(r.out, `"id": "`+runA+`"`) {
		t.Errorf("status %d, stderr %q, stdout %s", r.status, r.errout, r.out)
	}
	asked := f.only("POST /v1/virtual-machines/" + vmA + ":backup")
	const want = `{"consistency":"app","full":true,"labels":{"a":"","why":"patch,day"},"repository":"second","retention_days":366}`
	if strings.TrimSpace(asked.body) != want {
		t.Errorf("asked for %s, want %s", asked.body, want)
	}
	if asked.header.Get("Idempotency-Key") == "" || asked.header.Get("Authorization") != "Bearer kura_secret" {
		t.Errorf("header = %v, want a key for repetitions and the token", asked.header)
	}
}
