package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestARebindingIsAskedForWithItsMapAndShownAsATable(t *testing.T) {
	f := newFake(t)
	const newV = "01JDZK3Q8X4T9V2M6B7N5C1R9S"
	f.on("GET /v1/vcenters?name=tokyo", items(aVCenter("ready")))
	f.on("GET /v1/vcenters?name=tokyo-2", items(strings.NewReplacer(vcenterA, newV, "tokyo", "tokyo-2").Replace(aVCenter("ready"))))
	f.on("GET /v1/virtual-machines?name=my+erp&vcenter_id="+vcenterA, items(aVM(vmA, "my erp")))
	f.on("GET /v1/virtual-machines/"+vmB, ok(aVM(vmB, "web")))
	f.on("POST /v1/vcenters/"+vcenterA+":rebind", ok(`{"dry_run":true,"schedules":["nightly"],"groups":[],"selecting":["gold"],"withdrawn_jobs":1,
		"moved":[{"virtual_machine":{"id":"`+vmA+`","name":"my erp","moid":"vm-42"},"to_moid":"vm-1007","to_name":"my erp","recognized_by":"the map","images":31}],
		"left":[{"virtual_machine":{"id":"`+vmB+`","name":"web","moid":"vm-43"},"reason":"vcenter tokyo-2 has no VM that could be it","images":8}]}`))
	file := filepath.Join(t.TempDir(), "map")
	if err := os.WriteFile(file, []byte("# old name, new id\nmy erp vm-1007\n\n"+vmB+"\tvm-1008\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.kura("vcenter", "rebind", "tokyo", "tokyo-2", "--map", file, "--dry-run").want(t, 0, `re-bound:                                   1, had this been no dry run
left where they are:                        1
schedules booked anew:                      nightly
groups that still select from the old one:  gold
backups withdrawn that waited:              1

re-bound:
VM      WAS    IS       NAME THERE  RECOGNIZED BY  IMAGES  ID
my erp  vm-42  vm-1007  my erp      the map        31      `+vmA+`

left where they are:
VM   WAS    IMAGES  WHY                                         ID
web  vm-43  8       vcenter tokyo-2 has no VM that could be it  `+vmB+`
`, "")
	asked := f.only("POST /v1/vcenters/" + vcenterA + ":rebind")
	if want := `{"dry_run":true,"map":[{"moid":"vm-1007","virtual_machine_id":"` + vmA + `"},{"moid":"vm-1008","virtual_machine_id":"` + vmB + `"}],"to":"` + newV + `"}`; strings.TrimSpace(asked.body) != want || asked.header.Get("Idempotency-Key") == "" {
		t.Errorf("asked for %s, want %s", asked.body, want)
	}
	if err := os.WriteFile(file, []byte("erp\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := f.kura("vcenter", "rebind", "tokyo", "tokyo-2", "--map", file); r.status != 2 || !strings.Contains(r.errout, `is "erp"`) {
		t.Errorf("a line without an id: status %d, stderr %s", r.status, r.errout)
	}
}
