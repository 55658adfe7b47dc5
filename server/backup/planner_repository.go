package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// RepositoryMaker makes repositories where they lie, and learns whose they are.
type RepositoryMaker interface {
	// Create makes a repository and returns its own id. It may be called again
	// after a failure. Errors: Invalid, Conflict, RepositoryUnreachable.
	Create(ctx context.Context, r RepositoryRecord) (unique string, err error)
	// Attach opens one that is there. owner is the installation that may write
	// to it; "" = this one.
	Attach(ctx context.Context, r RepositoryRecord) (unique, owner string, err error)
	// Check refuses, before anything is done, what no repository can be made of.
	// Errors: Invalid.
	Check(r RepositoryRecord) error
	// Probe looks, without writing anything, which repository lies there and
	// whose it is. Errors: Conflict (none does, or another password opens it),
	// RepositoryUnreachable.
	Probe(ctx context.Context, r RepositoryRecord) (unique, owner string, err error)
	// SetLock makes the storage lock what is written from now on as the settings
	// say. What is locked stays so.
	SetLock(ctx context.Context, r RepositoryRecord) error
	// ChangePassword makes NextPassword the one that opens it. It may be called
	// again after a failure, wherever that has happened.
	ChangePassword(ctx context.Context, r RepositoryRecord) error
	// TakeOver makes this installation the owner.
	TakeOver(ctx context.Context, r RepositoryRecord) (from string, err error)
	// RecoverySheet writes down what opens a repository without the database,
	// encrypted to an age recipient where one is given.
	RecoverySheet(r RepositoryRecord, recipient string) (Secret, error)
}

// NewPassword returns a password of 256 random bits.
func NewPassword() Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: the runtime ends the process instead
	return Secret(hex.EncodeToString(b[:]))
}

// defaultVerifyDays is how often each image is read whole where nothing is said.
const defaultVerifyDays = 30

// CreateRepository makes a repository and registers it. One that has a password
// is there already, made by this installation or by another: it is attached.
// Errors: Invalid, Conflict (name, place), RepositoryUnreachable.
func (p *Planner) CreateRepository(ctx context.Context, r RepositoryRecord) (RepositoryRecord, error) {
	if err := p.freeName(ctx, r.Name); err != nil {
		return RepositoryRecord{}, fmt.Errorf("create repository %q: %w", r.Name, err)
	}
	err := p.Store.View(ctx, func(tx Tx) error {
		r.ID = NewID(tx.Now())
		return nil
	})
	if err == nil {
		r, err = p.makeRepository(ctx, r)
	}
	if err != nil {
		return RepositoryRecord{}, fmt.Errorf("create repository %q: %w", r.Name, err)
	}
	var done RepositoryRecord
	err = p.Store.Update(ctx, func(tx Tx) error {
		if err := notRegistered(ctx, tx, r); err != nil {
			return err
		}
		done = r
		return tx.InsertRepository(ctx, &done)
	})
	if err != nil {
		return RepositoryRecord{}, fmt.Errorf("create repository %q: %w", r.Name, err)
	}
	return done, nil
}

// notRegistered refuses a repository that has a record already: by two of them
// it would be collected twice at the same time.
func notRegistered(ctx context.Context, tx Tx, r RepositoryRecord) error {
	all, _, err := tx.Repositories(ctx, Page{Limit: 1000})
	if err != nil {
		return err
	}
	for _, o := range all {
		if r.UniqueID != "" && o.UniqueID == r.UniqueID {
			return Errorf(Conflict, "settings", "This repository is registered already, as %q.", o.Name)
		}
	}
	return nil
}

// makeRepository fills in what is known once the repository is there. Until the
// record is stored nobody opens what was made, so that it can be made anew.
func (p *Planner) makeRepository(ctx context.Context, r RepositoryRecord) (_ RepositoryRecord, err error) {
	r.OwnedBy, r.FreeBytes = p.Installation, -1
	if r.Compression == "" {
		r.Compression = "s2"
	}
	if r.VerifyDays == 0 {
		r.VerifyDays = defaultVerifyDays
	}
	if r.Password == "" {
		r.Password = NewPassword()
		r.UniqueID, err = p.Repositories.Create(ctx, r)
		return r, err
	}
	var owner string
	if r.UniqueID, owner, err = p.Repositories.Attach(ctx, r); owner != "" {
		r.OwnedBy = owner
	}
	return r, err
}

// repositoryRecord reads a record.
func (p *Planner) repositoryRecord(ctx context.Context, id string) (r RepositoryRecord, err error) {
	err = p.Store.View(ctx, func(tx Tx) (err error) {
		r, err = tx.Repository(ctx, id)
		return err
	})
	return r, err
}

func (p *Planner) freeName(ctx context.Context, name string) error {
	return p.Store.View(ctx, func(tx Tx) error {
		_, err := tx.RepositoryByName(ctx, name)
		switch {
		case CodeOf(err) == NotFound:
			return nil
		case err != nil:
			return err
		}
		return Errorf(Conflict, "name", "There is a repository %q already; choose another name.", name)
	})
}

// TakeOverRepository makes this installation the owner of a repository that
// another one owned. Errors: NotFound, Conflict (read-only), RepositoryUnreachable.
func (p *Planner) TakeOverRepository(ctx context.Context, id string) (RepositoryRecord, error) {
	r, err := p.repositoryRecord(ctx, id)
	if err == nil {
		_, err = p.Repositories.TakeOver(ctx, r)
	}
	if err != nil {
		return RepositoryRecord{}, fmt.Errorf("take over repository %s: %w", id, err)
	}
	if r.Foreign(p.Installation) { // while it is, nothing of it ends
		if err := p.stayAWhile(ctx, id); err != nil {
			return RepositoryRecord{}, fmt.Errorf("take over repository %s: %w", id, err)
		}
	}
	err = p.Store.Update(ctx, func(tx Tx) (err error) {
		if r, err = tx.Repository(ctx, id); err != nil || r.OwnedBy == p.Installation {
			return err
		}
		r.OwnedBy = p.Installation
		return tx.UpdateRepository(ctx, &r)
	})
	return r, err
}

// stayAWhile lets no image end soon that was kept as its repository could only
// be read: what its former owner knew of it may not be known here.
func (p *Planner) stayAWhile(ctx context.Context, repositoryID string) error {
	f := ImageFilter{RepositoryID: repositoryID, Page: Page{Limit: 500}}
	for more := true; more; more = f.Cursor != "" {
		var next string
		err := p.Store.Update(ctx, func(tx Tx) error {
			soonest := tx.Now().Add(rebuiltStays)
			images, cursor, err := tx.Images(ctx, f)
			if err != nil {
				return err
			}
			next = cursor
			for _, i := range images {
				if i.Status == ImageExpired || i.ExpiresAt.IsZero() || !i.ExpiresAt.Before(soonest) {
					continue
				}
				i.ExpiresAt = soonest
				if err := tx.UpdateImage(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		f.Cursor = next
	}
	return nil
}
