package backup

import (
	"encoding/json"
	"time"
)

// Image is one VM at one instant: all chosen disks, the VM's configuration and
// its NVRAM, kept in a repository outside vSphere. Its JSON stands in the image
// itself.
type Image struct {
	ID              string            `json:"id"`
	Project         string            `json:"project,omitempty"`
	VCenterID       string            `json:"vcenter_id,omitempty"`
	VMID            string            `json:"virtual_machine_id,omitempty"`
	VMName          string            `json:"virtual_machine_name,omitempty"`
	VMMOID          string            `json:"virtual_machine_moid,omitempty"`
	VMInstanceUUID  string            `json:"virtual_machine_instance_uuid,omitempty"`
	ScheduleID      string            `json:"schedule_id,omitempty"`
	GroupID         string            `json:"group_id,omitempty"`
	RunID           string            `json:"run_id,omitempty"`
	JobID           string            `json:"job_id,omitempty"`
	RepositoryID    string            `json:"repository_id,omitempty"`
	CopyOf          string            `json:"copy_of,omitempty"` // id of the image that this is a copy of
	StartedAt       time.Time         `json:"started_at"`        // of the backup; retention runs from here (seed N52)
	EndedAt         time.Time         `json:"ended_at"`
	PointInTime     time.Time         `json:"point_in_time"`         // when the vSphere snapshot was made: the state of the disks (seed N6)
	ExpiresAt       time.Time         `json:"expires_at,omitzero"`   // zero = never
	LockedUntil     time.Time         `json:"locked_until,omitzero"` // zero = not locked
	Status          ImageStatus       `json:"status"`
	Consistency     Consistency       `json:"consistency,omitempty"` // what was reached, not what was asked for
	ChangeDetection ChangeDetection   `json:"change_detection,omitempty"`
	Message         string            `json:"message,omitempty"`
	Disks           []ImageDisk       `json:"disks"`
	Sizes           Sizes             `json:"sizes"`
	VerifiedAt      time.Time         `json:"verified_at,omitzero"`
	FullCompareAt   time.Time         `json:"last_full_compare_at,omitzero"` // when all its disks were last compared in full
	Labels          map[string]string `json:"labels,omitempty"`
	Ref             string            `json:"ref,omitempty"` // the repository's own name of it; not in the image itself

	// What is known of an image only here, not in itself.
	HeldUntil          time.Time `json:"-"` // by the last of its holds; zero = not held. The store keeps it beside them
	ExtendedUntil      time.Time `json:"-"` // the end that a user gave it; zero = none. In the far future = never
	StorageLockedUntil time.Time `json:"-"` // until then the storage refuses to delete what it needs; zero = not known
	Healed             int       `json:"-"` // of a new image: blocks that were lost and that it has stored again
}

// ImageShare makes an image another job's as well: schedules of one VM that are
// due in the same window make one image of it. The image is kept for the
// longest of its shares. Its maker's own share is there too.
type ImageShare struct {
	ImageID     string
	JobID       string
	ScheduleID  string
	GroupID     string
	RunID       string
	ExpiresAt   time.Time // zero = never
	LockedUntil time.Time // zero = not locked
}

// ImageStatus tells what an image is worth.
type ImageStatus string

// The states of images.
const (
	ImageGood    ImageStatus = "good"
	ImagePartial ImageStatus = "partial" // some disks were skipped, with a reason each
	ImageDamaged ImageStatus = "damaged"
	ImageExpired ImageStatus = "expired"
)

// ChangeDetection tells how a backup found out what had changed.
type ChangeDetection string

// The ways to find changes.
const (
	DetectCBT     ChangeDetection = "cbt"     // vSphere's changed block tracking
	DetectCompare ChangeDetection = "compare" // all was read and compared with the image before
	DetectFull    ChangeDetection = "full"    // all was read; there was nothing to compare with
)

