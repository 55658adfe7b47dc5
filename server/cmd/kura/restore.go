package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type restoreCmd struct {
	Create restoreCreate `cmd:"" help:"Restore an image: over its VM, as a new one, or one disk of it."`
	List   restoreList   `cmd:"" help:"List restores, the newest first."`
	Show   restoreShow   `cmd:"" help:"Show a restore."`
	Delete restoreDelete `cmd:"" help:"Forget a restore, and if that is asked for delete the VM that it made."`
}

type restoreCreate struct {
	Image       string `xor:"source" required:"" as:"ID" help:"The image's id; kura image list shows them."`
	RunID       string `name:"run" xor:"source" required:"" as:"ID" help:"Restore all images of this run of a group; kura run list shows them."`
	InPlace     bool   `xor:"mode" required:"" help:"Overwrite the VM that the image was made of. It is left powered off unless --power-on is given."`
	NewVM       string `name:"new-vm" xor:"mode" required:"" as:"NAME" help:"Make a new VM of this name."`
	NewVMPrefix string `name:"new-vm-prefix" xor:"mode" required:"" as:"TEXT" help:"With --run: make new VMs, each of the name that it had with this before it."`
	Disk        string `xor:"mode" required:"" as:"LABEL|KEY" help:"Put back one disk only, named by its label or key: onto --vm, in the place of the same disk, or with --attach as one more."`

	PowerOff bool   `group:"in place" help:"Power the VM off first; without it a running one is refused."`
	Safety   string `enum:",quick,image,none" default:"" as:"quick|image|none" group:"in place" help:"What is kept of the VM: its former disks for 24 hours (quick, the default), a full backup (image), or nothing."`

	VM     string `name:"vm" as:"NAME" group:"disk" help:"The VM that gets the disk; default the one that the image was made of."`
	Attach bool   `group:"disk" help:"Attach it as a new disk; the VM may run. Without it the VM's own disk is replaced."`

	VCenter          string   `name:"vcenter" as:"NAME" group:"new" help:"Where to make it; default the image's."`
	Datacenter       string   `as:"NAME" group:"new" help:"Its datacenter."`
	Folder           string   `as:"PATH" group:"new" help:"Its folder."`
	Datastore        string   `as:"NAME" group:"new" help:"Its datastore; that of a disk that is attached."`
	StoragePolicy    string   `as:"NAME" group:"new" help:"Its storage policy."`
	Cluster          string   `as:"NAME" xor:"place" group:"new" help:"Its cluster."`
	Host             string   `as:"NAME" xor:"place" group:"new" help:"Its host."`
	ResourcePool     string   `as:"PATH" xor:"place" group:"new" help:"Its resource pool."`
	Network          []string `as:"FROM=TO" sep:"none" group:"new" help:"Network of the image and the one to use instead; may be repeated."`
	PreserveIdentity bool     `group:"new" help:"Keep the UUIDs and MAC addresses."`
	AsTemplate       bool     `group:"new" help:"Make it a template."`

	PowerOn     bool   `help:"Power the VM on afterwards."`
	Description string `as:"TEXT" help:"Why, for the list of restores."`
	KeepGoing   bool   `help:"With --run: restore what can be restored, even if some of it cannot; without it nothing is begun then."`
	Check       bool   `help:"Only tell whether it would start, and what to know about it."`
	Wait        bool   `help:"Show how it goes and end when it has; the exit status is 1 unless all of it succeeded."`
}

// Help is shown below the command's first line.
func (*restoreCreate) Help() string {
	return examples("kura restore create --image 01JDZK3Q8X4T9V2M6B7N5C1R0E --new-vm erp-check --datastore ds2 --network prod=isolated --wait",
		"kura restore create --image 01JDZK3Q8X4T9V2M6B7N5C1R0E --in-place --power-off --power-on --wait",
		"kura restore create --image 01JDZK3Q8X4T9V2M6B7N5C1R0E --disk 2001 --vm erp --attach --wait",
		"kura restore create --run 01JDZK3Q8X4T9V2M6B7N5C1R0F --new-vm-prefix drill- --network prod=isolated --wait")
}

