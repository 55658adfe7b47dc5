package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/maintenance"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// markBlob lies beside kopia's files and says whose the repository is. It is
// not encrypted: who has no password must be able to tell, too.
const markBlob blob.ID = "kura.owner"

// mark is the owner's mark.
type mark struct {
	Installation string    `json:"installation"`
	Repository   string    `json:"repository"` // record's id there
	CreatedAt    time.Time `json:"created_at"`
	// InUse is set when the repository is opened for the first time. Until then
	// it may be what a creation that was cut short has left.
	InUse bool `json:"in_use"`
	// Before are the installations that it belonged to.
	Before []formerOwner `json:"before,omitempty"`
}

// formerOwner is an installation from which a repository was taken over.
type formerOwner struct {
	Installation string    `json:"installation"`
	Until        time.Time `json:"until"`
}

// unknownOwner stands for the owner of a repository without a mark.
const unknownOwner = "unknown"

// foreign names the owner, if it is another installation than ours.
func (m *mark) foreign(ours string) string {
	switch {
	case m == nil:
		return unknownOwner
	case m.Installation == ours:
		return ""
	}
	return m.Installation
}

// readMark returns the owner's mark; nil if there is none.
func readMark(ctx context.Context, s blob.Storage) (*mark, error) {
	var b blobBuffer
	err := s.GetBlob(ctx, markBlob, 0, -1, &b)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read owner's mark: %w", err)
	}
	var m mark
	if err := json.Unmarshal(b.Bytes(), &m); err != nil {
		return nil, fmt.Errorf("read owner's mark: %w", err)
	}
	return &m, nil
}

func writeMark(ctx context.Context, s blob.Storage, m mark) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = s.PutBlob(ctx, markBlob, blobBytes(b), blob.PutOptions{})
	}
	if err != nil {
		return fmt.Errorf("write owner's mark: %w", err)
	}
	return nil
}

// Attach opens a repository that is there, whoever owns it, and tells its own id
// and the installation that owns it; "" if that is this one. What another owns
// can only be read until it is taken over.
func (rs *Repositories) Attach(ctx context.Context, rec backup.RepositoryRecord) (unique, owner string, err error) {
	r, err := rs.Repository(ctx, rec)
	if err != nil {
		return "", "", err
	}
	o := r.(*repository).opened
	return o.uniqueID, o.owner, nil
}

// TakeOver makes this installation the owner of a repository, and tells whose it
// was; "" if it was ours already. The other installation can still read it and
// notices with its next job; what it is writing just now is not kept. It may be
// called again after a failure.
func (rs *Repositories) TakeOver(ctx context.Context, rec backup.RepositoryRecord) (from string, err error) {
	if err := check(rec); err != nil {
		return "", err
	}
	if rec.ReadOnly {
		return "", backup.Errorf(backup.Conflict, "read_only",
			"The repository %s is registered as read-only. Lift that first: who takes over will write.", rec.Name)
	}
	s, err := rs.openStorage(ctx, rec, false)
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := s.Close(context.WithoutCancel(ctx)); err == nil && cerr != nil {
			err = fmt.Errorf("close storage: %w", cerr)
		}
	}()
	r, err := rs.opening(rec, s).open(ctx) // who cannot open it must not own it
	if err != nil {
		return "", explainRead(ctx, s, "open repository", err)
	}
	from, err = rs.takeOver(ctx, rec, s, r)
	if cerr := r.Close(ctx); err == nil {
		err = cerr
	}
	return from, explain(ctx, s, "take over repository", err)
}

func (rs *Repositories) takeOver(ctx context.Context, rec backup.RepositoryRecord, s storage, r repo.DirectRepository) (from string, err error) {
	if rec.UniqueID != "" && rec.UniqueID != uniqueID(r) {
		return "", strange(rec, s)
	}
	m, err := readMark(ctx, s)
	if err != nil {
		return "", err
	}
	if from = m.foreign(rs.cfg.Installation); from != "" {
		now := rs.cfg.Now().UTC()
		next := mark{Installation: rs.cfg.Installation, Repository: rec.ID, CreatedAt: now, InUse: true}
		if m != nil {
			next.CreatedAt = m.CreatedAt
			next.Before = append(m.Before, formerOwner{m.Installation, now})
		}
		if err := writeMark(ctx, s, next); err != nil {
			return "", err
		}
		rs.cfg.Log.WarnContext(ctx, "repository taken over", "repository", rec.ID, "location", s.location(), "from", from)
	}
	return from, adopt(ctx, r)
}

// adopt makes ours the client that kopia lets maintain the repository.
func adopt(ctx context.Context, r repo.DirectRepository) error {
	p, err := maintenance.GetParams(ctx, r)
	if err != nil {
		return fmt.Errorf("read maintenance: %w", err)
	}
	if p.Owner == r.ClientOptions().UsernameAtHost() {
		return nil
	}
	p.Owner = r.ClientOptions().UsernameAtHost()
	return repo.WriteSession(ctx, r, repo.WriteSessionOptions{Purpose: "take over repository"},
		func(ctx context.Context, w repo.RepositoryWriter) error { return maintenance.SetParams(ctx, w, p) })
}

// stillOwned refuses what was begun before another installation took over.
func (r *repository) stillOwned(ctx context.Context) error {
	m, err := readMark(ctx, r.store)
	if err != nil {
		return err
	}
	if owner := m.foreign(r.cfg.Installation); owner != "" {
		return readOnly(r.store.location(), owner)
	}
	return nil
}
