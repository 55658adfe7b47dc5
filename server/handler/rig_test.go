package handler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/handler"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// rig is a server on a port of its own with the real planner and the real
// store on SQLite; only vSphere and the workers are not there.
type rig struct {
	t       testing.TB
	db      *store.DB
	url     string
	tokens  map[auth.Role]string
	clock   *clock
	log     *lines
	ready   error
	vcenter backup.VCenter
	vms     []backup.VirtualMachine
}

// clock stands still unless told.
type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

func newRig(t testing.TB, change ...func(*backup.Planner)) *rig {
	t.Helper()
	return newRigWith(t, func(*handler.Config) {}, change...)
}

// newRigWith is newRig of a server with other settings.
func newRigWith(t testing.TB, set func(*handler.Config), change ...func(*backup.Planner)) *rig {
	t.Helper()
	r := &rig{t: t, tokens: map[auth.Role]string{}, clock: &clock{now: time.Date(2026, 12, 1, 0, 30, 0, 0, time.UTC)}, log: &lines{}}
	db, err := store.Open(context.Background(), store.Config{
		DSN: "sqlite:" + filepath.Join(t.TempDir(), "kura.db"), Key: bytes.Repeat([]byte{7}, 32), Now: r.clock.Now, Migrate: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	r.db = db
	log := slog.New(slog.NewTextHandler(r.log, nil))
	planner := &backup.Planner{Store: db, Repositories: places{}, Installation: "01JDZK3Q8X4T9V2M6B7N5C1R0A"}
	for _, c := range change {
		c(planner)
	}
	config := handler.Config{
		Planner: planner, Store: db, Tokens: db, Replies: db,
		Auth:    auth.New(auth.Config{Store: db, Now: r.clock.Now, Log: log}),
		Version: "1.2.3", Installation: "01JDZK3Q8X4T9V2M6B7N5C1R0A", Now: r.clock.Now, Log: log,
		Ready:   func(context.Context) error { return r.ready },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "kura_up 1\n") }),
		Poll:    time.Millisecond, Heartbeat: 2 * time.Millisecond,
	}
	set(&config)
	h, err := handler.New(config)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	r.url = server.URL
	r.seed()
	return r
}

// seed makes a token per role, a repository, a vcenter of three seats and five VMs.
func (r *rig) seed() {
	r.t.Helper()
	ctx := context.Background()
	for _, role := range auth.Roles() {
		text := auth.NewText()
		r.tokens[role] = text.Reveal()
		r.must(r.db.InsertToken(ctx, &auth.Token{Name: string(role), Role: role, Hash: auth.Hash(text.Reveal())}))
	}
	r.must(r.db.Update(ctx, func(tx backup.Tx) error {
		repo := backup.RepositoryRecord{Name: "default", Kind: "filesystem", Settings: map[string]string{"path": "/srv/kura"}, Password: "p", Compression: "s2", VerifyDays: 30, Default: true, FreeBytes: -1}
		if err := tx.InsertRepository(ctx, &repo); err != nil {
			return err
		}
		r.vcenter = backup.VCenter{Name: "tokyo", Endpoint: "https://vc.example.com", Username: "kura", Password: "s3cret-pass", TimeZone: "Asia/Tokyo", SlotCapacity: 3}.Defaulted()
		if err := tx.InsertVCenter(ctx, &r.vcenter); err != nil {
			return err
		}
		r.vms = nil
		for i := range 5 {
			vm := backup.VirtualMachine{
				VCenterID: r.vcenter.ID, InstanceUUID: fmt.Sprintf("50159b1c-0000-0000-0000-%012d", i+1), MOID: fmt.Sprintf("vm-%d", i+1),
				Name: fmt.Sprintf("vm%02d", i+1), Folder: "/DC0/vm/prod", PowerState: backup.PoweredOff, MemoryMiB: 2048, SeenAt: tx.Now(),
				Disks: []backup.VMDisk{{Key: 2000, Label: "Hard disk 1", Capacity: 1 << 30, File: "[ds1] vm/vm.vmdk"}},
			}
			if i%3 == 0 {
				vm.Tags = []backup.Tag{{Category: "backup", Name: "gold"}}
			}
			r.vms = append(r.vms, vm)
		}
		return tx.SaveMachines(ctx, r.vms)
	}))
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// client is the contract's own client with the token of a role.
func (r *rig) client(role auth.Role) *api.ClientWithResponses {
	r.t.Helper()
	c, err := api.New(api.Config{Endpoint: r.url, Token: r.tokens[role], MaxRetries: -1})
	r.must(err)
	return c
}

// call is a request by hand.
type call struct {
	method, path string
	role         auth.Role // "" = no token
	token        string    // instead of the role's
	header       map[string]string
	body         any // a string as it is, nil for none, else as JSON
}

type answer struct {
	status  int
	header  http.Header
	body    []byte
	problem api.Problem
}

func (r *rig) do(c call) answer {
	r.t.Helper()
	var body io.Reader
	switch b := c.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	case io.Reader:
		body = b
	default:
		text, err := json.Marshal(b)
		r.must(err)
		body = bytes.NewReader(text)
	}
	q, err := http.NewRequest(c.method, r.url+c.path, body)
	r.must(err)
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	if c.role != "" {
		c.token = r.tokens[c.role]
	}
	if c.token != "" {
		q.Header.Set("Authorization", "Bearer "+c.token)
	}
	for k, v := range c.header {
		q.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(q)
	r.must(err)
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(resp.Body)
	r.must(err)
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		r.must(json.Unmarshal(a.body, &a.problem))
	}
	return a
}

