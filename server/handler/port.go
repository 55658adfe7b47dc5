package handler

import (
	"context"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Planner makes every change of what is wanted; backup.Planner is it. A
// version of 0 in an update means whatever is stored.
type Planner interface {
	VCenters
	Groups
	Schedules
	Timeslots
	Runs
	Restores
	Upkeep
	Repositories
	Usages
	Copies
	Clocks
}

// VCenters changes vcenters.
type VCenters interface {
	CreateVCenter(ctx context.Context, v backup.VCenter) (backup.VCenter, error)
	UpdateVCenter(ctx context.Context, v backup.VCenter) (backup.VCenter, error)
	DeleteVCenter(ctx context.Context, id string) error
	SyncVCenter(ctx context.Context, id string) (backup.Job, error)
	// RebindVCenter gives the VMs of a vcenter their places in another one.
	RebindVCenter(ctx context.Context, r backup.Rebinding) (backup.RebindResult, error)
	// Diagnose looks a vcenter over and changes nothing.
	Diagnose(ctx context.Context, id string, o backup.DoctorOptions) (backup.Diagnosis, error)
}

// Groups changes groups.
type Groups interface {
	CreateGroup(ctx context.Context, g backup.Group) (backup.Group, error)
	UpdateGroup(ctx context.Context, g backup.Group) (backup.Group, error)
	DeleteGroup(ctx context.Context, id string) error
	Coverage(ctx context.Context, vcenterID string) ([]backup.Coverage, error)
	GroupMembers(ctx context.Context, id string) ([]backup.VirtualMachine, error)
}

// Schedules changes schedules.
type Schedules interface {
	CreateSchedule(ctx context.Context, s backup.Schedule) (backup.Schedule, error)
	UpdateSchedule(ctx context.Context, s backup.Schedule) (backup.Schedule, error)
	UpdateSchedules(ctx context.Context, all []backup.Schedule) ([]backup.Schedule, error)
	DeleteSchedule(ctx context.Context, id string) error
	// ScheduleWarnings tells what of a stored schedule may surprise.
	ScheduleWarnings(ctx context.Context, s backup.Schedule) ([]string, error)
	// CheckSchedule books nothing.
	CheckSchedule(ctx context.Context, s backup.Schedule, others []backup.Planned) (backup.Schedule, []string, error)
}

// Timeslots tells how the seats of a vcenter stand, and how long they are needed.
type Timeslots interface {
	// Timeslots lists hours, soonest first, and when to go on from; zero = there are no more.
	Timeslots(ctx context.Context, q backup.TimeslotQuery) ([]backup.Timeslot, time.Time, error)
	// OverBooked counts the hours that hold more seats than there are.
	OverBooked(ctx context.Context, vcenterID string) (backup.OverBooked, error)
	// Measured tells how long a schedule's backups took.
	Measured(ctx context.Context, scheduleID string) (backup.Measured, error)
}

// Runs starts and stops work.
type Runs interface {
	RunSchedule(ctx context.Context, id string) (backup.Run, error)
	BackupGroup(ctx context.Context, id string, o backup.RunOptions) (backup.Run, error)
	BackupVM(ctx context.Context, id string, o backup.RunOptions) (backup.Run, error)
	CancelJob(ctx context.Context, id string) (backup.Job, error)
	DeleteImage(ctx context.Context, id string) (backup.Job, error)
	HoldImage(ctx context.Context, h backup.Hold) (backup.Hold, error)
	ChangeHold(ctx context.Context, imageID, holdID string, until time.Time, reason string) (backup.Hold, error)
	ReleaseHold(ctx context.Context, imageID, holdID string) (backup.Released, error)
	ExtendImage(ctx context.Context, id string, e backup.Extension) (backup.Image, error)
}

// Restores starts and forgets restores.
type Restores interface {
	CreateRestore(ctx context.Context, r backup.Restore) (backup.Restore, error)
	CheckRestore(ctx context.Context, r backup.Restore) ([]string, error)
	DeleteRestore(ctx context.Context, id string) error
	// DeleteRestoredVM deletes the new VM that a restore has made.
	DeleteRestoredVM(ctx context.Context, restoreID string) error
}

// Upkeep looks after what is stored.
type Upkeep interface {
	// Collect frees what no image of the repository needs.
	Collect(ctx context.Context, repositoryID string, dryRun bool) (backup.Job, error)
	// VerifyImage reads an image whole.
	VerifyImage(ctx context.Context, id string) (backup.Job, error)
	// HashImage reads it whole and tells the checksums of its disks.
	HashImage(ctx context.Context, id string) (backup.Job, error)
	// ExpiryPlan lists the images whose time is over.
	ExpiryPlan(ctx context.Context) ([]backup.Expired, error)
	// AdoptDatabase lets a database go on that was put back from a copy.
	AdoptDatabase(ctx context.Context) (backup.Adoption, error)
	// CopyDatabase copies the server's database into a repository.
	CopyDatabase(ctx context.Context, repositoryID string) (backup.RepositoryRecord, error)
}

// Repositories makes and takes over repositories.
type Repositories interface {
	// CreateRepository attaches one that has a password, and makes others.
	CreateRepository(ctx context.Context, r backup.RepositoryRecord) (backup.RepositoryRecord, error)
	UpdateRepository(ctx context.Context, id string, version int64, c backup.RepositoryChange) (backup.RepositoryRecord, error)
	DeleteRepository(ctx context.Context, id string, forgetImages bool) error
	ChangeRepositoryPassword(ctx context.Context, id string) (backup.RepositoryRecord, error)
	RebuildCatalogue(ctx context.Context, repositoryID string, prune bool) (backup.Job, error)
	RepositoryWarnings(r backup.RepositoryRecord, u backup.Upkeep) []string
	TakeOverRepository(ctx context.Context, id string) (backup.RepositoryRecord, error)
	// RecoverySheet holds the repository's password; recipient encrypts it.
	RecoverySheet(ctx context.Context, id, recipient string) (backup.Secret, error)
}

// Copies has images copied to other repositories.
type Copies interface {
	CopyImage(ctx context.Context, r backup.CopyRequest) (backup.Job, error)
	// Copies tells how the copies of an image stand.
	Copies(ctx context.Context, id string) ([]backup.Copy, error)
}

// Clocks tells how far the clock is trusted.
type Clocks interface {
	Clock(ctx context.Context) (backup.ClockState, error)
	// ConfirmClock makes it trusted where it agrees with that time.
	ConfirmClock(ctx context.Context, his time.Time) (backup.ClockState, error)
}

// Usages tells how long images were there.
type Usages interface {
	Usage(ctx context.Context, q backup.UsageQuery) (backup.UsageReport, error)
}

// Tokens keeps tokens.
type Tokens interface {
	// InsertToken fills in what is not set of id and time. It gives
	// backup.Conflict when the name is taken.
	InsertToken(ctx context.Context, t *auth.Token) error
	// Tokens lists the project's tokens, oldest first.
	Tokens(ctx context.Context, p backup.Page) ([]auth.Token, string, error)
	// RevokeToken gives backup.NotFound when there is none.
	RevokeToken(ctx context.Context, id string) (auth.Token, error)
}

// Replies keeps answers for as long as their request may be repeated.
type Replies interface {
	// IdempotentResponse is the answer kept under the key. It gives
	// backup.Conflict when the key was used for another request.
	IdempotentResponse(ctx context.Context, project, key, requestHash string) (status int, body []byte, found bool, err error)
	SaveIdempotent(ctx context.Context, project, key, requestHash string, status int, body []byte) error
}
