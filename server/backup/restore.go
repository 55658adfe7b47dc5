package backup

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Restore is an image put back: in place, as a new VM, or as one disk. Exactly
// one of InPlace, NewVM and Disk is set.
type Restore struct {
	ID          string
	Project     string
	ImageID     string
	InPlace     *RestoreInPlace
	NewVM       *RestoreNewVM
	Disk        *RestoreDisk
	Description string
	Token       string // idempotency token: the hash of what was asked for
	Delivered   bool   // its success has been told to a caller; the token then starts anew

	JobID       string
	State       JobState
	CreatedAt   time.Time
	StartedAt   time.Time
	CompletedAt time.Time
	ErrorCode   Code
	Error       string
	Result      RestoredVM
	Bytes       int64 // restored
	Messages    []string
}

// RestoreInPlace overwrites the VM that the image was made of.
type RestoreInPlace struct {
	PowerOff bool   `json:"power_off"` // false = a running VM is refused
	PowerOn  bool   `json:"power_on"`  // false = left powered off (seed N9)
	Safety   Safety `json:"safety"`
}

// Safety is what is kept of the VM that a restore in place overwrites.
type Safety string

// The safeties.
const (
	SafetyQuick Safety = "quick" // the replaced VMDKs are kept for 24 h
	SafetyImage Safety = "image" // a full backup is made first, and kept for SafetyDays
	SafetyNone  Safety = "none"
)

// SafetyDays is how long the image is kept that is made before a VM is overwritten.
const SafetyDays = 31

// RestoreNewVM makes a new VM of the image.
type RestoreNewVM struct {
	Name             string            `json:"name"`
	VCenterID        string            `json:"vcenter_id,omitempty"` // "" = the image's
	Datacenter       string            `json:"datacenter,omitempty"`
	Folder           string            `json:"folder,omitempty"`
	Datastore        string            `json:"datastore,omitempty"`
	StoragePolicy    string            `json:"storage_policy,omitempty"`
	Cluster          string            `json:"cluster,omitempty"`
	Host             string            `json:"host,omitempty"`
	ResourcePool     string            `json:"resource_pool,omitempty"`
	NetworkMappings  map[string]string `json:"network_mappings,omitempty"`
	PowerOn          bool              `json:"power_on,omitempty"`
	PreserveIdentity bool              `json:"preserve_identity,omitempty"`
	AsTemplate       bool              `json:"as_template,omitempty"`
}

// RestoreDisk puts one disk of the image back.
type RestoreDisk struct {
	SourceKey   int32    `json:"source_disk_key,omitempty"`
	SourceLabel string   `json:"source_disk_label,omitempty"`
	VMID        string   `json:"virtual_machine_id"`
	Mode        DiskMode `json:"mode"`
	Datastore   string   `json:"datastore,omitempty"` // attach: where it is put; "" = where the VM lies
}

// DiskMode is what becomes of a single disk that is restored.
type DiskMode string

// The modes.
const (
	DiskReplace DiskMode = "replace" // it takes the place of the VM's disk of the same key, else of the same label
	DiskAttach  DiskMode = "attach"  // it comes to the VM as one more disk
)

// RestoredVM is the VM that a restore made or overwrote.
type RestoredVM struct {
	MOID         string `json:"moid"`
	InstanceUUID string `json:"instance_uuid"`
	BIOSUUID     string `json:"bios_uuid"`
	Name         string `json:"name"`
}

// RestoreSpec is what a restore job was asked to do.
type RestoreSpec struct {
	RestoreID string          `json:"restore_id"`
	ImageID   string          `json:"image_id"`
	VCenterID string          `json:"vcenter_id"` // the target's
	InPlace   *RestoreInPlace `json:"in_place,omitempty"`
	NewVM     *RestoreNewVM   `json:"new_vm,omitempty"`
	Disk      *RestoreDisk    `json:"disk,omitempty"`
	// Before says how the VM is backed up before it is overwritten; nil = it is not.
	Before *BackupSpec `json:"before,omitempty"`
}

