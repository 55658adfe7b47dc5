package repository

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// NewPassword returns a password of 256 random bits.
func NewPassword() backup.Secret {
	return backup.NewPassword()
}

// Create makes the repository of rec and returns its own id. It may be called
// again with the same record, and after a creation that was cut short before
// the repository was first opened. It refuses with [backup.Conflict] what
// belongs to another installation or is not empty.
func (rs *Repositories) Create(ctx context.Context, rec backup.RepositoryRecord) (string, error) {
	if err := check(rec); err != nil {
		return "", err
	}
	s, err := rs.openStorage(ctx, rec, true)
	if err != nil {
		return "", err
	}
	defer s.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing of it is open any more
	id, err := rs.create(ctx, rec, s)
	if err != nil {
		return "", explain(ctx, s, "create repository", err)
	}
	return id, nil
}

func (rs *Repositories) create(ctx context.Context, rec backup.RepositoryRecord, s storage) (string, error) {
	m, err := readMark(ctx, s)
	if err != nil {
		return "", err
	}
	if m != nil && m.Installation != rs.cfg.Installation {
		return "", occupied(s, "a repository of installation "+m.Installation, ", or attach that repository")
	}
	if m == nil {
		if err := refuseStranger(ctx, s); err != nil {
			return "", err
		}
		m = &mark{Installation: rs.cfg.Installation, Repository: rec.ID, CreatedAt: rs.cfg.Now().UTC()}
		if err := writeMark(ctx, s, *m); err != nil {
			return "", err
		}
	}
	_, err = s.GetMetadata(ctx, formatBlob)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return rs.createAnew(ctx, rec, s)
	}
	if err != nil {
		return "", err
	}
	id, err := rs.verifyNew(ctx, rec, s)
	if errors.Is(err, repo.ErrInvalidPassword) && !m.InUse {
		rs.cfg.Log.WarnContext(ctx, "replacing a repository whose creation was cut short", "path", s.location())
		return rs.createAnew(ctx, rec, s)
	}
	if errors.Is(err, repo.ErrInvalidPassword) {
		return "", occupied(s, "another repository of this installation", "")
	}
	return id, err
}

// createAnew makes the repository, after removing what a creation has left
// that was cut short. Its password is lost, and nobody has ever opened it.
func (rs *Repositories) createAnew(ctx context.Context, rec backup.RepositoryRecord, s storage) (string, error) {
	var left []blob.ID
	used := false
	err := s.ListBlobs(ctx, "", func(m blob.Metadata) error {
		used = used || strings.HasPrefix(string(m.BlobID), packPrefix)
		if m.BlobID != markBlob {
			left = append(left, m.BlobID)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("look for data: %w", err)
	}
	if used {
		return "", occupied(s, "data of this installation under another password", "")
	}
	for _, id := range left {
		if err := s.DeleteBlob(ctx, id); err != nil {
			return "", fmt.Errorf("remove %s: %w", id, err)
		}
	}
	l, err := lockOf(rec.Settings)
	if err != nil {
		return "", err
	}
	if err := initialize(ctx, s, rec.Password, l); err != nil {
		return "", err
	}
	return rs.verifyNew(ctx, rec, s)
}

// verifyNew opens the repository once, which proves that it can be.
func (rs *Repositories) verifyNew(ctx context.Context, rec backup.RepositoryRecord, s storage) (string, error) {
	r, err := rs.opening(rec, s).open(ctx)
	if err != nil {
		return "", err
	}
	id := uniqueID(r)
	err = tune(ctx, r)
	if cerr := r.Close(ctx); err == nil {
		err = cerr
	}
	return id, err
}

// occupied refuses a place because of what it holds.
func occupied(s storage, by, or string) error {
	at := s.place()
	return backup.Errorf(backup.Conflict, at.field, "The %s %s holds %s. Choose an empty one%s.", at.noun, at.name, by, or)
}

// refuseStranger refuses a place that holds kopia's data which is not ours.
func refuseStranger(ctx context.Context, s storage) error {
	_, err := s.GetMetadata(ctx, formatBlob)
	if err == nil {
		return occupied(s, "a kopia repository that kura did not make", "")
	}
	if !errors.Is(err, blob.ErrBlobNotFound) {
		return err
	}
	return nil
}
