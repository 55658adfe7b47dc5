package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo/blob"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// lineageBlob lies beside the owner's mark and says by which state of the
// owner's database the repository was written to last.
const lineageBlob blob.ID = "kura.lineage"

// databaseMark is what the blob holds.
type databaseMark struct {
	Installation string `json:"installation"`
	backup.DatabaseMark
}

// DatabaseMark reads the mark of our database.
func (rs *Repositories) DatabaseMark(ctx context.Context, rec backup.RepositoryRecord) (m backup.DatabaseMark, err error) {
	err = rs.onOwnStorage(ctx, rec, func(s storage) error {
		m, err = rs.readLineage(ctx, s)
		return err
	})
	return m, err
}

func (rs *Repositories) readLineage(ctx context.Context, s storage) (backup.DatabaseMark, error) {
	var b blobBuffer
	err := s.GetBlob(ctx, lineageBlob, 0, -1, &b)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return backup.DatabaseMark{}, nil
	}
	var m databaseMark
	if err == nil {
		err = json.Unmarshal(b.Bytes(), &m)
	}
	if err != nil {
		return backup.DatabaseMark{}, fmt.Errorf("read the database's mark: %w", err)
	}
	if m.Installation != rs.cfg.Installation {
		return backup.DatabaseMark{}, nil
	}
	return m.DatabaseMark, nil
}

// LeaveDatabaseMark replaces the mark.
func (rs *Repositories) LeaveDatabaseMark(ctx context.Context, rec backup.RepositoryRecord, m backup.DatabaseMark) error {
	return rs.onOwnStorage(ctx, rec, func(s storage) error {
		b, err := json.Marshal(databaseMark{rs.cfg.Installation, m})
		if err == nil {
			err = s.PutBlob(ctx, lineageBlob, blobBytes(b), blob.PutOptions{})
		}
		if err != nil {
			return fmt.Errorf("leave the database's mark: %w", err)
		}
		return nil
	})
}

// onOwnStorage opens a storage for a moment, without the repository in it: that
// takes no key. It does nothing where another installation owns that.
func (rs *Repositories) onOwnStorage(ctx context.Context, rec backup.RepositoryRecord, do func(storage) error) error {
	if err := check(rec); err != nil {
		return err
	}
	s, err := rs.openStorage(ctx, rec, false)
	if err != nil {
		return err
	}
	if err = s.missing(ctx); err != nil {
		err = unreachable(s.location(), err).Because(err)
	}
	var m *mark
	if err == nil {
		m, err = readMark(ctx, s)
	}
	if err == nil && m.foreign(rs.cfg.Installation) == "" {
		err = explain(ctx, s, "look at the database's mark", do(s))
	}
	if cerr := s.Close(context.WithoutCancel(ctx)); err == nil && cerr != nil {
		err = fmt.Errorf("close storage: %w", cerr)
	}
	return err
}