// Validate returns an [Invalid] error for the first bad field.
func (r Restore) Validate() error {
	n := 0
	for _, set := range []bool{r.InPlace != nil, r.NewVM != nil, r.Disk != nil} {
		if set {
			n++
		}
	}
	switch {
	case r.ImageID == "":
		return Errorf(Invalid, "image_id", "A restore needs the id of an image.")
	case n != 1:
		return Errorf(Invalid, "in_place", "A restore needs exactly one of in_place, new_vm and disk, got %d of them.", n)
	case r.NewVM != nil:
		return r.NewVM.validate()
	case r.InPlace != nil:
		return r.InPlace.validate()
	}
	return r.Disk.validate()
}

// maxVMName is vSphere's own limit, in characters.
const maxVMName = 80

func (r RestoreNewVM) validate() error {
	if err := ValidName(r.Name); err != nil {
		e := AsError(err)
		e.Field = "new_vm.name"
		return e
	}
	if n := utf8.RuneCountInString(r.Name); n > maxVMName {
		return Errorf(Invalid, "new_vm.name", "vSphere takes names of VMs of up to %d characters, got %d.", maxVMName, n)
	}
	n := 0
	for _, s := range []string{r.Cluster, r.Host, r.ResourcePool} {
		if s != "" {
			n++
		}
	}
	if n > 1 {
		return Errorf(Invalid, "new_vm.resource_pool", "Give at most one of cluster, host and resource_pool.")
	}
	if r.AsTemplate && r.PowerOn {
		return Errorf(Invalid, "new_vm.as_template", "A template cannot be powered on: drop as_template or power_on.")
	}
	return nil
}

func (r RestoreInPlace) validate() error {
	switch r.Safety {
	case SafetyQuick, SafetyImage, SafetyNone:
		return nil
	}
	return Errorf(Invalid, "in_place.safety", "safety must be quick, image or none, got %q.", r.Safety)
}

func (r RestoreDisk) validate() error {
	switch {
	case (r.SourceKey == 0) == (r.SourceLabel == ""):
		return Errorf(Invalid, "disk.source_disk_key", "Give exactly one of source_disk_key and source_disk_label.")
	case r.VMID == "":
		return Errorf(Invalid, "disk.virtual_machine_id", "A disk restore needs the id of the VM that gets the disk.")
	case r.Mode != DiskReplace && r.Mode != DiskAttach:
		return Errorf(Invalid, "disk.mode", "mode must be replace or attach, got %q.", r.Mode)
	case r.Mode == DiskReplace && r.Datastore != "":
		return Errorf(Invalid, "disk.datastore", "A disk that is replaced stays on its datastore: leave datastore out, or use mode = \"attach\".")
	}
	return nil
}

// Choose finds the disk that is meant among those of an image.
func (r RestoreDisk) Choose(disks []ImageDisk) (ImageDisk, error) {
	field, want := "disk.source_disk_key", fmt.Sprintf("of the key %d", r.SourceKey)
	if r.SourceLabel != "" {
		field, want = "disk.source_disk_label", fmt.Sprintf("%q", r.SourceLabel)
	}
	var known []string
	for _, d := range disks {
		known = append(known, fmt.Sprintf("%q (key %d)", d.Label, d.Key))
		switch {
		case r.SourceLabel != "" && d.Label != r.SourceLabel, r.SourceLabel == "" && d.Key != r.SourceKey:
		case d.SkippedReason != "":
			return d, Errorf(Invalid, field, "The image does not hold %q: %s.", d.Label, d.SkippedReason)
		default:
			return d, nil
		}
	}
	return ImageDisk{}, Errorf(Invalid, field, "The image has no disk %s. It has: %s.", want, strings.Join(known, ", "))
}
