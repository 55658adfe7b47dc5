package backup

import (
	"context"
	"time"
)

// Store is the state that the rules need. store.DB implements it.
type Store interface {
	// Update runs fn in one serialized transaction. It may run fn again when
	// the database asks for a retry, so fn must have no other effect.
	Update(ctx context.Context, fn func(Tx) error) error
	// View runs fn in one read-only transaction.
	View(ctx context.Context, fn func(Tx) error) error
}

// Tx is one transaction of a [Store]. Getters by id or name give [NotFound],
// inserts of a taken name [Conflict], updates whose Meta.Version is not the
// stored one [Stale]. An update counts the version up and sets UpdatedAt in
// the object it is given. Objects of another project are not found. Lists are
// in the order of ids, oldest first unless said otherwise, and return the
// cursor of the next page, "" at the end.
type Tx interface {
	// Now is the instant of the transaction, the same at each call. It comes
	// from the store's clock, which PostgreSQL keeps for all servers.
	Now() time.Time

	VCenterTx
	MachineTx
	GroupTx
	ScheduleTx
	RunTx
	ImageTx
	RestoreTx
	RepositoryTx
	UpkeepTx
	UsageTx
	SettingTx
}

// SettingTx keeps single values of the installation, by name.
type SettingTx interface {
	Setting(ctx context.Context, name string) (value string, found bool, err error)
	SetSetting(ctx context.Context, name, value string) error
}

// VCenterTx keeps vcenters.
type VCenterTx interface {
	VCenter(ctx context.Context, id string) (VCenter, error)
	VCenterByName(ctx context.Context, name string) (VCenter, error)
	VCenters(ctx context.Context, p Page) ([]VCenter, string, error)
	InsertVCenter(ctx context.Context, v *VCenter) error
	UpdateVCenter(ctx context.Context, v *VCenter) error
	// DeleteVCenter gives [InUse] while groups, schedules or images name it.
	DeleteVCenter(ctx context.Context, id string) error
	// SaveSync records how the last sync of the inventory ended. It leaves
	// Meta.Version as it is.
	SaveSync(ctx context.Context, v VCenter) error
}

// MachineTx keeps the inventory.
type MachineTx interface {
	Machine(ctx context.Context, id string) (VirtualMachine, error)
	Machines(ctx context.Context, f MachineFilter) ([]VirtualMachine, string, error)
	// SaveMachines inserts or updates VMs as [Identify] knows them, filling in
	// their ids; one that had gone is there again. What has left is marked as gone
	// before.
	SaveMachines(ctx context.Context, vms []VirtualMachine) error
	// MarkGone marks as gone the VMs of the vcenter that are not among moids
	// (keep = true) or that are (keep = false).
	MarkGone(ctx context.Context, vcenterID string, moids []string, keep bool) error
	// RebindMachine makes the VM with that id the one that another vcenter shows:
	// it gets the other's place, and what the other has; that one is no more.
	RebindMachine(ctx context.Context, id string, to VirtualMachine) error
	// ImagesByVM counts the images that are not expired of each of the vcenter's VMs.
	ImagesByVM(ctx context.Context, vcenterID string) (map[string]int, error)
	// GoodImages tells of the good images of each of the vcenter's VMs that has some.
	GoodImages(ctx context.Context, vcenterID string) (map[string]GoodImage, error)
}

// MachineFilter chooses VMs; zero fields choose nothing away.
type MachineFilter struct {
	VCenterID   string
	Name        string // exact
	IDs         []string
	IncludeGone bool
	Page        // Limit 0 = all
}

// GroupTx keeps groups.
type GroupTx interface {
	Group(ctx context.Context, id string) (Group, error)
	GroupByName(ctx context.Context, name string) (Group, error)
	Groups(ctx context.Context, p Page) ([]Group, string, error)
	InsertGroup(ctx context.Context, g *Group) error
	UpdateGroup(ctx context.Context, g *Group) error
	// DeleteGroup gives [InUse], naming them, while schedules are on it.
	DeleteGroup(ctx context.Context, id string) error
	// MembersSeen is what the last look at the group saw.
	MembersSeen(ctx context.Context, groupID string) (MembersSeen, error)
	// SaveMembers stores what a look has found. It leaves Meta.Version as it is.
	SaveMembers(ctx context.Context, l MembersLook) error
	// MemberChanges lists changes of a group's members, newest first.
	MemberChanges(ctx context.Context, f MemberFilter) ([]MemberChange, string, error)
}

