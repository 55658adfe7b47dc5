package server_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server"
)

// TestTheShippedRoleIsTheOneThatTheCodeNames keeps examples/vsphere-role as the
// code is. KURA_UPDATE_DOCS=1 writes it.
//
// seed:A7
func TestTheShippedRoleIsTheOneThatTheCodeNames(t *testing.T) {
	for name, want := range map[string][]byte{"kura-role.sh": server.VSphereRoleScript(), "kura-role.json": server.VSphereRoleJSON()} {
		path := filepath.Join(root, "examples", "vsphere-role", name)
		if os.Getenv("KURA_UPDATE_DOCS") != "" {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is not what kura doctor --role-file writes: run this test with KURA_UPDATE_DOCS=1", path)
		}
	}
}