// Run starts a restore.
func (r *restoreCreate) Run(ctx context.Context, s *session) error {
	if r.RunID != "" {
		return r.all(ctx, s)
	}
	if r.NewVMPrefix != "" || r.KeepGoing {
		return usef("--new-vm-prefix and --keep-going go with --run; one image gets a name by --new-vm.")
	}
	if err := needID("image", r.Image); err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	spec, err := r.spec(ctx, c)
	if err != nil {
		return err
	}
	raw, err := body(c.CheckRestoreWithResponse(ctx, nil, spec))
	if err != nil {
		return err
	}
	if r.Check {
		return showOne(s, raw, func(a api.RestoreCheckResult) (r record) {
			r.add("would start", "yes")
			for _, w := range a.Warnings {
				r.add("warning", w)
			}
			return r
		})
	}
	check, err := decode[api.RestoreCheckResult](raw)
	if err != nil {
		return err
	}
	for _, w := range check.Warnings {
		fmt.Fprintf(s.stderr, "Warning: %s\n", clean(w))
	}
	if raw, err = body(c.CreateRestoreWithResponse(ctx, &api.CreateRestoreParams{IdempotencyKey: newKey()}, spec)); err != nil {
		return err
	}
	if !r.Wait {
		return showOne(s, raw, s.restoreRecord)
	}
	started, err := decode[api.Restore](raw)
	if err != nil {
		return err
	}
	return s.waitRestore(ctx, c, started)
}

// spec is what the flags ask for. Those of another kind of restore are
// refused, not passed over.
func (r *restoreCreate) spec(ctx context.Context, c *api.ClientWithResponses) (api.Restore, error) {
	spec := api.Restore{ImageID: r.Image, Description: r.Description}
	vm, err := r.newVM()
	if err == nil {
		err = r.fits(vm)
	}
	if err != nil {
		return spec, err
	}
	switch {
	case r.InPlace:
		spec.InPlace = &api.RestoreInPlace{PowerOff: r.PowerOff, PowerOn: r.PowerOn, Safety: api.Safety(r.Safety)}
	case r.Disk != "":
		spec.Disk, err = r.disk(ctx, c)
	default:
		vm.PowerOn = r.PowerOn
		vm.VCenterID, err = vcenterID(ctx, c, r.VCenter)
		spec.NewVM = &vm
	}
	return spec, err
}

func (r *restoreCreate) newVM() (api.RestoreNewVM, error) {
	networks, err := pairs("network", r.Network)
	return api.RestoreNewVM{
		Name: r.NewVM, Datacenter: r.Datacenter, Folder: r.Folder, Datastore: r.Datastore, StoragePolicy: r.StoragePolicy,
		Cluster: r.Cluster, Host: r.Host, ResourcePool: r.ResourcePool, NetworkMappings: networks,
		PreserveIdentity: r.PreserveIdentity, AsTemplate: r.AsTemplate,
	}, err
}

// fits refuses flags that belong to another kind of restore.
func (r *restoreCreate) fits(vm api.RestoreNewVM) error {
	place := cmp.Or(r.VCenter, vm.Datacenter, vm.Folder, vm.StoragePolicy, vm.Cluster, vm.Host, vm.ResourcePool) != "" ||
		vm.NetworkMappings != nil || vm.PreserveIdentity || vm.AsTemplate
	switch {
	case r.RunID != "" && (r.NewVM != "" || r.Disk != ""):
		return usef("--run goes with --in-place or --new-vm-prefix.")
	case r.InPlace && (place || r.Datastore != ""):
		return usef("--in-place leaves the VM where it is and what it is: the flags for a new VM go with --new-vm.")
	case r.Disk != "" && (place || r.PowerOn):
		return usef("--disk changes nothing of the VM but one disk: the flags for a new VM go with --new-vm.")
	case r.Disk != "" && !r.Attach && r.Datastore != "":
		return usef("A disk that is replaced stays on its datastore: --datastore goes with --attach.")
	case r.Disk == "" && (r.VM != "" || r.Attach):
		return usef("--vm and --attach go with --disk.")
	case !r.InPlace && (r.PowerOff || r.Safety != ""):
		return usef("--power-off and --safety go with --in-place.")
	}
	return nil
}

