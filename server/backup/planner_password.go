package backup

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// passwordPatience is how long a server leaves a change of password to the one
// that began it.
const passwordPatience = time.Minute

// ChangeRepositoryPassword gives a repository a new random password, which is
// told to nobody: a recovery sheet holds it. The next one is stored before the
// change, so that wherever this is cut off one of the two known passwords opens
// it. Errors: NotFound, Conflict (read-only, another installation's),
// RepositoryUnreachable.
func (p *Planner) ChangeRepositoryPassword(ctx context.Context, id string) (RepositoryRecord, error) {
	var r RepositoryRecord
	err := p.Store.Update(ctx, func(tx Tx) (err error) {
		if r, err = tx.Repository(ctx, id); err != nil {
			return err
		}
		if r.ReadOnly || r.Foreign(p.Installation) {
			return Errorf(Conflict, "", "The repository %q can only be read from here, so its password cannot be changed. Lift read_only or take it over first.", r.Name)
		}
		if r.NextPassword != "" {
			return nil // a change that was cut off goes on
		}
		r.NextPassword = NewPassword()
		return tx.UpdateRepository(ctx, &r)
	})
	if err != nil {
		return RepositoryRecord{}, fmt.Errorf("change password of repository %s: %w", id, err)
	}
	return p.promotePassword(ctx, r)
}

// promotePassword changes the password in the storage, and then here. A sheet
// of before is out of date.
func (p *Planner) promotePassword(ctx context.Context, r RepositoryRecord) (RepositoryRecord, error) {
	if err := p.Repositories.ChangePassword(ctx, r); err != nil {
		return RepositoryRecord{}, fmt.Errorf("change password of repository %q: %w", r.Name, err)
	}
	var done RepositoryRecord
	err := p.Store.Update(context.WithoutCancel(ctx), func(tx Tx) (err error) {
		if done, err = tx.Repository(ctx, r.ID); err != nil || done.NextPassword != r.NextPassword {
			return err // another server was first
		}
		done.Password, done.NextPassword = done.NextPassword, ""
		done.lapse(tx.Now())
		return tx.UpdateRepository(ctx, &done)
	})
	if err != nil {
		return RepositoryRecord{}, fmt.Errorf("store password of repository %q: %w", r.Name, err)
	}
	return done, nil
}

// FinishPassword ends a change of password that was cut off. One that began
// just now is left to the server that is at it.
func (p *Planner) FinishPassword(ctx context.Context, id string) error {
	var r RepositoryRecord
	var waits bool
	err := p.Store.View(ctx, func(tx Tx) (err error) {
		r, err = tx.Repository(ctx, id)
		waits = tx.Now().Sub(r.UpdatedAt) < passwordPatience
		return err
	})
	if err != nil || waits || r.NextPassword == "" || r.ReadOnly || r.Foreign(p.Installation) {
		return err
	}
	_, err = p.promotePassword(ctx, r)
	return err
}

// RecoverySheet returns all that opens a repository without this server, and
// notes that it was given out. recipient "" = that of the installation, where
// it has one. Errors: NotFound, Invalid (recipient), RepositoryUnreachable.
func (p *Planner) RecoverySheet(ctx context.Context, id, recipient string) (Secret, error) {
	r, err := p.repositoryRecord(ctx, id)
	if err == nil && r.NextPassword != "" { // a sheet with a password of yesterday would be worse than none
		r, err = p.promotePassword(ctx, r)
	}
	if err != nil {
		return "", err
	}
	if recipient == "" {
		recipient = p.AgeRecipient
	}
	sheet, err := p.Repositories.RecoverySheet(r, recipient)
	if err != nil {
		return "", err
	}
	return sheet, p.Store.Update(ctx, func(tx Tx) error {
		c, err := tx.Repository(ctx, id)
		if err != nil || c.Password != r.Password || !maps.Equal(c.Settings, r.Settings) {
			return err // what it says is not so any more
		}
		c.SheetAt, c.SheetLapsedAt = tx.Now(), time.Time{}
		return tx.SaveRepositoryNotes(ctx, c)
	})
}
