package handler_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// names lists the VMs page by page.
func (r *rig) names(params api.ListVirtualMachinesParams) []string {
	r.t.Helper()
	var got []string
	for vm, err := range api.All(func(cursor string) ([]api.VirtualMachine, string, error) {
		params.Cursor = cursor
		a, err := r.client(auth.Viewer).ListVirtualMachinesWithResponse(context.Background(), &params)
		if err := api.Err(a, err); err != nil {
			return nil, "", err
		}
		return a.JSON200.Items, a.JSON200.NextCursor, nil
	}) {
		r.must(err)
		got = append(got, vm.Name)
	}
	slices.Sort(got)
	return got
}

// seed:W2 seed:W15
func TestVirtualMachinesAreListedWholeHoweverSmallThePages(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		params api.ListVirtualMachinesParams
		want   []string
	}{
		"all, one by one":          {api.ListVirtualMachinesParams{Limit: 1}, []string{"vm01", "vm02", "vm03", "vm04", "vm05"}},
		"all, in twos":             {api.ListVirtualMachinesParams{Limit: 2}, []string{"vm01", "vm02", "vm03", "vm04", "vm05"}},
		"by tag":                   {api.ListVirtualMachinesParams{Tag: []string{"backup:gold"}}, []string{"vm01", "vm04"}},
		"by tag, one by one":       {api.ListVirtualMachinesParams{Tag: []string{"backup:gold"}, Limit: 1}, []string{"vm01", "vm04"}},
		"by two tags":              {api.ListVirtualMachinesParams{Tag: []string{"backup:gold", "os:linux"}}, nil},
		"by name":                  {api.ListVirtualMachinesParams{Name: "vm03"}, []string{"vm03"}},
		"of the vcenter":           {api.ListVirtualMachinesParams{VCenterID: r.vcenter.ID, Limit: 3}, []string{"vm01", "vm02", "vm03", "vm04", "vm05"}},
		"of a vcenter not there":   {api.ListVirtualMachinesParams{VCenterID: nobody}, nil},
		"with those that are gone": {api.ListVirtualMachinesParams{IncludeGone: true}, []string{"vm01", "vm02", "vm03", "vm04", "vm05"}},
	} {
		if diff := cmp.Diff(c.want, r.names(c.params)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	vm := into[api.VirtualMachine](r, r.do(call{method: "GET", path: "/v1/virtual-machines/" + r.vms[0].ID, role: auth.Viewer}), 200)
	if vm.Memory != 2048<<20 || len(vm.Disks) != 1 || vm.Disks[0].Capacity != 1<<30 || vm.PowerState != api.PowerStateOff {
		t.Errorf("vm = %+v, want memory and disks in bytes", vm)
	}
}

// seed:N68 seed:A8
func TestWhatCannotBeProtectedIsListedAloneWithItsReasons(t *testing.T) {
	r := newRig(t)
	r.vms[1].Unprotectable = "it is a template"
	r.vms[3].Disks[0].Unprotectable = "it is independent"
	r.must(r.db.Update(t.Context(), func(tx backup.Tx) error { return tx.SaveMachines(t.Context(), r.vms) }))
	if diff := cmp.Diff([]string{"vm02", "vm04"}, r.names(api.ListVirtualMachinesParams{Unprotectable: true, Limit: 1})); diff != "" {
		t.Errorf("VMs that cannot be protected (-want +got):\n%s", diff)
	}
	vm := into[api.VirtualMachine](r, r.do(call{method: "GET", path: "/v1/virtual-machines/" + r.vms[1].ID, role: auth.Viewer}), 200)
	disk := into[api.VirtualMachine](r, r.do(call{method: "GET", path: "/v1/virtual-machines/" + r.vms[3].ID, role: auth.Viewer}), 200)
	if vm.UnprotectableReason != "it is a template" || disk.UnprotectableReason != "" || disk.Disks[0].UnprotectableReason != "it is independent" {
		t.Errorf("reasons are %q, %q and %q of the disk", vm.UnprotectableReason, disk.UnprotectableReason, disk.Disks[0].UnprotectableReason)
	}
}

// seed:W12 seed:W14
func TestAGroupTellsItsMembersAsTheyAreNow(t *testing.T) {
	r := newRig(t)
	want := api.BackupGroup{
		Name: "gold", Description: "d", VirtualMachineIDs: []string{r.vms[1].ID}, ExcludeVirtualMachineIDs: []string{r.vms[3].ID},
		Selector:      &api.Selector{VCenterID: r.vcenter.ID, Tags: []api.Tag{{Category: "backup", Name: "gold"}}, Folder: "/DC0/vm", Recursive: true, NameRegex: "^vm"},
		ReservedSeats: 3, MaxParallel: 2, OnMemberFailure: api.MemberFailureLeaveOut, Labels: map[string]string{"a": "b"}, DeletionProtection: true,
	}
	made := into[api.BackupGroup](r, r.do(call{method: "POST", path: "/v1/backup-groups", role: auth.Backup, body: want}), 201)
	read := into[api.BackupGroup](r, r.do(call{method: "GET", path: "/v1/backup-groups/" + made.ID, role: auth.Viewer}), 200)
	if diff := cmp.Diff(want, read, cmpopts.IgnoreFields(api.BackupGroup{}, "ID", "CreatedAt", "UpdatedAt")); diff != "" {
		t.Errorf("group (-written +read):\n%s", diff)
	}
	members := into[api.VirtualMachineList](r, r.do(call{method: "GET", path: "/v1/backup-groups/" + made.ID + "/members", role: auth.Viewer}), 200)
	var got []string
	for _, vm := range members.Items {
		got = append(got, vm.Name)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"vm01", "vm02"}, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	run := into[api.Run](r, r.do(call{method: "POST", path: "/v1/backup-groups/" + made.ID + ":backup", role: auth.Backup, body: api.BackupOptions{RetentionDays: 31, Full: true}}), 202)
	if len(run.Jobs) != 2 || run.Trigger != api.RunTriggerManual || run.GroupID != made.ID {
		t.Errorf("run = %+v, want a job per member", run)
	}
	if a := r.do(call{method: "DELETE", path: "/v1/backup-groups/" + made.ID, role: auth.Operator}); a.status != 409 || a.problem.Code != api.ErrorCodeInUse {
		t.Errorf("delete of a protected group: %d %s, want 409 in_use", a.status, a.problem.Code)
	}
}

// seed:N49
func TestImagesAreFoundByWhatTheyAre(t *testing.T) {
	r := newRig(t)
	var ids []string
	for i, vm := range []int{0, 0, 1} {
		image := r.image(r.vms[vm], func(img *backup.Image) {
			img.Sizes = backup.Sizes{Provisioned: 4, Read: 3, Changed: 2, Stored: 1}
			if i == 1 {
				img.Status, img.Labels = backup.ImagePartial, map[string]string{"tier": "x=y"}
			}
		})
		ids = append(ids, image.ID)
		r.clock.pass(time.Hour)
	}
	start := time.Date(2026, 12, 1, 0, 30, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		params api.ListBackupImagesParams
		want   []string
	}{
		"all, newest first":   {api.ListBackupImagesParams{}, []string{ids[2], ids[1], ids[0]}},
		"of a VM":             {api.ListBackupImagesParams{VirtualMachineID: r.vms[0].ID}, []string{ids[1], ids[0]}},
		"of a VM by name":     {api.ListBackupImagesParams{VirtualMachineName: "vm02"}, []string{ids[2]}},
		"good ones":           {api.ListBackupImagesParams{Status: api.ImageStatusGood}, []string{ids[2], ids[0]}},
		"by label":            {api.ListBackupImagesParams{Label: []string{"tier=x=y"}}, []string{ids[1]}},
		"after":               {api.ListBackupImagesParams{CreatedAfter: start.Add(time.Hour)}, []string{ids[2], ids[1]}},
		"before":              {api.ListBackupImagesParams{CreatedBefore: start.Add(time.Hour)}, []string{ids[0]}},
		"after, another zone": {api.ListBackupImagesParams{CreatedAfter: start.Add(2 * time.Hour).In(time.FixedZone("", 9*3600))}, []string{ids[2]}},
		"the newest":          {api.ListBackupImagesParams{Limit: 1}, []string{ids[2]}},
		"of a repository":     {api.ListBackupImagesParams{Repository: "default"}, []string{ids[2], ids[1], ids[0]}},
		"of another schedule": {api.ListBackupImagesParams{ScheduleID: nobody}, nil},
	} {
		a, err := r.client(auth.Viewer).ListBackupImagesWithResponse(context.Background(), &c.params)
		r.must(api.Err(a, err))
		var got []string
		for _, i := range a.JSON200.Items {
			got = append(got, i.ID)
			if i.Repository != "default" || i.Sizes != (api.ImageSizes{Provisioned: 4, Read: 3, Changed: 2, Stored: 1}) {
				t.Errorf("%s: image = %+v, want its repository's name and its sizes", name, i)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// seed:A33 seed:N43
func TestAnImageIsDeletedByAnOperatorUnlessItIsLocked(t *testing.T) {
	r := newRig(t)
	locked := r.image(r.vms[0], func(i *backup.Image) { i.LockedUntil = r.clock.Now().Add(time.Hour) })
	if a := r.do(call{method: "DELETE", path: "/v1/backup-images/" + locked.ID, role: auth.Operator}); a.status != 423 || a.problem.Code != api.ErrorCodeLocked {
		t.Errorf("a locked image: %d %s, want 423 locked", a.status, a.problem.Code)
	}
	free := r.image(r.vms[0], nil)
	if a := r.do(call{method: "DELETE", path: "/v1/backup-images/" + free.ID, role: auth.Operator}); a.status != 204 {
		t.Fatalf("delete: %d: %s", a.status, a.body)
	}
	jobs := into[api.JobList](r, r.do(call{method: "GET", path: "/v1/jobs?kind=delete&active=true", role: auth.Viewer}), 200)
	if len(jobs.Items) != 1 || jobs.Items[0].ImageID != free.ID {
		t.Errorf("delete jobs = %+v, want one for the image", jobs.Items)
	}
}

// seed:W22
func TestAVCenterIsSyncedAndChangedWithoutItsPassword(t *testing.T) {
	r := newRig(t)
	path := "/v1/vcenters/" + r.vcenter.ID
	got := into[api.VCenter](r, r.do(call{method: "GET", path: path, role: auth.Viewer}), 200)
	if got.Limits == nil || got.Limits.DisksPerHost != 20 || got.SyncState != api.SyncStatePending || got.Password != "" {
		t.Errorf("vcenter = %+v, want the default limits, no sync and no password", got)
	}
	got.SlotCapacity, got.TagMappings = 30, []api.TagMapping{{Category: "os", Tag: "linux", Key: "OS", Value: "Linux"}}
	put := into[api.VCenter](r, r.do(call{method: "PUT", path: path, role: auth.Operator, body: got}), 200)
	if put.SlotCapacity != 30 || len(put.TagMappings) != 1 {
		t.Errorf("after PUT: %+v", put)
	}
	r.must(r.db.View(context.Background(), func(tx backup.Tx) error {
		v, err := tx.VCenter(context.Background(), r.vcenter.ID)
		if v.Password.Reveal() != "s3cret-pass" {
			t.Error("a PUT without a password changed it")
		}
		return err
	}))
	a := r.do(call{method: "POST", path: path + ":sync", role: auth.Backup})
	job := into[api.Job](r, a, 202)
	if job.Kind != api.JobKindSync || job.VCenterID != r.vcenter.ID || a.header.Get("Location") != "/v1/jobs/"+job.ID {
		t.Errorf("job = %+v at %s, want a sync of the vcenter", job, a.header.Get("Location"))
	}
}

// seed:N31 seed:N32 seed:N33 seed:N34
func TestTheServerTellsWhatItAllows(t *testing.T) {
	r := newRig(t)
	got := into[api.Server](r, r.do(call{method: "GET", path: "/v1/server", role: auth.Viewer}), 200)
	want := api.Server{
		Version: "1.2.3", APIVersion: api.Version, InstallationID: "01JDZK3Q8X4T9V2M6B7N5C1R0A", Time: r.clock.Now(), RetentionProfile: api.RetentionProfileStandard,
		RetentionChoices: api.RetentionChoices{
			OneTime: []int{1, 31, 366}, Daily: []int{1, 2, 3, 4, 5, 6, 7, 8}, Weekly: []int{7, 14, 21, 28, 35, 42, 49, 56},
			Monthly: []int{31, 62, 93, 124, 155, 186, 217, 248},
		},
		Clock: api.Clock{Time: r.clock.Now(), Trusted: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("server (-want +got):\n%s", diff)
	}
	repos := into[api.RepositoryList](r, r.do(call{method: "GET", path: "/v1/repositories?name=default", role: auth.Viewer}), 200)
	if len(repos.Items) != 1 || !repos.Items[0].Default || repos.Items[0].Settings["path"] != "/srv/kura" || repos.Items[0].FreeBytes != nil {
		t.Errorf("repositories = %+v", repos.Items)
	}
}

// seed:W14 seed:W26
func TestAGroupAndItsRunTellWhoHasJoinedAndLeft(t *testing.T) {
	r := newRig(t)
	made := into[api.BackupGroup](r, r.do(call{method: "POST", path: "/v1/backup-groups", role: auth.Backup, body: api.BackupGroup{
		Name: "gold", Selector: &api.Selector{VCenterID: r.vcenter.ID, Tags: []api.Tag{{Category: "backup", Name: "gold"}}}}}), 201)
	run := func() api.Run {
		t.Helper()
		r.clock.pass(time.Minute)
		started := into[api.Run](r, r.do(call{method: "POST", path: "/v1/backup-groups/" + made.ID + ":backup", role: auth.Backup, body: api.BackupOptions{RetentionDays: 31}}), 202)
		return into[api.Run](r, r.do(call{method: "GET", path: "/v1/runs/" + started.ID, role: auth.Viewer}), 200)
	}
	changes := func(query string) (out []string, list api.MemberChangeList) {
		t.Helper()
		list = into[api.MemberChangeList](r, r.do(call{method: "GET", path: "/v1/backup-groups/" + made.ID + "/changes" + query, role: auth.Viewer}), 200)
		for _, c := range list.Items {
			out = append(out, c.VirtualMachine.Name+" "+string(c.Change)+": "+c.Cause)
		}
		slices.Sort(out)
		return out, list
	}
	if got, list := changes(""); got != nil || !list.LastRunAt.IsZero() {
		t.Errorf("a new group tells %q, run at %v", got, list.LastRunAt)
	}
	if first := run(); len(first.Joined)+len(first.Left) != 0 {
		t.Errorf("the first run tells %+v and %+v, want nothing", first.Joined, first.Left)
	}
	r.clock.pass(time.Hour)
	r.vms[0].Tags, r.vms[1].Tags = nil, r.vms[0].Tags
	for i := range r.vms {
		r.vms[i].SeenAt = r.clock.Now()
	}
	r.must(r.db.Update(t.Context(), func(tx backup.Tx) error { return tx.SaveMachines(t.Context(), r.vms) }))
	second := run()
	want := []string{"vm01 left: tag backup:gold was removed", "vm02 joined: tag backup:gold"}
	if len(second.Joined) != 1 || second.Joined[0].VirtualMachine.Name != "vm02" || len(second.Left) != 1 || second.Left[0].Cause != "tag backup:gold was removed" {
		t.Errorf("the second run tells %+v and %+v, want %q", second.Joined, second.Left, want)
	}
	if got, list := changes(""); !slices.Equal(got, want) || !list.LastRunAt.Equal(second.CreatedAt) {
		t.Errorf("the group tells %q, run at %v, want %q, run at %v", got, list.LastRunAt, want, second.CreatedAt)
	}
	if got, _ := changes("?since_last_run=true"); got != nil {
		t.Errorf("since the last run the group tells %q, want nothing", got)
	}
	if got, list := changes("?limit=1"); len(got) != 1 || list.NextCursor == "" {
		t.Errorf("a page of one holds %q and goes on at %q", got, list.NextCursor)
	}
}
