package server

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
	"github.com/kura-backup/terraform-provider-kura/server/vsphere"
)

// Role is what a server process does.
type Role string

// The roles of a server.
const (
	RoleAll   Role = "all"   // answers the API and runs jobs
	RoleAPI   Role = "api"   // answers the API
	RoleMover Role = "mover" // runs jobs; stands where the datastores are
)

// Device is an open disk of the VM in which a server runs.
type Device = vsphere.OpenDevice

// Config says how a server runs. The zero value of a field means its default.
type Config struct {
	Listen           string                  // host:port; default 127.0.0.1:8480; port 0 = any free one
	Data             string                  // folder of all that is embedded; required
	KeyFile          string                  // 32 random bytes in hex; default DATA/kura.key, made at first start
	Database         string                  // sqlite:PATH or postgres://...; default sqlite:DATA/kura.db
	TLSCert          string                  // PEM file; with TLSKey the API speaks TLS
	TLSKey           string                  // PEM file
	Role             Role                    // default all
	Reach            []string                // labels such as vcenter:prod or repository:default; empty = everything
	RetentionProfile backup.RetentionProfile // default standard
	SlotCapacity     int                     // seats of an hour of a vcenter that names none; default 10
	AgeRecipient     string                  // public age key to which recovery sheets are encrypted where nobody is named; default none
	Slots            int                     // jobs at the same time; default 8
	Lease            time.Duration           // how long a dead server keeps its jobs; default 60 s
	// ShutdownTimeout is how long a guest may take to shut down for an offline
	// backup before its power is cut; default 10 min. SnapshotTimeout is how long
	// vSphere may take to make one snapshot; default 15 min.
	ShutdownTimeout, SnapshotTimeout time.Duration
	DatastoreMinFree                 int64         // bytes below which a backup gives a datastore up, at most a twentieth of it; 0 = 10 GiB, below 0 = never
	MaxLatency                       time.Duration // of a datastore, above which reading pauses and no backup begins; 0 = none
	CopyRate                         int64         // bytes per second that one copy of an image reads at most; 0 = no limit
	NBDCommand                       string        // program that serves one disk over NBD, as docs/dev/transports.md says; default none, so there is no transport nbd
	CompareBudget                    int64         // bytes a day that are read to compare disks in full before they must be; 0 = no limit
	NoDatabaseCopies                 bool          // leaves out the daily copies of a SQLite database in the repositories
	Version                          string        // shown by GET /v1/server; default "dev"

	// ProxyUUID is the BIOS UUID of the VM in which this server runs, to which disks
	// can be attached (the transport hotadd); default what the machine says of itself.
	ProxyUUID string
	// OpenDevice opens a disk that is attached to that VM, by the UUID that its guest
	// sees; default by udev's links in /dev/disk/by-id. A lab has its own.
	OpenDevice func(ctx context.Context, uuid string, writable bool) (Device, error)

	// LookupEnv reads the environment for secrets of storages that settings name;
	// nil = settings can name none.
	LookupEnv func(name string) (string, bool)

	Log *slog.Logger     // default: slog.Default
	Now func() time.Time // nil = the clock; tests set it

	// Intervals of the worker, for tests; see worker.Config.
	Poll, Dispatch, Sync, Sweep, Backoff time.Duration
}

