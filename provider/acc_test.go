package provider_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/kura-backup/terraform-provider-kura/provider"
	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// The tests run the real terraform program against the provider, a server and
// two labs in this process. They are always on: without terraform they fail.

// house is what all tests of this binary share.
var house struct {
	url, token string
	api        *api.ClientWithResponses
	lab        *lab.Lab    // its vcenter is "shared"
	vcenter    api.VCenter // with room for all tests
	tight      api.VCenter // with two seats in an hour
	spare      *lab.Lab    // for tests that add a vcenter of their own
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "kura-provider-test")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = environment(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	stop, err := build(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the house of the tests:", err)
		return 1
	}
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "tear the house of the tests down:", err)
		return 1
	}
	return code
}

// environment makes the tests independent of the machine's terraform settings.
func environment(dir string) error {
	program := os.Getenv("TF_ACC_TERRAFORM_PATH")
	if program == "" {
		var err error
		if program, err = exec.LookPath("terraform"); err != nil {
			return fmt.Errorf("the provider's tests need the terraform program: put it on PATH, or name it by TF_ACC_TERRAFORM_PATH: %w", err)
		}
	}
	rc := filepath.Join(dir, "terraform.rc")
	if err := os.WriteFile(rc, []byte("# no settings\n"), 0o600); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"TF_ACC": "1", "TF_ACC_TERRAFORM_PATH": program, "TF_CLI_CONFIG_FILE": rc, "CHECKPOINT_DISABLE": "1", "KURA_TEST_DIR": dir,
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// build starts labs and server, and adds the shared vcenter. Schedules are not
// dispatched: tests name hours as they like, whatever hour it is.
func build(dir string) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	var labs [3]*lab.Lab
	for i := range labs {
		if labs[i], err = lab.New(lab.Config{VMs: 6, DiskSize: 4 << 20, Dir: dir, Seed: uint64(i + 1)}); err != nil {
			cancel()
			return nil, err
		}
	}
	house.lab, house.spare = labs[0], labs[2]
	log := io.Discard
	if os.Getenv("KURA_TEST_LOG") != "" {
		log = os.Stderr
	}
	s, err := server.New(ctx, server.Config{
		Listen: "127.0.0.1:0", Data: filepath.Join(dir, "data"), Version: "1.2.3", Log: slog.New(slog.NewTextHandler(log, nil)),
		Poll: 50 * time.Millisecond, Dispatch: 24 * time.Hour, Sweep: 2 * time.Second, Backoff: 100 * time.Millisecond,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() error {
		cancel()
		for _, end := range []func() error{func() error { return <-done }, s.Close, labs[0].Close, labs[1].Close, labs[2].Close} {
			if e := end(); e != nil && err == nil {
				err = e
			}
		}
		return err
	}
	return stop, furnish(ctx, s, labs[1])
}

// furnish makes a client, and adds the vcenters that tests share.
func furnish(ctx context.Context, s *server.Server, tight *lab.Lab) error {
	token, err := os.ReadFile(s.OperatorTokenFile())
	if err != nil {
		return err
	}
	house.url, house.token = s.URL(), strings.TrimSpace(string(token))
	for name, value := range map[string]string{"KURA_ENDPOINT": house.url, "KURA_TOKEN": house.token} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	if house.api, err = api.New(api.Config{Endpoint: house.url, Token: house.token}); err != nil {
		return err
	}
	if house.vcenter, err = addVCenter(ctx, house.lab, api.VCenter{Name: "shared", SlotCapacity: 1000, TimeZone: "Asia/Tokyo"}); err != nil {
		return err
	}
	house.tight, err = addVCenter(ctx, tight, api.VCenter{Name: "tight", SlotCapacity: 2})
	return err
}

// addVCenter adds a lab and waits for its inventory.
func addVCenter(ctx context.Context, l *lab.Lab, v api.VCenter) (api.VCenter, error) {
	v.Endpoint, v.Username, v.Password, v.Thumbprint = l.Endpoint(), l.User(), l.Password(), l.Thumbprint()
	a, err := house.api.CreateVCenterWithResponse(ctx, &api.CreateVCenterParams{}, v)
	if err := api.Err(a, err); err != nil {
		return v, err
	}
	for end := time.Now().Add(4 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		g, err := house.api.GetVCenterWithResponse(ctx, a.JSON201.ID)
		if err := api.Err(g, err); err != nil {
			return v, err
		}
		if g.JSON200.SyncState == api.SyncStateReady {
			return *g.JSON200, nil
		}
		if time.Now().After(end) {
			return v, fmt.Errorf("the inventory of %s is %s: %s", v.Name, g.JSON200.SyncState, g.JSON200.SyncError)
		}
	}
}

// factories serve the provider from this process.
var factories = map[string]func() (tfprotov6.ProviderServer, error){
	"kura": providerserver.NewProtocol6WithError(provider.New("test")()),
}

// apply runs the steps with the terraform program, and destroys at the end.
func apply(t *testing.T, steps ...resource.TestStep) {
	t.Helper()
	resource.Test(t, resource.TestCase{ProtoV6ProviderFactories: factories, Steps: steps})
}

// ok fails the test when a call was refused.
func ok(t *testing.T, a api.Answer, err error) {
	t.Helper()
	if err := api.Err(a, err); err != nil {
		t.Fatal(err)
	}
}

// words matches a text whatever its line breaks: terraform wraps lines.
func words(text string) *regexp.Regexp {
	fields := strings.Fields(text)
	for i, f := range fields {
		fields[i] = regexp.QuoteMeta(f)
	}
	return regexp.MustCompile(strings.Join(fields, `[\s│╷╵]+`))
}

// idOf returns the id of an object in the state.
func idOf(s *terraform.State, address string) string {
	r := s.RootModule().Resources[address]
	if r == nil {
		return ""
	}
	return r.Primary.ID
}

// keepID remembers an id, and demands the same one from then on.
func keepID(address string, id *string) resource.TestCheckFunc {
	return func(s *terraform.State) error {
		got := idOf(s, address)
		if got == "" || *id != "" && *id != got {
			return fmt.Errorf("id of %s is %q, want %q", address, got, *id)
		}
		*id = got
		return nil
	}
}

// vmID is the server's id of a machine of the shared vcenter.
func vmID(t *testing.T, name string) string {
	t.Helper()
	return vmOf(t, house.vcenter, name)
}

func vmOf(t *testing.T, v api.VCenter, name string) string {
	t.Helper()
	a, err := house.api.ListVirtualMachinesWithResponse(t.Context(), &api.ListVirtualMachinesParams{VCenterID: v.ID, Name: name})
	ok(t, a, err)
	if len(a.JSON200.Items) != 1 {
		t.Fatalf("the inventory has %d machines named %s, want 1", len(a.JSON200.Items), name)
	}
	return a.JSON200.Items[0].ID
}

// backup makes an image of a machine of the shared vcenter now.
func backup(t *testing.T, name string) api.BackupImage {
	t.Helper()
	return backupOf(t, vmID(t, name))
}

// backupOf makes an image of the machine of that id now.
func backupOf(t *testing.T, id string) api.BackupImage {
	t.Helper()
	a, err := house.api.BackupVirtualMachineWithResponse(t.Context(), id, &api.BackupVirtualMachineParams{}, api.BackupOptions{RetentionDays: 31})
	ok(t, a, err)
	job, err := house.api.FollowJob(t.Context(), a.JSON202.Jobs[0].ID, nil)
	if err != nil || job.State != api.JobStateSucceeded {
		t.Fatalf("backup of %s ended %s: %+v, %v", id, job.State, job.Error, err)
	}
	i, err := house.api.GetBackupImageWithResponse(t.Context(), job.ImageID)
	ok(t, i, err)
	return *i.JSON200
}

// sums are the SHA-256 of the disks of a lab's machine, by device key.
func sums(t *testing.T, l *lab.Lab, name string) map[int32]string {
	t.Helper()
	vm, err := l.VM(name)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32]string{}
	for _, d := range vm.Disks {
		if out[d.Key], err = l.DiskSHA256(t.Context(), name, d.Key); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
