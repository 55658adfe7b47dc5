package backup

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"time"
)

// The ports are what the worker needs of vSphere and of the repositories. They
// stand here because both sides name them: the vsphere and the repository room
// return them, the worker joins them, and neither room knows the other.

// Repositories opens repositories. It keeps them open: an opened one belongs
// to it, not to the caller.
type Repositories interface {
	// Repository returns the opened repository. Errors: RepositoryUnreachable,
	// RepositoryDamaged.
	Repository(ctx context.Context, r RepositoryRecord) (Repository, error)
}

// Repository keeps images. All methods may be called at the same time.
type Repository interface {
	// Begin starts an image. Nothing of it is visible before Commit.
	Begin(ctx context.Context, d ImageDraft) (ImageWriter, error)
	// Image opens an image by its ref. Errors: NotFound, RepositoryDamaged.
	Image(ctx context.Context, ref string) (ImageReader, error)
	// Images lists the manifests of all images, oldest first, with their refs.
	Images(ctx context.Context) ([]Manifest, error)
	// Delete takes an image out. One that is not there is no error.
	Delete(ctx context.Context, ref string) error
	// Verify checks an image. What is wrong with it is in the answer. Errors:
	// NotFound, RepositoryUnreachable.
	Verify(ctx context.Context, ref string, v Verification) (Verified, error)
	// Collect frees what no image needs. One collection at a time may run in the
	// whole installation. Errors: RepositoryDamaged, Unavailable (clocks differ).
	Collect(ctx context.Context, c Collection) (Collected, error)
	// Lock extends the storage's own locks of what images need. What could not be
	// locked is an error. Errors: Conflict (the repository has no object lock),
	// NotFound, RepositoryUnreachable.
	Lock(ctx context.Context, l Locking) (StorageLocked, error)
	// Space tells the bytes that the storage holds and that are free (-1 = not known).
	Space(ctx context.Context) (stored, free int64, err error)
}

// ImageDraft says what an image will be of.
type ImageDraft struct {
	ImageID      string
	VCenterUUID  string // vcenter's instance UUID
	InstanceUUID string // the VM's
	VMName       string
	PointInTime  time.Time
	BaseRef      string // image to compare with; "" = none
	// Checkpoint is after how many new bytes what was written is made to last,
	// so that another attempt need not store it again; 0 = the repository's choice.
	Checkpoint int64
}

// ImageWriter writes one image.
type ImageWriter interface {
	// HasBase says whether a disk may be written FromBase: the base was found,
	// holds that disk, in a form that can be read, and is not larger.
	HasBase(key int32, capacity int64) bool
	// BlockSize tells in blocks of how many bytes the disk is kept. What is
	// written of a part of a block has the rest read from the base.
	BlockSize(key int32, capacity int64) int64
	// ReadBase reads of the disk in the base; behind its end are zeroes. Errors:
	// Conflict (without HasBase), RepositoryDamaged, RepositoryUnreachable.
	ReadBase(ctx context.Context, key int32, p []byte, off int64) error
	// Disk starts a disk. Several disks may be written at the same time. Errors:
	// Conflict (FromBase without HasBase).
	Disk(ctx context.Context, d DiskDraft) (DiskWriter, error)
	// File adds a small file, such as the NVRAM.
	File(ctx context.Context, name string, content []byte) error
	// Commit makes the image visible, whole and durable, and returns it with its
	// ref. An image of the same id, left by an attempt that could not say that it
	// had committed, is replaced by it. All disks must be closed. Disks, and of
	// the sizes Changed and Stored, are taken from what was written. After an
	// error nothing is visible.
	Commit(ctx context.Context, m Manifest) (Image, error)
	// Abort gives the image up. It may be called after Commit and then does nothing.
	Abort(ctx context.Context)
}

// DiskDraft says what a disk in an image will be.
type DiskDraft struct {
	Key      int32
	Label    string
	Capacity int64 // bytes
	UUID     string
	ChangeID string
	File     string // "[datastore] folder/name.vmdk" that the VM wrote to at the snapshot
	// Doubt is why the change id is of no use, as far as the snapshot tells; nil = it is of use.
	Doubt *Doubt
	// OnChange is told the ranges of whole blocks that are not as in the base, in
	// ascending order; nil = nobody asks. What it is told before an error holds.
	OnChange func(off, n int64)
	// FromBase: what is never written of the disk is as in the base's disk of
	// that key; what the disk has grown by is zero.
	FromBase bool
}

// DiskWriter takes a disk's bytes. WriteAt is called with ascending, not
// overlapping offsets; what is never written is zero, or as in the base where
// that was asked for. Memory is bounded:
// WriteAt blocks while the storage is behind.
type DiskWriter interface {
	io.WriterAt
	// Close waits until all blocks are stored and returns what became of the disk.
	Close(ctx context.Context) (ImageDisk, error)
}