func (c Config) defaulted() Config {
	or := func(s *string, def string) {
		if *s == "" {
			*s = def
		}
	}
	or(&c.Listen, "127.0.0.1:8480")
	or(&c.KeyFile, filepath.Join(c.Data, "kura.key"))
	or(&c.Database, "sqlite:"+filepath.Join(c.Data, "kura.db"))
	or((*string)(&c.Role), string(RoleAll))
	or((*string)(&c.RetentionProfile), string(backup.ProfileStandard))
	or(&c.Version, "dev")
	or(&c.ProxyUUID, vsphere.OwnUUID())
	if c.SlotCapacity == 0 {
		c.SlotCapacity = 10
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c
}

// maxSlots is more jobs than one machine has room for.
const maxSlots = 1000

// Validate returns a [backup.Invalid] error for the first bad setting. Field
// names are those of the configuration file.
func (c Config) Validate() error {
	if c.Data == "" {
		return backup.Errorf(backup.Invalid, "data", "Name the folder for the server's data: --data DIR.")
	}
	if st, err := os.Stat(c.Data); err == nil && !st.IsDir() {
		return backup.Errorf(backup.Invalid, "data", "%s is not a folder.", c.Data)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return backup.Errorf(backup.Invalid, "listen", "listen is host:port, such as 127.0.0.1:8480, got %q.", c.Listen)
	}
	if !strings.HasPrefix(c.Database, "sqlite:") && !strings.HasPrefix(c.Database, "postgres://") && !strings.HasPrefix(c.Database, "postgresql://") {
		return backup.Errorf(backup.Invalid, "database", "database is sqlite:PATH or postgres://USER@HOST/NAME.")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return backup.Errorf(backup.Invalid, "tls_cert", "TLS needs both tls_cert and tls_key.")
	}
	if !slices.Contains([]Role{RoleAll, RoleAPI, RoleMover}, c.Role) {
		return backup.Errorf(backup.Invalid, "role", "role must be all, api or mover, got %q.", c.Role)
	}
	if c.RetentionProfile != backup.ProfileStandard && c.RetentionProfile != backup.ProfileGeneral {
		return backup.Errorf(backup.Invalid, "retention_profile", "retention_profile must be standard or general, got %q.", c.RetentionProfile)
	}
	if c.SlotCapacity < 1 || c.SlotCapacity > 10000 {
		return backup.Errorf(backup.Invalid, "slot_capacity", "slot_capacity must be 1 to 10000, got %d.", c.SlotCapacity)
	}
	if c.ProxyUUID != "" && uuid.Validate(c.ProxyUUID) != nil {
		return backup.Errorf(backup.Invalid, "proxy_uuid", "proxy_uuid is the BIOS UUID of a VM, such as 4206652a-1097-f5cb-5c3c-7fcb6b3d3b00, got %q.", c.ProxyUUID)
	}
	if c.MaxLatency < 0 {
		return backup.Errorf(backup.Invalid, "max_datastore_latency", "max_datastore_latency must be 0, for none, or more, got %s.", c.MaxLatency)
	}
	if c.Slots < 0 || c.Slots > maxSlots {
		return backup.Errorf(backup.Invalid, "max_jobs", "max_jobs must be 1 to %d, got %d.", maxSlots, c.Slots)
	}
	if c.Lease < 0 {
		return backup.Errorf(backup.Invalid, "lease", "lease must be more than 0, got %s.", c.Lease)
	}
	if c.CopyRate < 0 {
		return backup.Errorf(backup.Invalid, "copy_rate", "copy_rate must be 0, for no limit, or more, got %d.", c.CopyRate)
	}
	if c.ShutdownTimeout < 0 || c.SnapshotTimeout < 0 {
		return backup.Errorf(backup.Invalid, "shutdown_timeout", "shutdown_timeout and snapshot_timeout must be more than 0, got %s and %s.", c.ShutdownTimeout, c.SnapshotTimeout)
	}
	if c.CompareBudget < 0 {
		return backup.Errorf(backup.Invalid, "compare_bytes_per_day", "compare_bytes_per_day must be 0, for no limit, or more, got %d.", c.CompareBudget)
	}
	if c.NBDCommand != "" {
		if _, err := exec.LookPath(c.NBDCommand); err != nil {
			return backup.Errorf(backup.Invalid, "nbd_command", "nbd_command must be a program that can be run: %v.", err)
		}
	}
	return repository.CheckRecipient("recovery_age_recipient", c.AgeRecipient)
}

// devices opens what is attached to the server's own VM; nil where that is not known how.
func (c Config) devices() vsphere.DeviceOpener {
	switch {
	case c.OpenDevice != nil:
		return vsphere.DeviceFunc(func(ctx context.Context, d vsphere.Device) (vsphere.OpenDevice, error) {
			return c.OpenDevice(ctx, d.UUID, d.Writable)
		})
	case runtime.GOOS == "linux":
		return vsphere.ByID{}
	}
	return nil
}
