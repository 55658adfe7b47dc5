package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// world is a lab, a server and a client of its API with the operator's token.
type world struct {
	*testing.T
	ctx context.Context
	lab *lab.Lab
	api *api.ClientWithResponses
}

// newLab starts a simulated vCenter that ends with the test.
func newLab(t *testing.T, c lab.Config) *lab.Lab {
	t.Helper()
	c.Dir = t.TempDir()
	l, err := lab.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}

// quick are the intervals of a server under test.
func quick(c server.Config) server.Config {
	c.Listen, c.Log = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	if os.Getenv("KURA_TEST_LOG") != "" {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c.Poll, c.Dispatch, c.Sweep, c.Backoff = 100*time.Millisecond, 200*time.Millisecond, 2*time.Second, 200*time.Millisecond
	return c
}

// start runs a server in this process until the test ends.
func start(t *testing.T, c server.Config) *server.Server {
	t.Helper()
	if c.Data == "" {
		c.Data = t.TempDir()
	}
	s, err := server.New(t.Context(), quick(c))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run the server: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
	})
	return s
}

// client returns a client with the token in the file.
func client(t *testing.T, url, tokenFile string) *api.ClientWithResponses {
	t.Helper()
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := api.New(api.Config{Endpoint: url, Token: strings.TrimSpace(string(token))})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newWorld(t *testing.T, lc lab.Config, sc server.Config) *world {
	t.Helper()
	l := newLab(t, lc)
	s := start(t, sc)
	return &world{T: t, ctx: t.Context(), lab: l, api: client(t, s.URL(), s.OperatorTokenFile())}
}

// ok fails the test when a call was refused.
func (w *world) ok(a api.Answer, err error) {
	w.Helper()
	if err := api.Err(a, err); err != nil {
		w.Fatal(err)
	}
}

// until waits for what a server does by itself, and fails after some minutes:
// race detection on a busy machine is slow.
func (w *world) until(what string, done func() bool) {
	w.Helper()
	for end := time.Now().Add(4 * time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("waited four minutes for: %s", what)
		}
	}
}

// vcenter adds the lab as a vcenter and waits for its inventory.
func (w *world) vcenter(name string) api.VCenter {
	w.Helper()
	return w.vcenterWith(api.VCenter{Name: name})
}

// vcenterWith is vcenter with settings.
func (w *world) vcenterWith(v api.VCenter) api.VCenter {
	w.Helper()
	v.Endpoint, v.Username, v.Password, v.Thumbprint, v.SlotCapacity = w.lab.Endpoint(), w.lab.User(), w.lab.Password(), w.lab.Thumbprint(), 100
	r, err := w.api.CreateVCenterWithResponse(w.ctx, nil, v)
	w.ok(r, err)
	v = *r.JSON201
	w.until("the inventory of "+v.Name, func() bool {
		g, err := w.api.GetVCenterWithResponse(w.ctx, v.ID)
		w.ok(g, err)
		v = *g.JSON200
		if v.SyncState == api.SyncStateFailed {
			w.Fatalf("sync of %s: %s", v.Name, v.SyncError)
		}
		return v.SyncState == api.SyncStateReady
	})
	return v
}

func (w *world) vms(vcenterID string) []api.VirtualMachine {
	w.Helper()
	r, err := w.api.ListVirtualMachinesWithResponse(w.ctx, &api.ListVirtualMachinesParams{VCenterID: vcenterID, Limit: 1000})
	w.ok(r, err)
	return r.JSON200.Items
}

func (w *world) vm(vcenterID, name string) api.VirtualMachine {
	w.Helper()
	vms := w.vms(vcenterID)
	i := slices.IndexFunc(vms, func(v api.VirtualMachine) bool { return v.Name == name })
	if i < 0 {
		w.Fatalf("no VM %q in the inventory of %d", name, len(vms))
	}
	return vms[i]
}

// backup backs a VM up now and returns the image.
func (w *world) backup(vmID string) api.BackupImage {
	w.Helper()
	run := w.finish(w.startBackup(vmID))
	if run.State != api.RunStateSucceeded {
		w.Fatalf("backup ended %s: %+v", run.State, run.Jobs[0].Error)
	}
	return w.image(run.Jobs[0].ImageID)
}

func (w *world) startBackup(vmID string) string {
	w.Helper()
	r, err := w.api.BackupVirtualMachineWithResponse(w.ctx, vmID, nil, api.BackupOptions{RetentionDays: 31})
	w.ok(r, err)
	return r.JSON202.ID
}

func (w *world) image(id string) api.BackupImage {
	w.Helper()
	r, err := w.api.GetBackupImageWithResponse(w.ctx, id)
	w.ok(r, err)
	return *r.JSON200
}

// finish waits for the end of a run.
func (w *world) finish(id string) api.Run {
	w.Helper()
	var run api.Run
	w.until("the end of run "+id, func() bool {
		r, err := w.api.GetRunWithResponse(w.ctx, id)
		w.ok(r, err)
		run = *r.JSON200
		return run.State.Final()
	})
	return run
}

// restore starts a restore and waits for its end.
func (w *world) restore(r api.Restore) api.Restore {
	w.Helper()
	c, err := w.api.CreateRestoreWithResponse(w.ctx, nil, r)
	w.ok(c, err)
	return w.restored(c.JSON201.ID)
}

func (w *world) restored(id string) api.Restore {
	w.Helper()
	var out api.Restore
	w.until("the end of restore "+id, func() bool {
		g, err := w.api.GetRestoreWithResponse(w.ctx, id, nil)
		w.ok(g, err)
		out = *g.JSON200
		return out.Status.Final()
	})
	return out
}

// noLeftovers fails when a snapshot or a staging VM of kura's is still there.
func (w *world) noLeftovers() {
	w.Helper()
	for _, vm := range w.lab.VMs() {
		if strings.HasPrefix(vm.Name, "kura:") {
			w.Errorf("staging VM %s was left", vm.Name)
		}
		for _, s := range vm.Snapshots {
			w.Errorf("VM %s still has snapshot %s", vm.Name, s)
		}
	}
}

// sums are the SHA-256 of a VM's disks by device key.
func (w *world) sums(vm string) map[int32]string {
	w.Helper()
	out := map[int32]string{}
	for _, d := range w.machine(vm).Disks {
		sum, err := w.lab.DiskSHA256(w.ctx, vm, d.Key)
		if err != nil {
			w.Fatal(err)
		}
		out[d.Key] = sum
	}
	return out
}

func (w *world) machine(name string) lab.VM {
	w.Helper()
	vms := w.lab.VMs()
	i := slices.IndexFunc(vms, func(v lab.VM) bool { return v.Name == name || v.Moid == name })
	if i < 0 {
		w.Fatalf("the lab has no VM %q", name)
	}
	return vms[i]
}

func (w *world) same(what string, got, want map[int32]string) {
	w.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Errorf("%s: disks are\n%v, want\n%v", what, got, want)
	}
}
