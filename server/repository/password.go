package repository

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Check refuses, before anything is done, a record that no repository can be
// made of: its kind, its settings, its compression.
func (rs *Repositories) Check(rec backup.RepositoryRecord) error { return check(rec) }

// beside is a repository that is open for a moment, beside the one in use.
type beside struct {
	storage storage
	steady  *steady
	repo    repo.DirectRepository
	used    backup.Secret // the password that opened it
}

// beside opens the repository of rec, calls f and closes it. frozen refuses all
// writing.
func (rs *Repositories) beside(ctx context.Context, rec backup.RepositoryRecord, frozen bool, f func(beside) error) (err error) {
	if err := check(rec); err != nil {
		return err
	}
	s, err := rs.openStorage(ctx, rec, false)
	if lost(err) {
		return backup.Errorf(backup.Conflict, "settings", "There is no repository at that place (%s). Move the files there first.", backup.AsError(err).Message).Because(err)
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := s.Close(context.WithoutCancel(ctx)); err == nil && cerr != nil {
			err = fmt.Errorf("close storage: %w", cerr)
		}
	}()
	if frozen {
		s.freeze()
	}
	if err := os.MkdirAll(rs.cfg.Dir, dirMode); err != nil {
		return fmt.Errorf("make folder for configuration: %w", err)
	}
	dir, err := os.MkdirTemp(rs.cfg.Dir, "beside-")
	if err != nil {
		return fmt.Errorf("make folder for configuration: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o := rs.opening(rec, s)
	o.dir, o.cache = dir, 0
	b := beside{storage: s}
	if b.repo, b.steady, b.used, err = o.openAny(ctx); err != nil {
		return opensNot(ctx, s, rec, err)
	}
	err = f(b)
	if cerr := b.repo.Close(context.WithoutCancel(ctx)); err == nil && cerr != nil {
		err = fmt.Errorf("close repository: %w", cerr)
	}
	return err
}

// opensNot says what was found at a place that was tried.
func opensNot(ctx context.Context, s storage, rec backup.RepositoryRecord, err error) error {
	at := s.place()
	switch {
	case errors.Is(err, repo.ErrInvalidPassword):
		return backup.Errorf(backup.Conflict, at.field, "The %s %s holds a repository that the password of %q does not open: it is another one.", at.noun, at.name, rec.Name).Because(err)
	case s.missing(ctx) == nil && lost(err):
		return backup.Errorf(backup.Conflict, at.field, "The %s %s holds no repository. Move the files there first.", at.noun, at.name).Because(err)
	}
	return explainRead(ctx, s, "open repository", err)
}

// Probe looks, without writing anything, which repository lies where the record
// says, and which installation owns it; "" if that is this one.
func (rs *Repositories) Probe(ctx context.Context, rec backup.RepositoryRecord) (unique, owner string, err error) {
	err = rs.beside(ctx, rec, true, func(b beside) error {
		unique = uniqueID(b.repo)
		m, err := readMark(ctx, b.storage)
		owner = m.foreign(rs.cfg.Installation)
		return explain(ctx, b.storage, "look whose the repository is", err)
	})
	return unique, owner, err
}

// SetLock makes the storage lock what is written from now on as the settings
// say. What is locked stays so. It may be called again after a failure.
func (rs *Repositories) SetLock(ctx context.Context, rec backup.RepositoryRecord) error {
	return rs.beside(ctx, rec, false, func(b beside) error {
		if err := rs.stillOurs(ctx, rec, b); err != nil {
			return err
		}
		l, err := lockOf(rec.Settings)
		if err == nil {
			_, err = setLock(ctx, b.repo, l)
		}
		return explain(ctx, b.storage, "set the lock", err)
	})
}

// stillOurs refuses to write what would shut another installation out.
func (rs *Repositories) stillOurs(ctx context.Context, rec backup.RepositoryRecord, b beside) error {
	if rec.UniqueID != "" && rec.UniqueID != uniqueID(b.repo) {
		return strange(rec, b.storage)
	}
	m, err := readMark(ctx, b.storage)
	if err != nil {
		return explain(ctx, b.storage, "look whose the repository is", err)
	}
	if owner := m.foreign(rs.cfg.Installation); owner != "" || rec.ReadOnly {
		return readOnly(b.storage.location(), owner)
	}
	return nil
}

// setLock writes the lock into the repository's own format; changed = it was another.
func setLock(ctx context.Context, r repo.DirectRepository, l lock) (changed bool, err error) {
	m := r.FormatManager()
	have, err := m.BlobCfgBlob(ctx)
	if err != nil || have.RetentionMode == l.mode && have.RetentionPeriod == l.period {
		return false, err
	}
	return true, writeLock(ctx, r, l)
}

func writeLock(ctx context.Context, r repo.DirectRepository, l lock) error {
	m := r.FormatManager()
	p, err := m.GetMutableParameters(ctx)
	if err != nil {
		return err
	}
	features, err := m.RequiredFeatures(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := settle(ctx)
	defer cancel()
	return m.SetParameters(ctx, p, format.BlobStorageConfiguration{RetentionMode: l.mode, RetentionPeriod: l.period}, features)
}

// keepLock brings a repository that we write to in line with its record, after
// a change that was cut off. A lock that the record does not know stays.
func keepLock(ctx context.Context, o *opened, rec backup.RepositoryRecord) (changed bool, err error) {
	l, err := lockOf(rec.Settings)
	if err != nil || l.mode == "" || o.readOnly || o.owner != "" {
		return false, err
	}
	changed, err = setLock(ctx, o.repo, l)
	return changed, explain(ctx, o.store, "set the lock", err)
}

// ChangePassword makes rec.NextPassword the one that opens the repository. It
// may be called again after a failure, wherever that has happened: at any moment
// just one of the two passwords opens it. Who has it open goes on.
func (rs *Repositories) ChangePassword(ctx context.Context, rec backup.RepositoryRecord) error {
	if rec.NextPassword == "" {
		return backup.Errorf(backup.Invalid, "", "A change of the password needs the next one.")
	}
	sl, err := rs.slot(rec.ID)
	if err != nil {
		return err
	}
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return rs.beside(ctx, rec, false, func(b beside) error {
		if err := rs.stillOurs(ctx, rec, b); err != nil {
			return err
		}
		l, err := lockOf(rec.Settings)
		if err != nil {
			return err
		}
		if b.used == rec.NextPassword {
			return explain(ctx, b.storage, "set the lock", restoreLock(ctx, b, l))
		}
		if err := lockIsKnown(ctx, b, l); err != nil {
			return err
		}
		return explain(ctx, b.storage, "change the password", changePassword(ctx, b, rec.NextPassword))
	})
}

// restoreLock writes the blob that a change of the password removes first, where
// it was cut off after that.
func restoreLock(ctx context.Context, b beside, l lock) error {
	_, err := b.storage.GetMetadata(ctx, configBlob)
	if !errors.Is(err, blob.ErrBlobNotFound) {
		return err
	}
	return writeLock(ctx, b.repo, l)
}

// lockIsKnown refuses a repository whose lock the settings do not tell: were the
// change cut off, nobody would know it.
func lockIsKnown(ctx context.Context, b beside, l lock) error {
	have, err := b.repo.FormatManager().BlobCfgBlob(ctx)
	if err != nil {
		return explainRead(ctx, b.storage, "read the lock", err)
	}
	if have.IsRetentionEnabled() && l.mode == "" {
		return backup.Errorf(backup.Conflict, "settings."+s3LockMode,
			"The storage locks what is written for %d days, which the settings do not say. Set lock_mode and lock_days first.", int(have.RetentionPeriod.Hours()/24))
	}
	return nil
}

// changePassword has kopia encrypt the two blobs of the format anew, and writes
// them so that each state on the way can be opened: kopia itself would leave,
// when cut off, one blob of the old and one of the new password, which none
// opens. The smaller blob holds the lock and may be missing.
func changePassword(ctx context.Context, b beside, next backup.Secret) error {
	ctx, cancel := settle(ctx)
	defer cancel()
	anew := b.steady.draw()
	if err := b.repo.FormatManager().ChangePassword(ctx, next.Reveal()); err != nil {
		return fmt.Errorf("encrypt the format: %w", err)
	}
	if err := b.storage.DeleteBlob(ctx, configBlob); err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
		return fmt.Errorf("remove %s: %w", configBlob, err)
	}
	for _, id := range []blob.ID{formatBlob, configBlob} {
		w, ok := anew[id]
		if !ok {
			return fmt.Errorf("kopia did not write %s", id)
		}
		if err := b.storage.PutBlob(ctx, id, blobBytes(w.bytes), w.options); err != nil {
			return fmt.Errorf("write %s: %w", id, err)
		}
	}
	return nil
}
