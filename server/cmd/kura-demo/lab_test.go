package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

func parse(t *testing.T, args ...string) (*cli, error) {
	t.Helper()
	var c cli
	p, err := kong.New(&c, kong.Vars{"version": "test"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Parse(args)
	return &c, err
}

func TestTheLabsDefaultsAreThoseThatScriptsRelyOn(t *testing.T) {
	c, err := parse(t, "lab")
	if err != nil {
		t.Fatal(err)
	}
	got := c.Lab
	if got.Listen != "127.0.0.1:8989" || got.Control != "127.0.0.1:8990" || got.VMs != 12 || got.Hosts != 2 ||
		got.Datastores != 2 || got.DiskSize != 64<<20 || got.Seed != 1 || got.VCenters != 1 {
		t.Errorf("defaults: %+v", got)
	}
	for _, size := range []string{"0", "-1MiB", "64MB", "x", "9999999TiB"} {
		if _, err := parse(t, "lab", "--disk-size="+size); err == nil {
			t.Errorf("--disk-size=%s was accepted", size)
		}
	}
}

func TestTheLabAloneTellsWhereItsVCentersAre(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ready.json")
	c, err := parse(t, "lab", "--listen=127.0.0.1:0", "--control=127.0.0.1:0", "--vms=2", "--vcenters=2", "--disk-size=1MiB", "--ready-file="+file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Lab.Run(ctx, t.Output()) }()
	var r labReady
	for deadline := time.Now().Add(time.Minute); ; {
		if b, err := os.ReadFile(file); err == nil {
			if err := json.Unmarshal(b, &r); err != nil {
				t.Fatalf("ready file %s: %v", b, err)
			}
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the lab ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("the lab is not ready after a minute")
		}
	}
	if len(r.VCenters) != 2 || r.VCenter != r.VCenters[0] || r.VCenters[0].Endpoint == r.VCenters[1].Endpoint || len(r.VCenter.Thumbprint) != 95 {
		t.Errorf("ready file: %+v", r)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.Control+"/vms?sha256=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var list []lab.VM
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil || len(list) != 4 {
		t.Fatalf("%d VMs of two vCenters: %v", len(list), err)
	}
	if list[0].InstanceUUID == list[2].InstanceUUID || list[0].VCenter == list[2].VCenter || !strings.HasPrefix(list[0].Name, "vm0") {
		t.Errorf("the VMs of two vCenters: %+v, %+v", list[0], list[2])
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the lab ended: %v", err)
	}
}
