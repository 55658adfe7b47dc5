package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// isFull says whether an error means that a disk or a quota is used up.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// lost says whether an error means that something stored is not there.
func lost(err error) bool {
	return errors.Is(err, blob.ErrBlobNotFound) || errors.Is(err, content.ErrContentNotFound) ||
		errors.Is(err, object.ErrObjectNotFound) || errors.Is(err, blob.ErrInvalidRange)
}

// explain makes of a failure of kopia or the storage what a user can act on.
// What nobody can act on it returns wrapped with what was being done.
func explain(ctx context.Context, s storage, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case backup.AsError(err) != nil:
		return fmt.Errorf("%s: %w", doing, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, err)
	case isFull(err):
		return noSpace(s).Because(err)
	case errors.Is(err, repo.ErrInvalidPassword):
		return backup.Errorf(backup.RepositoryDamaged, "",
			"The password kept for the repository at %s does not open it. Another repository may lie there, or kopia.repository was replaced: put the right folder back, or enter the password from the recovery sheet.",
			s.location()).Because(err)
	}
	var t *trouble
	if errors.As(err, &t) {
		return unreachable(s.location(), t).Because(err)
	}
	if gone := s.missing(ctx); gone != nil {
		return unreachable(s.location(), gone).Because(err)
	}
	if lost(err) {
		return damaged(s, "a file that images need is missing").Because(err)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return unreachable(s.location(), path).Because(err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// explainRead is explain for reading what was once written whole: what is not
// the storage's absence is damage.
func explainRead(ctx context.Context, s storage, doing string, err error) error {
	if errors.Is(err, syscall.EIO) && s.missing(ctx) == nil {
		return damaged(s, "the disk does not give a file back").Because(err)
	}
	err = explain(ctx, s, doing, err)
	if err == nil || backup.AsError(err) != nil || ctx.Err() != nil {
		return err
	}
	return damaged(s, "stored data cannot be read back").Because(err)
}

// isDamage says of an explained error that what was stored is not whole.
func isDamage(err error) bool { return backup.CodeOf(err) == backup.RepositoryDamaged }

func noSpace(s storage) *backup.Error {
	free := "no space left"
	if fsys, ok := s.(*fileStore); ok {
		if n := freeBytes(fsys.path); n >= 0 {
			free = fmt.Sprintf("%d bytes free", n)
		}
	}
	return backup.Errorf(backup.NoSpace, "",
		"The storage of the repository at %s is full: %s. Make it larger or delete images that are no longer needed.",
		s.location(), free)
}

func unreachable(location string, why error) *backup.Error {
	reason := "it does not answer"
	var errno syscall.Errno
	var t *trouble
	switch {
	case errors.As(why, &t):
		reason = t.reason
	case lost(why):
		reason = "it holds no repository now; is the right disk mounted, the right place named?"
	case errors.Is(why, fs.ErrNotExist):
		reason = "the folder is not there; is the disk mounted?"
	case errors.Is(why, errAnotherFolder):
		reason = errAnotherFolder.Error()
	case errors.As(why, &errno):
		reason = errno.Error()
	}
	return backup.Errorf(backup.RepositoryUnreachable, "", "The repository at %s cannot be used: %s.", location, reason)
}

func damaged(s storage, what string) *backup.Error {
	return backup.Errorf(backup.RepositoryDamaged, "",
		"The repository at %s is damaged: %s. Images that need it cannot be restored from here; check the disk and put lost files back from a copy of the folder.",
		s.location(), what)
}

func readOnly(location, owner string) *backup.Error {
	if owner == "" {
		return backup.Errorf(backup.Conflict, "", "The repository at %s is attached read-only.", location)
	}
	return backup.Errorf(backup.Conflict, "",
		"The repository at %s belongs to installation %s and can only be read from here. Take it over first.", location, owner)
}