// disk asks for one disk, by key where a number is given.
func (r *restoreCreate) disk(ctx context.Context, c *api.ClientWithResponses) (*api.RestoreDisk, error) {
	d := api.RestoreDisk{SourceDiskLabel: r.Disk, Mode: api.DiskRestoreModeReplace, Datastore: r.Datastore}
	if key, err := strconv.ParseInt(r.Disk, 10, 32); err == nil {
		d.SourceDiskKey, d.SourceDiskLabel = int32(key), ""
	}
	if r.Attach {
		d.Mode = api.DiskRestoreModeAttach
	}
	var err error
	if d.VirtualMachineID, err = vmID(ctx, c, r.VM); err != nil || d.VirtualMachineID != "" {
		return &d, err
	}
	raw, err := body(c.GetBackupImageWithResponse(ctx, r.Image))
	if err != nil {
		return nil, err
	}
	image, err := decode[api.BackupImage](raw)
	d.VirtualMachineID = image.VirtualMachine.ID
	return &d, err
}

// waitRestore waits for a restore and shows it as it ended.
func (s *session) waitRestore(ctx context.Context, c *api.ClientWithResponses, r api.Restore) error {
	job, err := s.waitJob(ctx, c, r.JobID)
	if err != nil {
		return err
	}
	raw, err := body(c.GetRestoreWithResponse(ctx, r.ID, &api.GetRestoreParams{}))
	if err != nil {
		return err
	}
	if err := showOne(s, raw, s.restoreRecord); err != nil {
		return err
	}
	return jobEnd(job)
}

func (s *session) restoreRecord(v api.Restore) (r record) {
	r.add("id", v.ID)
	r.add("image id", v.ImageID)
	r.add("restores", target(v))
	r.add("description", v.Description)
	r.add("status", string(v.Status))
	if v.Error != nil {
		r.add("error", v.Error.Message+" ("+string(v.Error.Code)+")")
	}
	for _, m := range v.Messages {
		r.add("message", m)
	}
	if vm := v.RestoredVM; vm != nil {
		r.add("restored VM", vm.Name+" ("+vm.MOID+")")
		r.add("instance uuid", vm.InstanceUUID)
	}
	if v.BytesRestored > 0 {
		r.add("written", size(v.BytesRestored))
	}
	r.add("job id", v.JobID)
	r.add("created", when(v.CreatedAt))
	r.add("started", when(v.StartedAt))
	r.add("completed", when(v.CompletedAt))
	r.add("duration", took(v.StartedAt, v.CompletedAt, s.now()))
	return r
}

// target says what a restore makes or overwrites.
func target(v api.Restore) string {
	switch {
	case v.NewVM != nil:
		return "new VM " + v.NewVM.Name
	case v.InPlace != nil:
		return "in place"
	}
	if v.Disk == nil {
		return ""
	}
	disk := cmp.Or(v.Disk.SourceDiskLabel, fmt.Sprint("disk ", v.Disk.SourceDiskKey))
	if v.Disk.Mode == api.DiskRestoreModeAttach {
		return disk + ", attached"
	}
	return disk + ", replaced"
}

type restoreList struct {
	Limit int `as:"N" help:"No more than this many. Default: all."`
}

// Run lists restores.
func (l *restoreList) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	items, err := collect(l.Limit, func(cursor string) (answer, error) {
		return c.ListRestoresWithResponse(ctx, &api.ListRestoresParams{Limit: pageSize, Cursor: cursor})
	})
	if err != nil {
		return err
	}
	return showAll(s, "restores", items, []string{"START TIME", "TYPE", "STATUS", "DURATION", "VM", "IMAGE", "ID"}, func(r api.Restore) []string {
		vm := ""
		if r.RestoredVM != nil {
			vm = r.RestoredVM.Name
		}
		return []string{when(r.StartedAt), target(r), string(r.Status), took(r.StartedAt, r.CompletedAt, s.now()), vm, r.ImageID, r.ID}
	})
}

type restoreShow struct {
	ID string `arg:"" help:"The restore's id."`
}

// Run shows a restore.
func (r *restoreShow) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	if err := needID("restore", r.ID); err != nil {
		return err
	}
	raw, err := body(c.GetRestoreWithResponse(ctx, r.ID, &api.GetRestoreParams{}))
	if err != nil {
		return err
	}
	return showOne(s, raw, s.restoreRecord)
}
