package provider_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestANeighbourPlansNothingAfterARestore: a VM belongs to a
// vsphere_virtual_machine of the real vsphere provider. It is restored in
// place, whole and by one disk, and its owner sees nothing to change: it finds
// disks by the UUIDs of their backings, and would detach others as orphans.
func TestANeighbourPlansNothingAfterARestore(t *testing.T) {
	l, err := lab.New(lab.Config{VMs: -1, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p := newProgram(t, neighbour(t, l))
	p.override("hashicorp/vsphere", "../build/peers/terraform-provider-vsphere")
	p.apply()
	p.unchanged("right after its creation")
	v, err := addVCenter(t.Context(), l, api.VCenter{Name: "neighbours"})
	if err != nil {
		t.Fatal(err)
	}
	id, key := vmOf(t, v, "neighbour"), l.VMs()[0].Disks[0].Key
	write := func(off int64) {
		if err := l.GuestWriteRandom("neighbour", key, off, 3<<20, uint64(off)); err != nil {
			t.Fatal(err)
		}
	}
	write(5 << 20)
	image := backupOf(t, id)
	want := sums(t, l, "neighbour")
	for name, target := range map[string]api.Restore{
		"the whole VM": {ImageID: image.ID, InPlace: &api.RestoreInPlace{PowerOff: true, PowerOn: true}},
		"one disk":     {ImageID: image.ID, Disk: &api.RestoreDisk{SourceDiskKey: key, VirtualMachineID: id, Mode: api.DiskRestoreModeReplace}},
	} {
		write(6 << 20)
		if target.Disk != nil {
			if err := l.SetPower(t.Context(), "neighbour", false); err != nil {
				t.Fatal(err)
			}
		}
		putBack(t, target)
		if got := sums(t, l, "neighbour"); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: the disks are %v, want %v", name, got, want)
		}
		if target.Disk != nil {
			if err := l.SetPower(t.Context(), "neighbour", true); err != nil {
				t.Fatal(err)
			}
		}
		p.unchanged("after a restore of " + name)
	}
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
}

// putBack restores and waits.
func putBack(t *testing.T, r api.Restore) {
	t.Helper()
	a, err := house.api.CreateRestoreWithResponse(t.Context(), nil, r)
	ok(t, a, err)
	until(t, "the end of the restore", func() bool {
		g, err := house.api.GetRestoreWithResponse(t.Context(), a.JSON201.ID, nil)
		ok(t, g, err)
		if g.JSON200.Status.Final() && g.JSON200.Status != api.JobStateSucceeded {
			t.Fatalf("the restore ended %s: %+v", g.JSON200.Status, g.JSON200.Error)
		}
		return g.JSON200.Status.Final()
	})
}

// neighbour is a VM of the vsphere provider.
func neighbour(t *testing.T, l *lab.Lab) string {
	t.Helper()
	u, err := url.Parse(l.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`
provider "vsphere" {
  user                 = %q
  password             = %q
  vsphere_server       = %q
  allow_unverified_ssl = true
}

data "vsphere_datacenter" "dc" {
  name = "DC0"
}

data "vsphere_datastore" "ds" {
  name          = "LocalDS_0"
  datacenter_id = data.vsphere_datacenter.dc.id
}

data "vsphere_compute_cluster" "cluster" {
  name          = "DC0_C0"
  datacenter_id = data.vsphere_datacenter.dc.id
}

data "vsphere_network" "net" {
  name          = "VM Network"
  datacenter_id = data.vsphere_datacenter.dc.id
}

resource "vsphere_virtual_machine" "neighbour" {
  name                       = "neighbour"
  resource_pool_id           = data.vsphere_compute_cluster.cluster.resource_pool_id
  datastore_id               = data.vsphere_datastore.ds.id
  num_cpus                   = 2
  memory                     = 256
  guest_id                   = "otherLinux64Guest"
  wait_for_guest_net_timeout = 0
  wait_for_guest_ip_timeout  = 0

  network_interface {
    network_id = data.vsphere_network.net.id
  }

  disk {
    label = "disk0"
    size  = 1
  }

  disk {
    label       = "disk1"
    size        = 1
    unit_number = 1
  }

  lifecycle {
    ignore_changes = [swap_placement_policy] # the lab has none
  }
}
`, l.User(), l.Password(), u.Host)
}

// override makes terraform take another provider's program, which the makefile has built.
func (p *program) override(source, program string) {
	p.t.Helper()
	path, err := filepath.Abs(program)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		p.t.Fatalf("%v: run make %s", err, strings.TrimPrefix(program, "../"))
	}
	rc := filepath.Join(p.dir, "terraform.rc")
	b, err := os.ReadFile(rc)
	if err != nil {
		p.t.Fatal(err)
	}
	text := strings.Replace(string(b), "dev_overrides {\n", fmt.Sprintf("dev_overrides {\n    %q = %q\n", source, filepath.Dir(path)), 1)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// unchanged fails the test when a plan has anything to do.
func (p *program) unchanged(when string) {
	p.t.Helper()
	if out, err := p.run("plan", "-no-color", "-input=false", "-detailed-exitcode"); err != nil {
		p.t.Errorf("the plan %s is not empty: %v\n%s", when, err, out)
	}
}