// into decodes an answer that has the status, or fails.
func into[T any](r *rig, a answer, status int) T {
	r.t.Helper()
	var v T
	if a.status != status {
		r.t.Fatalf("status = %d, want %d: %s", a.status, status, a.body)
	}
	r.must(json.Unmarshal(a.body, &v))
	return v
}

// image puts an image of the VM into the catalogue.
func (r *rig) image(vm backup.VirtualMachine, change func(*backup.Image)) backup.Image {
	r.t.Helper()
	ctx := context.Background()
	var i backup.Image
	r.must(r.db.Update(ctx, func(tx backup.Tx) error {
		repo, err := backup.FindRepository(ctx, tx, "")
		if err != nil {
			return err
		}
		i = backup.Image{
			ID: backup.NewID(tx.Now()), Project: backup.DefaultProject, VCenterID: vm.VCenterID, VMID: vm.ID, VMName: vm.Name, VMMOID: vm.MOID, VMInstanceUUID: vm.InstanceUUID,
			RepositoryID: repo.ID, StartedAt: tx.Now(), EndedAt: tx.Now(), PointInTime: tx.Now(), Status: backup.ImageGood, Consistency: backup.ConsistencyCrash,
			ChangeDetection: backup.DetectFull, Disks: []backup.ImageDisk{{Key: 2000, Label: "Hard disk 1", Capacity: 1 << 30}}, Labels: map[string]string{"tier": "gold"}, Ref: "r",
		}
		if change != nil {
			change(&i)
		}
		return tx.InsertImage(ctx, i)
	}))
	return i
}

// claim takes the job as a worker does.
func (r *rig) claim(jobID string) backup.Lease {
	r.t.Helper()
	j, err := r.db.Claim(context.Background(), backup.Claim{Owner: "w", Lease: time.Hour})
	r.must(err)
	if j == nil || j.ID != jobID {
		r.t.Fatalf("claimed %v, want job %s", j, jobID)
	}
	return backup.Lease{JobID: j.ID, Owner: "w", Attempt: j.Attempt}
}

func (r *rig) finish(l backup.Lease, state backup.JobState) {
	r.t.Helper()
	r.must(r.db.Finish(context.Background(), l, backup.Ending{State: state}, nil))
}

var errDown = errors.New("database is down")
