package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A copy of the database lies in each repository that the installation writes
// to, so that the loss of the server costs a day and not everything. It holds
// the installation's key as well: without it vcenters could not be logged in to.

const (
	copyDatabaseEvery = 24 * time.Hour
	// firstDatabaseCopy is how long a repository is known before the first copy.
	firstDatabaseCopy = time.Hour
	databaseCopies    = 7 // are kept in a repository
	settingCopied     = "database_copy:"
)

// DatabaseCopy is one that lies in a repository.
type DatabaseCopy struct {
	Ref          string
	Installation string
	At           time.Time
	Bytes        int64
}

// CopiedFile is a file of this machine that goes into a copy.
type CopiedFile struct{ Name, Path string }

// DatabaseCopier makes a copy of the database on this machine. done removes it.
// Errors: Conflict (it cannot be copied by the server).
type DatabaseCopier interface {
	CopyDatabase(ctx context.Context) (files []CopiedFile, done func() error, err error)
}

// DatabaseCopies keeps copies in repositories.
type DatabaseCopies interface {
	KeepDatabase(ctx context.Context, r RepositoryRecord, at time.Time, files []CopiedFile) error
	// DatabaseCopies lists the copies of all installations, newest first.
	DatabaseCopies(ctx context.Context, r RepositoryRecord) ([]DatabaseCopy, error)
	ForgetDatabase(ctx context.Context, r RepositoryRecord, refs []string) error
}

// CopiedDatabase tells how the copies in a repository stand.
type CopiedDatabase struct {
	SeenAt time.Time `json:"seen_at"`         // when the repository was looked at first
	At     time.Time `json:"at"`              // of the last good copy; zero = there is none
	Error  string    `json:"error,omitempty"` // why the last try failed; "" = it did not
}

// FindCopiedDatabase tells how the copies in a repository stand.
func FindCopiedDatabase(ctx context.Context, tx SettingTx, r RepositoryRecord) (CopiedDatabase, error) {
	return setting[CopiedDatabase](ctx, tx, settingCopied+r.ID)
}

// Warning tells an operator what to see to; "" = nothing.
func (c CopiedDatabase) Warning(now time.Time) string {
	if c.Error == "" || now.Sub(latest(c.SeenAt, c.At)) < 3*copyDatabaseEvery {
		return ""
	}
	last := "none was made yet"
	if !c.At.IsZero() {
		last = "the last one is of " + instantText(c.At)
	}
	return fmt.Sprintf("The database could not be copied into it: %s; %s.", strings.TrimSuffix(c.Error, "."), last)
}

// DatabaseKeeper keeps copies of the database. All fields are required.
type DatabaseKeeper struct {
	Store        Store
	Copier       DatabaseCopier
	Copies       DatabaseCopies
	Installation string
	Reach        []string // labels of what this server reaches; nil = everything
}

// KeepDue copies the database into the repositories whose last copy is a day
// old. What failed is noted, returned, and tried again at the next call.
func (k *DatabaseKeeper) KeepDue(ctx context.Context) error {
	var due []RepositoryRecord
	err := k.Store.Update(ctx, func(tx Tx) error {
		due = nil
		all, _, err := tx.Repositories(ctx, Page{Limit: 1000})
		if err != nil {
			return err
		}
		for _, r := range all {
			if r.ReadOnly || r.UniqueID == "" || r.Foreign(k.Installation) || !ReachesRepository(k.Reach, r) {
				continue
			}
			is, err := copyIsDue(ctx, tx, r)
			if err != nil {
				return err
			}
			if is {
				due = append(due, r)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for copies of the database that are due: %w", err)
	}
	return k.keep(ctx, due)
}

func copyIsDue(ctx context.Context, tx Tx, r RepositoryRecord) (bool, error) {
	c, err := FindCopiedDatabase(ctx, tx, r)
	switch {
	case err != nil:
		return false, err
	case c.SeenAt.IsZero():
		return false, setSetting(ctx, tx, settingCopied+r.ID, CopiedDatabase{SeenAt: tx.Now()})
	case c.At.IsZero():
		return tx.Now().Sub(c.SeenAt).Abs() >= firstDatabaseCopy, nil
	}
	return tx.Now().Sub(c.At).Abs() >= copyDatabaseEvery, nil
}

// Keep copies the database into one repository now.
func (k *DatabaseKeeper) Keep(ctx context.Context, repositoryID string) (r RepositoryRecord, err error) {
	err = k.Store.View(ctx, func(tx Tx) (err error) {
		r, err = tx.Repository(ctx, repositoryID)
		return err
	})
	if err == nil && (r.ReadOnly || r.Foreign(k.Installation)) {
		err = Errorf(Conflict, "", "The repository %q can only be read from here: the database is copied into one that this installation writes to.", r.Name)
	}
	if err == nil {
		err = k.keep(ctx, []RepositoryRecord{r})
	}
	return r, err
}

func (k *DatabaseKeeper) keep(ctx context.Context, due []RepositoryRecord) (err error) {
	if len(due) == 0 {
		return nil
	}
	files, done, err := k.Copier.CopyDatabase(ctx)
	if err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	var errs []error
	for _, r := range due {
		if err := k.keepIn(ctx, r, files); err != nil {
			errs = append(errs, fmt.Errorf("copy the database into repository %s: %w", r.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (k *DatabaseKeeper) keepIn(ctx context.Context, r RepositoryRecord, files []CopiedFile) error {
	var now time.Time
	err := k.Store.View(ctx, func(tx Tx) error { now = tx.Now(); return nil })
	if err != nil {
		return err
	}
	err = k.Copies.KeepDatabase(ctx, r, now, files)
	if err == nil {
		err = k.forget(ctx, r)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, k.Store.Update(ctx, func(tx Tx) error {
		c, ferr := FindCopiedDatabase(ctx, tx, r)
		if ferr != nil {
			return ferr
		}
		if c.SeenAt.IsZero() {
			c.SeenAt = now
		}
		c.Error = ""
		switch e := AsError(err); {
		case err == nil:
			c.At = now
		case e != nil:
			c.Error = e.Message
		default:
			c.Error = "see the server's log"
		}
		return setSetting(ctx, tx, settingCopied+r.ID, c)
	}))
}

// forget takes away our copies but the newest.
func (k *DatabaseKeeper) forget(ctx context.Context, r RepositoryRecord) error {
	all, err := k.Copies.DatabaseCopies(ctx, r)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(c DatabaseCopy) bool { return c.Installation != k.Installation })
	if len(all) <= databaseCopies {
		return nil
	}
	var refs []string
	for _, c := range all[databaseCopies:] {
		refs = append(refs, c.Ref)
	}
	return k.Copies.ForgetDatabase(ctx, r, refs)
}

// CopyDatabase copies the database into a repository now. Errors: NotFound,
// Conflict (it can only be read, or the server cannot copy its database).
func (p *Planner) CopyDatabase(ctx context.Context, repositoryID string) (RepositoryRecord, error) {
	if p.Databases == nil {
		return RepositoryRecord{}, Errorf(Conflict, "", "This server copies no database into repositories.")
	}
	return p.Databases.Keep(ctx, repositoryID)
}