// ScheduleTx keeps schedules.
type ScheduleTx interface {
	Schedule(ctx context.Context, id string) (Schedule, error)
	ScheduleByName(ctx context.Context, name string) (Schedule, error)
	Schedules(ctx context.Context, f ScheduleFilter) ([]Schedule, string, error)
	InsertSchedule(ctx context.Context, s *Schedule, seats []SeatsBooked) error
	UpdateSchedule(ctx context.Context, s *Schedule, seats []SeatsBooked) error
	DeleteSchedule(ctx context.Context, id string) error
	// Booked lists every enabled schedule that books seats of the vcenter,
	// with the seats that it books there.
	Booked(ctx context.Context, vcenterID string) ([]Booking, error)
	// SeatChanges lists what schedules hold of the vcenter's seats since the
	// change with that mark, one entry for each that changed since, and the mark
	// of the last change; since 0 lists all that hold any. own says that this
	// transaction made some of the changes, so that they may not last.
	SeatChanges(ctx context.Context, vcenterID string, since int64) (changed []Booking, mark int64, own bool, err error)
	// DueMark is up to when the schedule's occurrences have become runs.
	DueMark(ctx context.Context, scheduleID string) (time.Time, error)
	// SetDueMark moves it, and with it when DueSchedules lists the schedule:
	// from the first occurrence after the mark on.
	SetDueMark(ctx context.Context, scheduleID string, upTo time.Time) error
	// DueSchedules lists the enabled schedules with occurrences up to that
	// instant that are no runs yet, the longest due first.
	DueSchedules(ctx context.Context, upTo time.Time) ([]string, error)
	// RenewDue works out anew when some of the enabled schedules after that id
	// are next due. It returns the id to go on after, "" at the end. Marks, leases
	// and dues that a clock which was ahead has put into the future come to now.
	RenewDue(ctx context.Context, after string) (next string, err error)
	// SaveSeats stores what a schedule books since its group has changed: the
	// seats, s.Seats and s.UnbookedSeats. It leaves Meta.Version as it is.
	SaveSeats(ctx context.Context, s Schedule, seats []SeatsBooked) error
}

// ScheduleFilter chooses schedules; zero fields choose nothing away.
type ScheduleFilter struct {
	GroupID     string
	VMID        string
	EnabledOnly bool
	Unbooked    bool // with UnbookedSeats
	Page             // Limit 0 = all
}

// SeatsBooked says how many seats a schedule books in a vcenter, in each of
// its start hours. A group may span several vcenters.
type SeatsBooked struct {
	VCenterID string
	Seats     int
	Since     time.Time // occurrences that start after it are counted; zero = all
}

// Booking is a schedule as the capacity of one vcenter sees it. One that holds
// no seats any more has Seats 0, and nothing else but its id.
type Booking struct {
	ScheduleID    string
	Name          string
	Recurrence    Recurrence
	WindowHours   int
	DurationHours int
	Seats         int
	Since         time.Time // occurrences that start after it take seats; zero = all
}

// RunTx keeps runs and their jobs.
type RunTx interface {
	Run(ctx context.Context, id string) (Run, error) // with its jobs
	Runs(ctx context.Context, f RunFilter) ([]Run, string, error)
	// InsertRun stores a run with its jobs. It returns false, and stores
	// nothing, when the schedule has a run of that slot already.
	InsertRun(ctx context.Context, r Run, jobs []Job) (bool, error)
	// FreeSlots forgets runs of slots after the first instant that were found
	// missed; others, of slots after the second one, give their slots up.
	FreeSlots(ctx context.Context, missed, others time.Time) error
	InsertJob(ctx context.Context, j Job) error
	Job(ctx context.Context, id string) (Job, error)
	Jobs(ctx context.Context, f JobFilter) ([]Job, string, error)
	// CancelJob asks a running job to stop and ends a queued one. A job that
	// is over stays as it is.
	CancelJob(ctx context.Context, id string) (Job, error)
	// NoteWaiting stores what a job that waits for another needs to know. false =
	// it does not wait for that one any more, and stays as it is.
	NoteWaiting(ctx context.Context, n WaitingNote) (bool, error)
	// SetSpread stores how far apart the snapshots of a consistent run are.
	SetSpread(ctx context.Context, runID string, d time.Duration) error
	// CountJobsNeeding counts the jobs that are not over and need that label.
	CountJobsNeeding(ctx context.Context, label string) (int, error)
	// EndJob ends a queued job with a final state. A job that is not queued
	// stays as it is.
	EndJob(ctx context.Context, id string, e Ending) error
	// EndAllJobs ends whatever is queued or running, and returns it as it was.
	// What these jobs owe is forgotten.
	EndAllJobs(ctx context.Context, e Ending) ([]Job, error)
	// WithdrawJobs ends as skipped, for that reason, the jobs that the
	// schedule's occurrences made and nobody has begun, and returns how many.
	WithdrawJobs(ctx context.Context, scheduleID, why string) (int, error)
}

// RunFilter chooses runs, newest first; zero fields choose nothing away.
type RunFilter struct {
	ScheduleID string
	GroupID    string
	State      RunState
	Before     time.Time // made before
	Page
}

// JobFilter chooses jobs, newest first; zero fields choose nothing away.
type JobFilter struct {
	Kind      JobKind
	State     JobState
	Active    bool // queued or running
	VMID      string
	RunID     string
	VCenterID string
	After     time.Time // made at or after (seed N40)
	Page
}