// ImageReader reads one image.
type ImageReader interface {
	Manifest() Manifest
	// Disk opens a disk. Errors: NotFound.
	Disk(ctx context.Context, key int32) (DiskReader, error)
	// Files names the small files that writers have added.
	Files() []string
	// EachChange calls fn with the ranges, ascending and apart, in which the disk
	// may differ from the disk of that key in the image with the ref since. Behind
	// the end of that disk, what is not zero differs. Errors: NotFound (that image
	// or its disk, or their blocks cannot be compared).
	EachChange(ctx context.Context, since string, key int32, fn func(off, n int64) error) error
	// File reads a small file. Errors: NotFound.
	File(ctx context.Context, name string) ([]byte, error)
	Close() error
}

// DiskReader reads a disk of an image.
type DiskReader interface {
	io.ReaderAt
	Capacity() int64
	// Next returns the next range at or after off that may hold other bytes
	// than zero; n is 0 when there is none.
	Next(off int64) (start, n int64)
	Close() error
}

// VSphere connects to vcenters. It keeps sessions: an opened one belongs to it.
type VSphere interface {
	// Connect returns a live session. Errors: VCenterUnreachable,
	// VCenterDenied (wrong password or certificate).
	Connect(ctx context.Context, v VCenter) (VSphereSession, error)
}

// VSphereSession is a vcenter that is logged in to. All methods may be called
// at the same time; they log in again when the session has ended.
type VSphereSession interface {
	// About tells the endpoint's instance UUID and API version.
	About() (instanceUUID, apiVersion string)
	// Inventory reads all VMs. With a version of an earlier call it may give
	// only what has changed since; full says which it is.
	Inventory(ctx context.Context, since string) (InventoryChange, error)
	// Machine reads one VM. Errors: VMGone.
	Machine(ctx context.Context, moid string) (Machine, error)

	// CreateSnapshot makes a snapshot and waits for it. It first looks whether
	// one of that name exists or is being made, and takes that. Errors: VMGone,
	// PreflightFailed (quiescing failed, with Quiesce), VCenterUnreachable.
	CreateSnapshot(ctx context.Context, s SnapshotDraft) (Snapshot, error)
	// Power tells how a VM stands. Errors: VMGone.
	Power(ctx context.Context, moid string) (Power, error)
	// ShutDownGuest asks the guest to shut down and waits until the VM is off or
	// ctx ends; the guest goes on with it then. One that is off is no error.
	// Errors: VMGone, PreflightFailed (VMware Tools do not run).
	ShutDownGuest(ctx context.Context, moid string) error
	// SetPower powers the VM on, or off without asking the guest, and waits. One
	// that is so already is no error. Errors: VMGone.
	SetPower(ctx context.Context, moid string, on bool) error
	// RemoveSnapshot removes the VM's snapshots of that name, waits, and
	// consolidates where needed. None is no error; a VM that is gone is none.
	RemoveSnapshot(ctx context.Context, moid, name string) error
	// Sweep removes what carries the prefix "kura:<installation>:" and whose
	// job is not alive: snapshots, staging VMs and attached disks. alive gets a
	// job's id and attempt. It returns a line for each thing removed.
	Sweep(ctx context.Context, installation string, alive func(job string, attempt int) bool) ([]string, error)

	// TrackChanges switches the VM's changed block tracking on where that is
	// supported and no snapshot stands. Why it is not on is no error. Errors:
	// VMGone, VCenterUnreachable.
	TrackChanges(ctx context.Context, moid string) (Tracking, error)
	// ResetTracking makes the tracking begin anew with the next snapshot, unless a
	// snapshot stands: it is switched off and on, and in between a snapshot of that
	// name is made and removed, without which a running VM would not notice.
	// Errors: VMGone, VCenterUnreachable.
	ResetTracking(ctx context.Context, moid, name string) (Tracking, error)
	// ChangedAreas calls fn with the areas of the disk, ascending and apart, that
	// the guest has written to between the snapshot with the change id since and
	// this one. Errors: a *[Doubt] where vSphere's answer is of no use,
	// VCenterUnreachable.
	ChangedAreas(ctx context.Context, s Snapshot, key int32, since string, fn func(Extent) error) error

	// ReadDisks opens disks of the snapshot for reading. Errors: Invalid (the
	// transport that was asked for cannot be had here), [ErrNoAreas].
	ReadDisks(ctx context.Context, s Snapshot, r ReadDraft) (DiskSource, error)

	// DatastoreLoad tells how datastores stand now, by name; latency as that host
	// sees it, if it is named. One that is not there is left out.
	DatastoreLoad(ctx context.Context, host string, datastores []string) (map[string]DatastoreLoad, error)

	// ImportVM makes a new VM of an image and waits. The VM carries r.Marker
	// in its annotation until it is whole, so that a sweep can tell. progress
	// is called with the bytes sent so far. The messages tell what could not be
	// put back as it was, or done with the whole VM. Errors: Invalid, NoSpace,
	// Conflict.
	ImportVM(ctx context.Context, r ImportDraft, from ImageReader, progress func(done int64)) (RestoredVM, []string, error)
	// OverwriteVM puts an image's disks and configuration onto the VM of moid
	// and waits. Errors: VMGone, VMRunning, VMBusy, NoSpace, PreflightFailed.
	OverwriteVM(ctx context.Context, r OverwriteDraft, from ImageReader, progress func(done int64)) (RestoredVM, []string, error)
	// CheckRestore plans a restore as ImportVM, OverwriteVM or RestoreDisk would
	// do it now, and changes nothing. Errors: theirs.
	CheckRestore(ctx context.Context, r RestoreCheck, from ImageReader) (RestoreFindings, error)
	// RestoreDisk puts one disk of an image onto the VM of moid, in the place of
	// one that it has or as one more, and waits. What an earlier attempt of the
	// same job attached is found and not attached again. Errors: Invalid, VMGone,
	// VMRunning, VMBusy, NoSpace, PreflightFailed.
	RestoreDisk(ctx context.Context, r DiskRestoreDraft, from ImageReader, progress func(done int64)) (RestoredVM, []string, error)
}

