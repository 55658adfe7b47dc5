package server_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/kura-backup/terraform-provider-kura/"
	root   = ".."
)

// arrows is the map of the house: for each room, the rooms of ours that its
// sources (not its tests) may import. A folder that is missing here fails the
// test, so a new folder is a decision.
var arrows = map[string]string{
	".":                    "provider",
	"provider":             "server/api server/backup",
	"provider/schemadump":  "provider",
	"server":               "server/auth server/backup server/console server/failpoint server/handler server/notify server/repository server/store server/vsphere server/worker",
	"server/api":           "",
	"server/auth":          "server/backup",
	"server/backup":        "",
	"server/cmd/kura":      "server server/api",
	"server/cmd/kura-demo": "server server/backup server/lab",
	"server/console":       "",
	// Every room may be broken by tests; without its build tag the room is empty.
	"server/failpoint":  "",
	"server/handler":    "server/api server/auth server/backup server/failpoint",
	"server/lab":        "server/vmdk",
	"server/nbd":        "",
	"server/notify":     "server/backup",
	"server/repository": "server/backup server/failpoint",
	// Tests of several rooms derive keys once, and start a throw-away S3 server; no program does.
	"server/repository/keytest": "",
	"server/repository/s3test":  "",
	"server/store":              "server/auth server/backup server/failpoint",
	// Tests of several rooms start a throw-away PostgreSQL; no program does.
	"server/store/pgtest": "",
	"server/vmdk":         "",
	"server/vsphere":      "server/backup server/nbd server/vmdk server/failpoint",
	"server/worker":       "server/backup server/failpoint",
}

// owners gives each heavy dependency the rooms that may import it. A room
// that is named alone speaks for its own folder only.
var owners = map[string]string{
	"database/sql":                          "server/store",
	"github.com/alecthomas/kong":            "server/cmd/kura server/cmd/kura-demo",
	"github.com/arran4/golang-ical":         "server/handler",
	"github.com/getkin/kin-openapi":         "server/api server/handler",
	"github.com/gorilla/mux":                "server/api server/handler",
	"github.com/hashicorp/terraform-plugin": ". provider provider/schemadump",
	"github.com/jackc/pgx":                  "server/store",
	"github.com/klauspost/compress":         "server/vmdk",
	"github.com/kopia/kopia":                "server/repository",
	"github.com/oapi-codegen":               "server/api server/handler",
	"github.com/pressly/goose":              "server/store",
	"github.com/prometheus/client_golang":   "server server/handler server/worker",
	"github.com/vmware/govmomi":             "server/lab server/vsphere",
	"modernc.org/sqlite":                    "server/store",
	"pgregory.net/rapid":                    "",
	"testing":                               "server/store/pgtest",
	"github.com/google/go-cmp":              "",
}

// shipped are the programs that users run; none of them may carry the lab.
var shipped = []string{".", "server/cmd/kura"}

func TestEveryImportFollowsTheArrows(t *testing.T) {
	for _, f := range sources(t) {
		if _, ok := arrows[f.room]; !ok {
			t.Errorf("%s: folder %s is not in arrows: every folder is a decision", f.path, f.room)
			continue
		}
		if f.test {
			continue
		}
		for _, spec := range f.ast.Imports {
			if why := forbidden(f.room, strings.Trim(spec.Path.Value, `"`)); why != "" {
				t.Errorf("%s: %s", f.path, why)
			}
		}
	}
}

