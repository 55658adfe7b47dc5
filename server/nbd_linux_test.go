package server_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestOverNBDOnlyWhatHasChangedIsRead: nbdkit serves copies of the lab's disks,
// whose guests are quiet, so that a disk is as its snapshot.
//
// seed:W6 seed:N6
func TestOverNBDOnlyWhatHasChangedIsRead(t *testing.T) {
	dir := t.TempDir()
	w := &world{T: t, ctx: t.Context(), lab: newLab(t, lab.Config{VMs: 1, DiskSize: 24 << 20})}
	disks := httptest.NewServer(lab.Control(w.lab))
	t.Cleanup(disks.Close)
	program, requests := filepath.Join(dir, "serve"), filepath.Join(dir, "requests")
	if err := os.WriteFile(program, fmt.Appendf(nil, `#!/bin/sh
copy=%s/copy.$$
nbdcopy -- [ nbdkit -r curl "%s/vms/$KURA_VM_MOID/disks/$KURA_DISK_KEY" ] "$copy"
exec nbdkit -f -r --exit-with-parent -U "$KURA_NBD_SOCKET" --filter=log file "$copy" logfile=%s logappend=true
`, dir, disks.URL, requests), 0o700); err != nil {
		t.Fatal(err)
	}
	s := start(t, server.Config{NBDCommand: program})
	w.api = client(t, s.URL(), s.OperatorTokenFile())
	v := w.vcenter("lab")
	g, err := w.api.GetVCenterWithResponse(w.ctx, v.ID)
	w.ok(g, err)
	change := *g.JSON200
	change.Transport, change.Password = api.TransportNbd, w.lab.Password()
	w.ok(w.api.UpdateVCenterWithResponse(w.ctx, v.ID, &api.UpdateVCenterParams{IfMatch: "*"}, change))

	vm := w.vm(v.ID, "vm01")
	full := w.backup(vm.ID)
	before := requested(t, requests)
	if before != full.Sizes.Read || before == 0 || before > 20<<20 {
		t.Errorf("of a disk of 24 MiB with holes nbdkit was asked for %d bytes, and %d are said to have been read", before, full.Sizes.Read)
	}
	// What was data is zero now: it costs no reading, and must not stay as it was.
	if err := w.lab.GuestWrite("vm01", 2000, 0, make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{3 << 20, 20 << 20} {
		if err := w.lab.GuestWriteRandom("vm01", 2000, off, 128<<10, uint64(off)); err != nil {
			t.Fatal(err)
		}
	}
	want := w.sums("vm01")
	second := w.backup(vm.ID)
	// Beside what has changed a few blocks are compared that are said to have not.
	asked := requested(t, requests) - before
	if second.ChangeDetection != api.ChangeDetectionCbt || asked != second.Sizes.Read || asked > 10<<20 {
		t.Errorf("the second backup went by %s, read %d bytes, and asked for %d", second.ChangeDetection, second.Sizes.Read, asked)
	}
	r := w.restore(api.Restore{ImageID: second.ID, NewVM: &api.RestoreNewVM{Name: "copy"}})
	if r.Status != api.JobStateSucceeded {
		t.Fatalf("restore: %s %+v", r.Status, r.Error)
	}
	w.same("what was restored", w.sums("copy"), want)
	w.noLeftovers()
}

// requested adds up what nbdkit was asked to read.
func requested(t *testing.T, log string) (total int64) {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Read id=\d+ offset=\S+ count=0x([0-9a-f]+)`).FindAllSubmatch(text, -1) {
		n, err := strconv.ParseInt(string(m[1]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}
