package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A database that was put back from a copy knows nothing of what was done since
// the copy was made: it would run old jobs once more, end images that have been
// held since, and take living snapshots for left-overs. So the installation
// leaves a mark in each repository that it owns, a new one every hour and at
// each start, and notes it in the database before. A repository whose mark the
// database does not know was written to by a newer one, or by a second server
// that runs on a copy of this one. Then nothing is begun until an operator says
// which of the two goes on.

// DatabaseMark is what lies in a repository.
type DatabaseMark struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// DatabaseMarks leaves marks in repositories.
type DatabaseMarks interface {
	// DatabaseMark reads the mark; its ID is "" where none lies, or that of
	// another installation.
	DatabaseMark(ctx context.Context, r RepositoryRecord) (DatabaseMark, error)
	// LeaveDatabaseMark replaces it. What another installation owns stays as it is.
	LeaveDatabaseMark(ctx context.Context, r RepositoryRecord, m DatabaseMark) error
}

// OldDatabase says that the database is older than what was done with it.
type OldDatabase struct {
	FoundAt    time.Time `json:"found_at"`
	Repository string    `json:"repository,omitempty"` // whose mark says so; "" = the database says itself that it is a copy
	WrittenAt  time.Time `json:"written_at"`           // when that mark was left; of a copy, when it was made
}

// Message tells what was found, and what to do.
func (o OldDatabase) Message() string {
	const remedy = "If no other server of this installation runs any more: kura catalog adopt --yes. Until then nothing is begun, ended or removed here."
	if o.Repository == "" {
		return fmt.Sprintf("This database is a copy that was made at %s. %s", instantText(o.WrittenAt), remedy)
	}
	return fmt.Sprintf("The repository %q was written to at %s by this installation with a newer database than this one: either this one was put back from a copy, or another server runs on a copy of it. %s",
		o.Repository, instantText(o.WrittenAt), remedy)
}

// The settings in which it is kept.
const (
	settingOldDatabase = "old_database"
	settingAdoptedAt   = "database_adopted_at"
	settingMarks       = "database_marks:" // and the repository's own id

	// SettingCopiedAt stands in a copy of the database, and says when it was made.
	SettingCopiedAt = "database_copied_at"
)

const (
	markEvery  = time.Hour
	marksKnown = 8 // as a server that was halted may leave one of before
)

// FindOldDatabase tells whether the database was found to be old; nil = it was not.
func FindOldDatabase(ctx context.Context, tx SettingTx) (*OldDatabase, error) {
	return setting[*OldDatabase](ctx, tx, settingOldDatabase)
}

// setting reads a setting that is kept as JSON; zero = it is not set.
func setting[T any](ctx context.Context, tx SettingTx, name string) (v T, err error) {
	text, found, err := tx.Setting(ctx, name)
	if err != nil || !found || text == "" {
		return v, err
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return v, fmt.Errorf("setting %s: %w", name, err)
	}
	return v, nil
}

func setSetting(ctx context.Context, tx SettingTx, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("setting %s: %w", name, err)
	}
	return tx.SetSetting(ctx, name, string(b))
}

// Lineage finds out whether the database is the newest of its installation.
type Lineage struct {
	Store        Store
	Marks        DatabaseMarks
	Installation string
	Reach        []string // labels of what this server reaches; nil = everything
}

// Old tells whether the database was found to be old; nil = it was not.
func (l *Lineage) Old(ctx context.Context) (old *OldDatabase, err error) {
	err = l.Store.View(ctx, func(tx Tx) (err error) {
		old, err = FindOldDatabase(ctx, tx)
		return err
	})
	return old, err
}

// Check looks at the marks of all repositories that this server reaches and
// leaves new ones: those that are an hour old, at a start all. It returns what
// it could not look at as an error, having looked at the others.
func (l *Lineage) Check(ctx context.Context, start bool) (*OldDatabase, error) {
	var records []RepositoryRecord
	err := l.Store.Update(ctx, func(tx Tx) (err error) {
		if err := l.confess(ctx, tx); err != nil {
			return err
		}
		records, _, err = tx.Repositories(ctx, Page{Limit: 1000})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look whether the database is old: %w", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(records))
	for n, r := range records {
		if r.ReadOnly || r.UniqueID == "" || r.Foreign(l.Installation) || !ReachesRepository(l.Reach, r) {
			continue
		}
		wg.Go(func() {
			if err := l.checkOne(ctx, r, start); err != nil {
				errs[n] = fmt.Errorf("look at the mark in repository %s: %w", r.Name, err)
			}
		})
	}
	wg.Wait()
	old, err := l.Old(ctx)
	return old, errors.Join(errors.Join(errs...), err)
}

// confess notes that the database says of itself that it is a copy.
func (l *Lineage) confess(ctx context.Context, tx Tx) error {
	at, err := setting[time.Time](ctx, tx, SettingCopiedAt)
	if err != nil || at.IsZero() {
		return err
	}
	return foundOld(ctx, tx, OldDatabase{FoundAt: tx.Now(), WrittenAt: at})
}

// foundOld keeps what was found first.
func foundOld(ctx context.Context, tx Tx, o OldDatabase) error {
	had, err := FindOldDatabase(ctx, tx)
	if err != nil || had != nil {
		return err
	}
	return setSetting(ctx, tx, settingOldDatabase, o)
}

func (l *Lineage) checkOne(ctx context.Context, r RepositoryRecord, start bool) error {
	there, err := l.Marks.DatabaseMark(ctx, r)
	if err != nil {
		return err
	}
	var next DatabaseMark
	err = l.Store.Update(ctx, func(tx Tx) (err error) {
		next, err = nextMark(ctx, tx, r, there, start)
		return err
	})
	if err != nil || next.ID == "" {
		return err
	}
	return l.Marks.LeaveDatabaseMark(ctx, r, next)
}

// nextMark is the mark to leave where that one lies; its ID is "" where none is
// to be left. It is noted before it is left.
func nextMark(ctx context.Context, tx Tx, r RepositoryRecord, there DatabaseMark, start bool) (none DatabaseMark, err error) {
	known, err := setting[[]DatabaseMark](ctx, tx, settingMarks+r.UniqueID)
	if err != nil {
		return none, err
	}
	newest, err := setting[time.Time](ctx, tx, settingAdoptedAt)
	if err != nil {
		return none, err
	}
	for _, m := range known {
		newest = latest(newest, m.At)
	}
	ours := there.ID == "" || slices.ContainsFunc(known, func(m DatabaseMark) bool { return m.ID == there.ID })
	if !ours && there.At.After(newest) {
		return none, foundOld(ctx, tx, OldDatabase{FoundAt: tx.Now(), Repository: r.Name, WrittenAt: there.At})
	}
	if old, err := FindOldDatabase(ctx, tx); err != nil || old != nil {
		return none, err // the other one's mark stays, for it to know itself by
	}
	if n := len(known); n > 0 && there.ID != known[n-1].ID && ours {
		return known[n-1], nil // it was noted, and perhaps not left
	}
	if n := len(known); n > 0 && ours && !start && tx.Now().Sub(known[n-1].At).Abs() < markEvery {
		return none, nil
	}
	next := DatabaseMark{ID: NewID(tx.Now()), At: tx.Now()}
	known = append(known, next)
	return next, setSetting(ctx, tx, settingMarks+r.UniqueID, known[max(0, len(known)-marksKnown):])
}
