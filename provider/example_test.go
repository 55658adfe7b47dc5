package provider_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
)

// examples joins the examples whose paths hold one of the words, pointed at a
// lab, a bucket and a folder.
func examples(t *testing.T, l *lab.Lab, b *s3test.Bucket, nas string, words ...string) string {
	t.Helper()
	files := []string{"../examples/provider/provider.tf"}
	for _, kind := range []string{"resources/*/resource.tf", "data-sources/*/data-source.tf", "functions/*/function.tf"} {
		found, err := filepath.Glob("../examples/" + kind)
		if err != nil || len(found) == 0 {
			t.Fatalf("examples of %s: %v, %v", kind, found, err)
		}
		files = append(files, found...)
	}
	var all strings.Builder
	for _, file := range files {
		for _, word := range words {
			if !strings.Contains(file, word) {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
	}
	return strings.NewReplacer(
		"https://kura.example.com:8480", house.url, "https://vcenter.example.com", l.Endpoint(), "kura@vsphere.local", l.User(),
		"9F:86:D0:81:88:4C:7D:65:9A:2F:EA:A0:C5:5A:D0:15:A3:BF:4F:1B:2B:0B:82:2C:D1:5D:6C:15:B0:F0:0A:08", l.Thumbprint(),
		`virtual_machine_name = "erp"`, `virtual_machine_name = "vm01"`, "/mnt/nas/kura", nas,
		`endpoint           = "s3.example.com"`, fmt.Sprintf("endpoint = %q\n ca_certificate = %q", b.Settings["endpoint"], b.Settings["ca_certificate"]),
	).Replace(all.String())
}

// TestEveryExampleIsApplied applies the examples of the documentation together,
// as they stand: first what protects, then, when there is an image, the rest.
func TestEveryExampleIsApplied(t *testing.T) {
	l, err := lab.New(lab.Config{VMs: 6, DiskSize: 4 << 20, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	b, nas := s3test.New(t, true), filepath.Join(t.TempDir(), "nas")
	for name, value := range map[string]string{"vcenter_password": l.Password(), "s3_access_key": s3test.User, "s3_secret_key": s3test.Pass} {
		t.Setenv("TF_VAR_"+name, value)
	}
	protect := examples(t, l, b, nas, "/provider/", "kura_vcenter", "kura_backup_group", "kura_backup_schedule", "kura_virtual_machines", "kura_server", "kura_repository", "kura_timeslots", "kura_usage", "/functions/")
	p := newProgram(t, protect)
	p.apply()
	unchanged(t, p)

	v, err := house.api.ListVCentersWithResponse(t.Context(), &api.ListVCentersParams{Name: "tokyo"})
	ok(t, v, err)
	a, err := house.api.BackupVirtualMachineWithResponse(t.Context(), vmOf(t, v.JSON200.Items[0], "vm01"), &api.BackupVirtualMachineParams{}, api.BackupOptions{RetentionDays: 1})
	ok(t, a, err)
	if job, err := house.api.FollowJob(t.Context(), a.JSON202.Jobs[0].ID, nil); err != nil || job.State != api.JobStateSucceeded {
		t.Fatalf("backup ended %s: %+v, %v", job.State, job.Error, err)
	}
	p.write(examples(t, l, b, nas, "/provider/", "/resources/", "/data-sources/", "/functions/"))
	p.apply()
	unchanged(t, p)
	if vm, err := l.VM("erp-check"); err != nil || vm.PowerState != "poweredOff" {
		t.Errorf("the restored copy is %+v, %v; want a machine that is off", vm, err)
	}
}

func unchanged(t *testing.T, p *program) {
	t.Helper()
	if out, err := p.run("plan", "-no-color", "-input=false", "-detailed-exitcode"); err != nil {
		t.Errorf("the plan after the apply is not empty: %v\n%s", err, out)
	}
}