func TestTheLawRefusesWhatItMust(t *testing.T) {
	for name, c := range map[string]struct{ room, path string }{
		"the domain imports a module":           {"server/backup", "github.com/google/uuid"},
		"the domain imports another room":       {"server/backup", module + "server/store"},
		"a handler opens the database":          {"server/handler", "database/sql"},
		"the worker reaches for vSphere":        {"server/worker", module + "server/vsphere"},
		"the provider imports the server":       {"provider", module + "server"},
		"the store imports a handler":           {"server/store", module + "server/handler"},
		"govmomi outside its rooms":             {"server/worker", "github.com/vmware/govmomi/vim25"},
		"kopia outside its room":                {"server/vsphere", "github.com/kopia/kopia/repo"},
		"a program of the server takes the lab": {"server/cmd/kura", module + "server/lab"},
		"the root package":                      {"server/handler", strings.TrimSuffix(module, "/")},
	} {
		if forbidden(c.room, c.path) == "" {
			t.Errorf("%s: forbidden(%q, %q) = \"\", want a reason", name, c.room, c.path)
		}
	}
	for name, c := range map[string]struct{ room, path string }{
		"the domain uses the standard library": {"server/backup", "time"},
		"the store implements the domain":      {"server/store", module + "server/backup"},
		"a name that only begins alike":        {"server/handler", "github.com/gorilla/muxer"},
	} {
		if why := forbidden(c.room, c.path); why != "" {
			t.Errorf("%s: forbidden(%q, %q) = %q, want none", name, c.room, c.path, why)
		}
	}
}

func TestNoShippedProgramReachesTheLab(t *testing.T) {
	for _, program := range shipped {
		for _, room := range reach(program) {
			if room == "server/lab" {
				t.Errorf("%s reaches server/lab through the arrows", program)
			}
		}
	}
}

func TestEveryRoomInTheLawHasArrowsToRoomsOnly(t *testing.T) {
	for room, to := range arrows {
		for _, target := range strings.Fields(to) {
			if _, ok := arrows[target]; !ok {
				t.Errorf("%s may import %s, which is no room", room, target)
			}
			if slices.Contains(reach(target), room) {
				t.Errorf("%s and %s reach each other", room, target)
			}
		}
	}
}

// forbidden says why the sources of room must not import path, or "".
func forbidden(room, path string) string {
	if path+"/" == module {
		return room + " must not import the provider's program"
	}
	if to, ours := strings.CutPrefix(path, module); ours && !slices.Contains(strings.Fields(arrows[room]), to) {
		return room + " must not import " + to
	}
	for dep, rooms := range owners {
		if within(path, dep) && !slices.Contains(strings.Fields(rooms), room) {
			return path + " may be imported by " + orTests(rooms) + " only"
		}
	}
	if host, _, _ := strings.Cut(path, "/"); room == "server/backup" && strings.Contains(host, ".") {
		return room + " may import the standard library only"
	}
	return ""
}

// within says whether path is dep or lies below it. The plugin modules are
// siblings (terraform-plugin-go, -framework), so a dash counts as below.
func within(path, dep string) bool {
	rest, ok := strings.CutPrefix(path, dep)
	return ok && (rest == "" || rest[0] == '/' || rest[0] == '-')
}

func orTests(rooms string) string {
	if rooms == "" {
		return "tests"
	}
	return rooms
}

// reach lists the rooms that one may come to from room, itself included.
func reach(room string) []string {
	seen := []string{room}
	for i := 0; i < len(seen); i++ {
		for _, to := range strings.Fields(arrows[seen[i]]) {
			if !slices.Contains(seen, to) {
				seen = append(seen, to)
			}
		}
	}
	return seen
}

// source is one parsed Go file of the main module.
type source struct {
	path, room string
	test       bool
	text       string
	ast        *ast.File
}

func (s source) generated() bool { return ast.IsGenerated(s.ast) }

// sources parses every Go file of the main module. It reads the tree and does
// not ask the go command, which answers from its cache while a file is broken.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, path := range files(t) {
		if filepath.Ext(path) != ".go" {
			continue
		}
		room := filepath.ToSlash(filepath.Dir(path))
		if room == "tools" || strings.HasPrefix(room, "tools/") {
			continue
		}
		text := read(t, path)
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{path: path, room: room, test: strings.HasSuffix(path, "_test.go"), text: text, ast: f})
	}
	if len(all) == 0 {
		t.Fatal("no Go file found: the walk is broken")
	}
	return all
}

// files lists the project's files, relative to the root. What make builds and
// what tools keep for themselves is left out.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".terraform", "node_modules", "testdata", "bin", "build", "dist"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() {
			all = append(all, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