// ImageTx keeps the catalogue of images.
type ImageTx interface {
	Image(ctx context.Context, id string) (Image, error)
	// Images lists images newest first by point in time.
	Images(ctx context.Context, f ImageFilter) ([]Image, string, error)
	InsertImage(ctx context.Context, i Image) error
	UpdateImage(ctx context.Context, i Image) error
	DeleteImage(ctx context.Context, id string) error
	// LastImage is the VM's newest image of status good or partial in the
	// repository. [NotFound] when there is none.
	LastImage(ctx context.Context, vmID, repositoryID string) (Image, error)
	// SaveCompared notes what a disk takes of its day's budget, in the place of
	// what was noted of it, and returns what all take. It forgets the days before.
	SaveCompared(ctx context.Context, c Compared) (total int64, err error)
	// ImageShares lists whose image it is besides its maker's, its maker's own
	// share first; empty = it is its maker's only.
	ImageShares(ctx context.Context, imageID string) ([]ImageShare, error)
	// ImageHolds lists the holds of an image, those that are over included.
	ImageHolds(ctx context.Context, imageID string) ([]Hold, error)
	Hold(ctx context.Context, id string) (Hold, error)
	// InsertHold and DeleteHold keep Image.HeldUntil, which UpdateImage leaves as
	// it is, and the account of usage.
	InsertHold(ctx context.Context, h Hold) error
	DeleteHold(ctx context.Context, h Hold) error
	// SetStorageLock notes until when the storage refuses to delete what these
	// images need. UpdateImage leaves that as it is.
	SetStorageLock(ctx context.Context, ids []string, until time.Time) error
	// SaveImageShare adds a share or replaces that of the same job. Lists by
	// schedule, group or run find the image for each of its shares.
	SaveImageShare(ctx context.Context, s ImageShare) error
	// Copies lists the copies of those images that are there, and the jobs that
	// have not made one: by original and repository, older ones first.
	Copies(ctx context.Context, ids []string) ([]Copy, error)
}

// RestoreTx keeps restores.
type RestoreTx interface {
	Restore(ctx context.Context, id string) (Restore, error) // State and what follows come from its job
	// RestoreByToken is the newest restore with that token. [NotFound] when there is none.
	RestoreByToken(ctx context.Context, token string) (Restore, error)
	Restores(ctx context.Context, p Page) ([]Restore, string, error) // newest first
	InsertRestore(ctx context.Context, r Restore) error
	UpdateRestore(ctx context.Context, r Restore) error // Delivered, Result, Bytes
	DeleteRestore(ctx context.Context, id string) error
}

// RepositoryTx keeps repositories.
type RepositoryTx interface {
	Repository(ctx context.Context, id string) (RepositoryRecord, error)
	RepositoryByName(ctx context.Context, name string) (RepositoryRecord, error)
	Repositories(ctx context.Context, p Page) ([]RepositoryRecord, string, error)
	InsertRepository(ctx context.Context, r *RepositoryRecord) error
	UpdateRepository(ctx context.Context, r *RepositoryRecord) error
	// SaveRepositoryNotes stores what a server notes by itself: how the last
	// check ended and when a recovery sheet was given out. It leaves
	// Meta.Version as it is.
	SaveRepositoryNotes(ctx context.Context, r RepositoryRecord) error
	// DeleteRepository gives [InUse], naming them, while schedules, images that
	// are not deleted or jobs that are not over need it.
	DeleteRepository(ctx context.Context, id string) error
}

// UpkeepTx keeps what ends images and looks after repositories.
type UpkeepTx interface {
	// EndedImages lists images of any status but expired whose time is over at
	// that instant, and their lock and holds, too: by their end, from after on.
	EndedImages(ctx context.Context, at time.Time, after ImageEnd, limit int) ([]Image, error)
	// HasNewerImage says whether the VM has a later image of status good, or
	// partial where that is enough: in any repository, copies left out; of a copy,
	// whether there is a later one of either kind in its own repository.
	HasNewerImage(ctx context.Context, i Image, partial bool) (bool, error)
	// LongestUnread lists images of the repository that are good or partial,
	// those first that were not read for longest, and counts all of them.
	LongestUnread(ctx context.Context, repositoryID string, limit int) (ids []string, all int, err error)
	// Upkeep is empty but for its id while nothing was kept.
	Upkeep(ctx context.Context, repositoryID string) (Upkeep, error)
	SaveUpkeep(ctx context.Context, u Upkeep) error
	// ClockLook is zero before the first look.
	ClockLook(ctx context.Context) (ClockLook, error)
	SaveClockLook(ctx context.Context, l ClockLook) error
}

// UsageTx keeps the account of usage. Its entries are made, changed and closed
// with their images and stay when these are gone.
type UsageTx interface {
	// EachUsage calls each for every image that counts between the two
	// instants, in no order. each must not use the transaction.
	EachUsage(ctx context.Context, from, to time.Time, each func(UsageEntry) error) error
	// ForgetUsage takes out the entries of images that are gone and ended by
	// that instant.
	ForgetUsage(ctx context.Context, before time.Time) error
}