// InventoryChange is what a vcenter's inventory looks like.
type InventoryChange struct {
	Full    bool             // VMs are all there are; what is not among them is gone
	VMs     []VirtualMachine // VCenterID and ID are not set
	Gone    []string         // managed object ids that have left; only when not Full
	Version string           // to ask for later changes
}

// Machine is one VM as it stands.
type Machine struct {
	VirtualMachine
	Config              json.RawMessage // everything that a restore needs, for the manifest
	NVRAM               []byte          // nil = none, or not readable
	ConsolidationNeeded bool
	SnapshotNames       []string // of others and ours, depth first
	SnapshotDepth       int
	FreeBytes           map[string]int64 // of the datastores its disks lie on
}

// Power is how a VM stands.
type Power struct {
	State    PowerState
	BootedAt time.Time // by the vcenter's clock; zero = not known, or not on
	Tools    bool      // VMware Tools run in the guest
}

// SnapshotDraft says which snapshot to make.
type SnapshotDraft struct {
	MOID        string
	Name        string // kura:<installation>:<job>:<attempt>
	Description string
	Quiesce     bool
}

// Snapshot is a VM's snapshot.
type Snapshot struct {
	MOID      string // of the VM
	Ref       string // of the snapshot
	Name      string
	CreatedAt time.Time
	Quiesced  bool // the guest took part
	Disks     []DiskDraft
	Config    json.RawMessage // the VM's, as the snapshot holds it
}

// ReadDraft says what is going to be read of a snapshot.
type ReadDraft struct {
	Keys      []int32
	Transport Transport // as the vcenter is set; "" is TransportAuto
	// Areas says that little of each disk is wanted: a transport that can read
	// areas alone is preferred to one that sends all.
	Areas bool
	// OnlyAreas, with Areas: one that sends all is of no use, and not opened.
	OnlyAreas bool
}

// ErrNoAreas means that no transport is to be had that reads areas of a disk.
var ErrNoAreas = errors.New("only whole disks can be read here")

// Extent is a range of a disk.
type Extent struct {
	Off, N int64 // bytes
}

// DiskSource reads the disks of a snapshot over one transport.
type DiskSource interface {
	Transport() Transport
	// CanReadAreas says whether ReadAreas works; where it does not, a disk can
	// only be read whole.
	CanReadAreas() bool
	// ReadAreas sends those areas of the disk, which are ascending and apart, to
	// w and returns how many bytes it read. Of an area, what is known to be zero
	// may be left out.
	ReadAreas(ctx context.Context, key int32, areas iter.Seq[Extent], w io.WriterAt) (read int64, err error)
	// ReadDisk sends the disk's allocated bytes in ascending order to w, and
	// returns how many it read. What it does not send is zero. Keep-alive of
	// leases is its own affair.
	ReadDisk(ctx context.Context, key int32, w io.WriterAt) (read int64, err error)
	// Close ends leases and attachments; after a failed read it aborts them.
	Close(ctx context.Context) error
}

// ImportDraft says how a new VM is made of an image.
type ImportDraft struct {
	Marker string // kura:<installation>:<job>:<attempt>
	NewVM  RestoreNewVM
}

// OverwriteDraft says how a VM is overwritten by an image.
type OverwriteDraft struct {
	Marker  string // kura:<installation>:<job>:<attempt>
	MOID    string
	InPlace RestoreInPlace
}

// DiskRestoreDraft says how one disk is put back.
type DiskRestoreDraft struct {
	Marker string // kura:<installation>:<job>:<attempt>
	MOID   string
	Disk   RestoreDisk
}

// RestoreCheck says which restore is looked at. Exactly one of InPlace, NewVM
// and Disk is set.
type RestoreCheck struct {
	MOID    string // of the VM that is overwritten or gets the disk
	InPlace *RestoreInPlace
	NewVM   *RestoreNewVM
	Disk    *RestoreDisk
}

// RestoreFindings is what a look at the vcenter told of a restore.
type RestoreFindings struct {
	Warnings   []string
	PowerState PowerState // of the VM that is overwritten or gets the disk
	MACs       []string   // that the restored VM will have, as far as they are the image's
	IPs        []string   // that its guest had
}
