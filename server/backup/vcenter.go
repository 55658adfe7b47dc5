package backup

import "time"

// VCenter is one vSphere endpoint that kura protects: a vCenter or one ESXi host.
type VCenter struct {
	Meta
	Name          string
	Endpoint      string // https://host[:port], without /sdk
	Username      string
	Password      Secret
	Thumbprint    string // SHA-256 of the server's certificate, colons optional; "" = checked against CACertificate or the system's
	CACertificate string // PEM; "" = the system's
	TimeZone      string // IANA; default UTC
	SlotCapacity  int    // seats of an hour; default 10
	Limits        Limits
	Transport     Transport
	TagMappings   []TagMapping

	InstanceUUID string    // about.instanceUuid, learned by the first sync
	APIVersion   string    // as the vcenter states it
	SyncState    SyncState // of the inventory
	SyncError    string    // why the last sync failed; "" when it did not
	SyncedAt     time.Time // end of the last good sync; zero = never
}

// SyncState tells how the inventory of a vcenter stands.
type SyncState string

// The states of the inventory.
const (
	SyncPending SyncState = "pending" // not synced yet
	SyncReady   SyncState = "ready"
	SyncFailed  SyncState = "failed" // the last try failed; what is known is of SyncedAt
)

// Limits are the running limits of a vcenter.
type Limits struct {
	DisksPerHost     int   `json:"disks_per_host,omitempty"`     // disks in flight per ESXi host, 1 to 48; default 20
	Disks            int   `json:"disks,omitempty"`              // disks in flight in all, 1 to 52; default 52
	JobsPerDatastore int   `json:"jobs_per_datastore,omitempty"` // default 4
	RestoresPerPool  int   `json:"restores_per_pool,omitempty"`  // default 1 (seed N77)
	BytesPerSecond   int64 `json:"bytes_per_second,omitempty"`   // 0 = unlimited
}

// Defaulted returns l with the defaults for what is not set.
func (l Limits) Defaulted() Limits {
	or := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	or(&l.DisksPerHost, 20)
	or(&l.Disks, 52)
	or(&l.JobsPerDatastore, 4)
	or(&l.RestoresPerPool, 1)
	return l
}

// Transport is a way to move a disk's bytes.
type Transport string

// The transports. TransportAuto lets the server choose.
const (
	TransportAuto   Transport = "auto"
	TransportNFC    Transport = "nfc"
	TransportHotAdd Transport = "hotadd"
	TransportNBD    Transport = "nbd"
)

// TagMapping puts a label on the images of the VMs that carry a vSphere tag (seed W17-W19).
type TagMapping struct {
	Category string `json:"category"`
	Tag      string `json:"tag"`
	Key      string `json:"key"`
	Value    string `json:"value"`
}

// MaxTagMappings is how many a vcenter may have (seed W17).
const MaxTagMappings = 10

// Defaulted returns v with the defaults for what is not set.
func (v VCenter) Defaulted() VCenter {
	if v.TimeZone == "" {
		v.TimeZone = "UTC"
	}
	if v.SlotCapacity == 0 {
		v.SlotCapacity = 10
	}
	if v.Transport == "" {
		v.Transport = TransportAuto
	}
	if v.SyncState == "" {
		v.SyncState = SyncPending
	}
	v.Limits = v.Limits.Defaulted()
	return v
}
