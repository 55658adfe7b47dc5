package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// lockNotes is of how many images it is noted at a time that they are locked.
const lockNotes = 1000

// lock extends the storage's locks of what the images of a repository need.
func (a *attempt) lock(ctx context.Context) (ending, error) {
	a.begin(ctx, "extending the storage's locks")
	var spec backup.LockSpec
	if err := json.Unmarshal(a.job.Spec, &spec); err != nil {
		return ending{}, fmt.Errorf("spec: %w", err)
	}
	var record backup.RepositoryRecord
	err := a.Store.View(ctx, func(tx backup.Tx) (err error) {
		record, err = tx.Repository(ctx, spec.RepositoryID)
		return err
	})
	if backup.CodeOf(err) == backup.NotFound || err == nil && !record.StorageLock().Locks() {
		return ending{state: backup.JobSkipped, message: "There is no repository with object lock any more."}, nil
	}
	if err != nil {
		return ending{}, err
	}
	repo, err := a.Repositories.Repository(ctx, record)
	if err != nil {
		return ending{}, err
	}
	l, err := repo.Lock(ctx, backup.Locking{})
	if err != nil {
		return ending{}, fmt.Errorf("lock repository %s: %w", record.Name, err)
	}
	failpoint.Hit("lock.extended")
	for ids := range slices.Chunk(l.Images, lockNotes) {
		if err := a.Store.Update(ctx, func(tx backup.Tx) error { return tx.SetStorageLock(ctx, ids, l.Until) }); err != nil {
			return ending{}, err
		}
	}
	a.tellLocked(ctx, record, l)
	return ending{state: backup.JobSucceeded, also: func(tx backup.Tx) error {
		u, err := tx.Upkeep(ctx, record.ID)
		if err != nil {
			return err
		}
		u.Locked = l
		return tx.SaveUpkeep(ctx, u)
	}}, nil
}

func (a *attempt) tellLocked(ctx context.Context, r backup.RepositoryRecord, l backup.StorageLocked) {
	a.log.InfoContext(ctx, "locks of the storage extended", "repository", r.Name, "images", len(l.Images), "blobs", l.Blobs, "bytes", l.Bytes,
		"calls", l.Calls, "seconds", l.Seconds, "until", l.Until, "unread", len(l.Unread), "missing", l.Missing)
	took := time.Duration(l.Seconds * float64(time.Second)).Round(time.Millisecond)
	a.say("What %d images need, %s in %d blobs, is locked until %s. It took %d requests and %s.",
		len(l.Images), backup.SizeText(l.Bytes), l.Blobs, l.Until.UTC().Format(time.DateTime+" UTC"), l.Calls, took)
	if l.Missing > 0 {
		a.say("%d blobs are missing in the storage: verify the images.", l.Missing)
	}
	if len(l.Unread) > 0 {
		a.log.ErrorContext(ctx, "images not locked as they cannot be read", "repository", r.Name, "images", l.Unread)
		a.say("What these images need could not be read, so that not all of it is locked: %s.", strings.Join(l.Unread[:min(len(l.Unread), 20)], ", "))
	}
}

// stored is an image that is committed and not listed yet.
type stored struct {
	*attempt
	record backup.RepositoryRecord
	repo   backup.Repository // nil = it could not be opened, which has been said
	image  *backup.Image
	base   backup.Image // that it shares blocks with; zero = not known
	locked bool         // nobody may delete it
	done   func(ctx context.Context) ending
}

// settle ends a backup whose image is committed.
func (b *backupJob) settle(ctx context.Context) (ending, error) {
	return stored{b.attempt, b.record, b.repo, &b.image, b.base, b.spec.Lock, b.done}.settle(ctx)
}

// settle ends a job whose image is committed: it is checked, and locked in the
// storage before the job succeeds (seed A33). Where that fails a locked image's
// job is tried again, with the image that is there, and fails in the end;
// another's succeeds with a warning. The image is listed in any case.
func (s stored) settle(ctx context.Context) (ending, error) {
	if s.repo != nil {
		s.checkImage(ctx, s.repo, s.image)
	}
	err := s.lockStored(ctx)
	if err == nil {
		return s.done(ctx), nil
	}
	if lost(ctx, err) || errors.Is(context.Cause(ctx), errShutdown) {
		return ending{}, err
	}
	s.log.WarnContext(ctx, "image not locked by the storage", "image", s.image.ID, "error", err)
	if s.locked && context.Cause(ctx) == nil && s.triesLeft(err) {
		return ending{}, err
	}
	text := fmt.Sprintf("Blocks that the image shares with older ones could not be locked in the storage (%s); the next daily extension does so.", because(err))
	s.say("%s", text)
	if s.image.Message == "" {
		s.image.Message = text
	}
	e := s.done(ctx)
	if s.locked && e.state == backup.JobSucceeded {
		e.state, e.code, e.message = backup.JobFailed, backup.CodeOf(err), "The image was made and is listed. "+text
	}
	return e, nil
}

// lockShared has the storage lock an image that another schedule has made, where
// that could not be done when it was made and this job's schedule wants a lock.
// It returns until when; zero = nothing had to be done.
func (b *backupJob) lockShared(ctx context.Context, i backup.Image) (until time.Time, err error) {
	if !b.spec.Lock || !i.LacksStorageLock(b.record) {
		return time.Time{}, nil
	}
	b.begin(ctx, "locking the image in the storage")
	l, err := b.repo.Lock(ctx, backup.Locking{Ref: i.Ref})
	return l.Until, err
}

// triesLeft says whether a job that fails with err is tried again.
func (a *attempt) triesLeft(err error) bool {
	failures := a.job.Failures + 1
	next := a.Now().Add(a.Backoff << min(failures-1, 10))
	late := !a.job.Deadline.IsZero() && next.After(a.job.Deadline)
	return backup.CodeOf(err).Transient() && failures < a.job.MaxAttempts && !late
}

// lockStored has the storage lock what the new image shares with older ones.
func (s stored) lockStored(ctx context.Context) error {
	if !s.record.StorageLock().Locks() || s.image.Status == backup.ImageDamaged {
		return nil
	}
	if s.repo == nil {
		return backup.Errorf(backup.RepositoryUnreachable, "", "Repository %s cannot be used now.", s.record.Name)
	}
	s.begin(ctx, "locking the image in the storage")
	l, err := s.repo.Lock(ctx, backup.Locking{Ref: s.image.Ref, Base: s.base.Ref, BaseUntil: s.base.StorageLockedUntil})
	if err != nil {
		return err
	}
	failpoint.Hit("lock.image_locked")
	s.image.StorageLockedUntil = l.Until
	s.log.DebugContext(ctx, "image locked by the storage", "blobs", l.Blobs, "until", l.Until)
	return nil
}
