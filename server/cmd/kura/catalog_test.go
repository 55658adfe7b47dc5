package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func TestAnOldDatabaseIsToldAndAdopted(t *testing.T) {
	f := newFake(t)
	f.on("GET /v1/server", ok(`{"version":"1.0.0","api_version":"1.0","installation_id":"`+imageA+`","time":"2026-12-01T02:03:04Z","retention_profile":"standard",
		"clock":{"time":"2026-12-01T02:03:04Z","trusted":true},
		"retention_choices":{"one_time":[1],"daily":[1],"weekly":[7],"monthly":[31]},
		"old_database":{"found_at":"2026-12-01T02:00:00Z","written_at":"2026-11-30T02:00:00Z","message":"This database is a copy."}}`))
	if r := f.kura("version"); r.status != 0 || r.errout != "Warning: This database is a copy.\n" {
		t.Errorf("kura version: %d, %q, want the warning", r.status, r.errout)
	}
	if r := f.kura("catalog", "adopt"); r.status != 2 || !strings.Contains(r.errout, "no other server of this installation runs any more") {
		t.Errorf("without --yes: %d, %q", r.status, r.errout)
	}
	f.on("POST /v1/server:adopt-database", ok(`{"ended_jobs":2,"passed_occurrences":14,"jobs":["`+imageA+`"],"messages":["Look here.","And there."]}`))
	f.kura("catalog", "adopt", "--yes").want(t, 0, `jobs ended:               2
occurrences passed over:  14
jobs that list images:    `+imageA+`
look:                     Look here.
look:                     And there.
`, "")
}

// TestTheDatabaseIsCopiedAndComesBackFromTheCommandLine: the new folder has what
// a server needs, and nobody else may read it.
func TestTheDatabaseIsCopiedAndComesBackFromTheCommandLine(t *testing.T) {
	h := newHouse(t, lab.Config{VMs: 1, DiskSize: 1 << 20})
	if out := h.kura(0, "catalog", "copy", "default").out; !strings.Contains(out, "database copied:") {
		t.Errorf("kura catalog copy printed\n%s", out)
	}
	if r := h.kura(1, "catalog", "adopt", "--yes"); !strings.Contains(r.errout, "is the newest of its installation") {
		t.Errorf("adopting a database that is not old: %s", r.errout)
	}
	sheet := filepath.Join(t.TempDir(), "sheet.txt")
	if err := os.WriteFile(sheet, []byte(h.kura(0, "repository", "recovery-sheet", "default").out), 0o600); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again")
	r := h.kura(0, "catalog", "recover", "--sheet", sheet, "--data", again)
	if token := filepath.Join(again, "operator.token"); !strings.Contains(r.out, token) {
		t.Errorf("kura catalog recover printed %s", r.out)
	}
	files, err := os.ReadDir(again)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
		if st, err := f.Info(); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s may be read by others: %v, %v", f.Name(), st.Mode(), err)
		}
	}
	if strings.Join(names, " ") != "kura.db kura.key operator.token" {
		t.Errorf("the folder holds %v", names)
	}
	if r := h.kura(1, "catalog", "recover", "--sheet", sheet, "--data", again); !strings.Contains(r.errout, "kura.db already") {
		t.Errorf("once more: %s", r.errout)
	}
	h.kura(1, "catalog", "recover", "--sheet", sheet, "--data", filepath.Join(again, "older"), "--copy", "2020-01-01T00:00:00Z")
	h.kura(2, "catalog", "recover", "--sheet", filepath.Join(again, "none"), "--data", again)
}
