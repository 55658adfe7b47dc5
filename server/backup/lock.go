package backup

import (
	"context"
	"encoding/json"
	"strconv"
	"time"
)

// StorageLock is how the storage of a repository itself keeps from being
// deleted what was written, as its settings ask for it.
type StorageLock struct {
	Mode string // governance or compliance; "" = it does not
	Days int    // from the writing, or the last extension
}

// LockSpec is what a job of [KindLock] was asked to do.
type LockSpec struct {
	RepositoryID string `json:"repository_id"`
}

// Locking asks a repository to lock anew, from now on, what images need.
type Locking struct {
	// Ref chooses one image; "" = all of them, and the index. Of one image only
	// that is locked whose lock would end too early.
	Ref string
	// What the image Base needs is locked until BaseUntil as it is.
	Base      string
	BaseUntil time.Time
	Progress  func(done, all int) // told the blobs locked so far, one call at a time; nil = nobody asks
}

// StorageLocked tells what a locking has done.
type StorageLocked struct {
	At      time.Time `json:"at"`    // when it began
	Until   time.Time `json:"until"` // all that the images need is locked until then at least
	Days    int       `json:"days"`  // as the settings said
	Blobs   int       `json:"blobs"` // that were locked anew
	Bytes   int64     `json:"bytes"` // in packs that images need
	Calls   int64     `json:"calls"` // requests to the storage
	Seconds float64   `json:"seconds"`
	Images  []string  `json:"-"` // ids of those all of which is locked
	Unread  []string  `json:"-"` // ids of those whose needs could not be read
	Missing int       `json:"missing,omitempty"`
}

// Locks are extended every day. What lasts until lockLate before a whole period
// is as good as extended today, and so old at most may an extension be.
const (
	lockEvery = 24 * time.Hour
	lockRetry = time.Hour
	LockLate  = 36 * time.Hour
)

// StorageLock is how the repository's storage locks.
func (r RepositoryRecord) StorageLock() StorageLock {
	days, err := strconv.Atoi(r.Settings["lock_days"])
	if r.Settings["lock_mode"] == "" || err != nil {
		return StorageLock{}
	}
	return StorageLock{Mode: r.Settings["lock_mode"], Days: days}
}

// Locks says whether the storage locks at all.
func (l StorageLock) Locks() bool { return l.Mode != "" }

// Period is for how long it locks.
func (l StorageLock) Period() time.Duration { return time.Duration(l.Days) * 24 * time.Hour }

// Enough is until when what is needed now must be locked at least.
func (l StorageLock) Enough(now time.Time) time.Time { return now.Add(l.Period() - LockLate) }

// LacksStorageLock says whether the storage of r should lock what the image
// needs, and does not as far as is known.
func (i Image) LacksStorageLock(r RepositoryRecord) bool {
	return r.StorageLock().Locks() && i.StorageLockedUntil.IsZero()
}

// LockWarning says that the storage's locks of r were not extended as they
// should be; "" = they were, or there are none.
func (u Upkeep) LockWarning(r RepositoryRecord, now time.Time) string {
	switch l := r.StorageLock(); {
	case !l.Locks() || r.ReadOnly:
		return ""
	case u.Locked.At.IsZero() && now.Sub(r.CreatedAt) > LockLate:
		return "The storage's locks were never extended: what images need can be deleted in the storage once it is " + strconv.Itoa(l.Days) + " days old. See the last job of the kind lock."
	case !u.Locked.At.IsZero() && now.Sub(u.Locked.At) > LockLate:
		return "The storage's locks were last extended at " + instantText(u.Locked.At) + ", and should be every day: they end from " + instantText(u.Locked.Until) + " on. See the last job of the kind lock."
	}
	return ""
}

// planDueLocking asks for the daily extension of a repository's locks. After a
// failure it is asked for again within the hour, and at once when the period
// was changed.
func planDueLocking(ctx context.Context, tx Tx, r RepositoryRecord) (jobs int, err error) {
	l := r.StorageLock()
	if !l.Locks() {
		return 0, nil
	}
	u, err := tx.Upkeep(ctx, r.ID)
	if err != nil {
		return 0, err
	}
	now := tx.Now()
	fresh := now.Sub(u.Locked.At).Abs() < lockEvery && u.Locked.Days == l.Days
	if fresh || now.Sub(u.LockPlannedAt).Abs() < lockRetry {
		return 0, nil
	}
	active, _, err := tx.Jobs(ctx, JobFilter{Kind: KindLock, Active: true, Page: Page{Limit: 1000}})
	if err != nil {
		return 0, err
	}
	for _, j := range active {
		var s LockSpec
		if json.Unmarshal(j.Spec, &s) == nil && s.RepositoryID == r.ID {
			return 0, nil
		}
	}
	u.LockPlannedAt = now
	if err := tx.SaveUpkeep(ctx, u); err != nil {
		return 0, err
	}
	j := newJob(now, KindLock)
	j.Spec, _ = json.Marshal(LockSpec{RepositoryID: r.ID}) // plain values: cannot fail
	j.Needs = []string{reachRepository(r)}
	j.Keys = []JobKey{{Name: "collect:" + r.ID, Weight: 1, Max: 1}} // a collection moves what is to be locked
	return 1, tx.InsertJob(ctx, j)
}

// lockWarning says what a schedule with a lock may expect of its repository.
func (s Schedule) lockWarning(r RepositoryRecord) string {
	longest := s.RetentionDays
	for _, e := range s.Extended {
		if e.RetentionDays == 0 || longest != 0 && e.RetentionDays > longest {
			longest = e.RetentionDays
		}
	}
	l := r.StorageLock()
	switch {
	case !s.Lock:
		return ""
	case !l.Locks():
		return "With lock = true only the server keeps the lock: repository " + r.Name + " has no object lock, so whoever can write to its storage can delete its images there."
	case longest == 0:
		return "Images that never expire are locked in the storage of repository " + r.Name + " for " + strconv.Itoa(l.Days) + " days at a time: further than that only the server keeps the lock, which extends the storage's every day while it runs."
	case l.Days < longest:
		return "Repository " + r.Name + " locks for " + strconv.Itoa(l.Days) + " days, and images are kept for " + strconv.Itoa(longest) +
			": beyond that only the server keeps the lock, which extends the storage's every day while it runs."
	}
	return ""
}