// ImageDisk is one disk in an image.
type ImageDisk struct {
	Key           int32  `json:"key"`
	Label         string `json:"label"`
	Capacity      int64  `json:"capacity"`
	Read          int64  `json:"read"`             // bytes taken from the source
	Changed       int64  `json:"changed"`          // bytes of the blocks that differ from the base's; without a base, those that are not zero
	Stored        int64  `json:"stored"`           // bytes that the repository grew by
	SHA256        string `json:"sha256,omitempty"` // of the whole disk, zeros included; "" = not known
	UUID          string `json:"uuid,omitempty"`   // backing UUID
	ChangeID      string `json:"change_id,omitempty"`
	SkippedReason string `json:"skipped_reason,omitempty"`
	Damaged       bool   `json:"damaged,omitempty"` // some of it is lost; never so in the image itself

	File            string          `json:"file,omitempty"` // that the VM wrote to at the snapshot
	ChangeDetection ChangeDetection `json:"change_detection,omitempty"`
	FullCompareAt   time.Time       `json:"last_full_compare_at,omitzero"` // when all of it was last read
	TrackingDoubt   DoubtReason     `json:"tracking_doubt,omitempty"`      // why its change id is not to be built upon; "" = it may
}

// Sizes are the sizes of an image in bytes (seed N49).
type Sizes struct {
	Provisioned int64 `json:"provisioned"`
	Read        int64 `json:"read"`
	Changed     int64 `json:"changed"`
	Stored      int64 `json:"stored"` // of the disks, the small files and their index
}

// Consistency is how the guest takes part in a backup.
type Consistency string

// The consistencies.
const (
	ConsistencyCrash       Consistency = "crash"
	ConsistencyApp         Consistency = "app"          // quiesced; falls back to crash with a message
	ConsistencyAppRequired Consistency = "app_required" // quiesced, or the job fails
	ConsistencyOffline     Consistency = "offline"      // guest shut down for the snapshot
)

// DiskChoice says which disks of a VM belong to its images. Both empty = all,
// also those attached later (seed A15).
type DiskChoice struct {
	IncludeLabels []string `json:"include_labels,omitempty"`
	ExcludeLabels []string `json:"exclude_labels,omitempty"`
}

// Chosen says whether the disk with that label is backed up.
func (c DiskChoice) Chosen(label string) bool {
	for _, l := range c.ExcludeLabels {
		if l == label {
			return false
		}
	}
	for _, l := range c.IncludeLabels {
		if l == label {
			return true
		}
	}
	return len(c.IncludeLabels) == 0
}

// UnprotectedPolicy says what to do with disks that vSphere cannot snapshot.
type UnprotectedPolicy string

// The policies.
const (
	UnprotectedFail UnprotectedPolicy = "fail" // default: the job fails and names them
	UnprotectedSkip UnprotectedPolicy = "skip" // the image says so
)

// Manifest is what an image carries in itself, so that it can be restored with
// an empty database.
type Manifest struct {
	FormatVersion int             `json:"format_version"`
	Image         Image           `json:"image"`
	Installation  string          `json:"installation"`
	VCenterUUID   string          `json:"vcenter_instance_uuid"`
	Machine       json.RawMessage `json:"machine"` // MachineConfig of the vsphere room
	BlockSize     int             `json:"block_size"`
}

// ManifestVersion is the format that this kura writes; a reader refuses a greater one.
const ManifestVersion = 1

// ImageFilter chooses images; zero fields choose nothing away.
type ImageFilter struct {
	Project       string
	VMID          string
	VMName        string
	GroupID       string
	ScheduleID    string
	RunID         string
	VCenterID     string
	RepositoryID  string
	Copies        CopyChoice
	Status        ImageStatus
	CreatedAfter  time.Time // PointInTime at or after
	CreatedBefore time.Time // PointInTime before
	Labels        map[string]string
	Page
}

// Page asks for a part of a list.
type Page struct {
	Limit  int    // 1 to 1000; default 100
	Cursor string // where the page before ended; "" = from the start
}
