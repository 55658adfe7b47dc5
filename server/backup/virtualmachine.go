package backup

import "time"

// VirtualMachine is a VM in a vcenter's inventory. It is known by vcenter and
// instance UUID, never by its name (seed N69, N70); [Identify] tells apart those
// that share one.
type VirtualMachine struct {
	ID           string
	VCenterID    string
	InstanceUUID string
	BIOSUUID     string
	MOID         string // managed object id, such as "vm-42"
	Name         string // any UTF-8 text; may change and need not be unique
	Folder       string // inventory path such as "/DC0/vm/prod"
	ResourcePool string // inventory path
	Host         string // name of the ESXi host it runs on
	PowerState   PowerState
	Template     bool
	GuestID      string
	CPUs         int32
	MemoryMiB    int64
	Disks        []VMDisk
	NICs         []VMNIC
	Datastores   []string
	Tags         []Tag
	// Unprotectable is why no backup of the VM can be made, in words that follow
	// "it cannot be backed up: "; "" = one can, at least of some disks.
	Unprotectable string
	Warnings      []string // why it, or a part of it, cannot be protected, and what else to know
	SeenAt        time.Time
	GoneAt        time.Time // when it left the inventory; zero = it is there
}

// Gone says whether the VM has left its vcenter's inventory.
func (v VirtualMachine) Gone() bool { return !v.GoneAt.IsZero() }

// PowerState is vSphere's.
type PowerState string

// The power states.
const (
	PoweredOn  PowerState = "on"
	PoweredOff PowerState = "off"
	Suspended  PowerState = "suspended"
)

// VMDisk is a disk of a VM as the inventory shows it.
type VMDisk struct {
	Key           int32  `json:"key"`   // device key, stable for the disk's life
	Label         string `json:"label"` // such as "Hard disk 1"
	Capacity      int64  `json:"capacity"`
	File          string `json:"file"`                    // "[datastore] folder/name.vmdk"
	Unprotectable string `json:"unprotectable,omitempty"` // why vSphere cannot snapshot it; "" = it can
}

// VMNIC is a network card of a VM.
type VMNIC struct {
	Key     int32    `json:"key"`
	MAC     string   `json:"mac"`
	Network string   `json:"network"`
	IPs     []string `json:"ips,omitempty"` // as the guest tools tell
}

// Tag is a vSphere tag (seed W15).
type Tag struct {
	Category string `json:"category"`
	Name     string `json:"name"`
}
