package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// Recovery says how the data folder of a server that is gone is made anew.
type Recovery struct {
	Sheet     string    // text of a repository's recovery sheet
	Data      string    // folder to make; it must hold no database and no key
	Before    time.Time // take the newest copy up to then; zero = the newest
	LookupEnv func(name string) (string, bool)
	Log       *slog.Logger // default: slog.Default
}

// Recovered tells what was recovered.
type Recovered struct {
	At        time.Time // of the copy
	Others    []time.Time
	TokenFile string // of a new operator's token
}

// Recover makes a data folder of the copy of the database that a repository
// holds. The server that starts on it finds that its database is a copy, and
// begins nothing until that is adopted. Errors: Invalid, Conflict, NotFound.
func Recover(ctx context.Context, r Recovery) (done Recovered, err error) {
	r.Log = cmp.Or(r.Log, slog.Default())
	rec, err := repository.ReadSheet(r.Sheet)
	if err != nil {
		return done, err
	}
	for _, name := range []string{copiedDatabase, copiedKey} {
		if file := filepath.Join(r.Data, name); exists(file) {
			return done, backup.Errorf(backup.Conflict, "data", "There is a file %s already, which is left as it is. Name an empty folder, or put that file away first.", file)
		}
	}
	if err := os.MkdirAll(r.Data, 0o700); err != nil {
		return done, fmt.Errorf("make the data folder: %w", err)
	}
	work, err := os.MkdirTemp(r.Data, "recovering-*")
	if err != nil {
		return done, fmt.Errorf("make a folder for the copy: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if done, err = r.fetch(ctx, rec, work); err != nil {
		return done, err
	}
	if done.TokenFile, err = r.prepare(ctx, rec, work); err != nil {
		return done, err
	}
	for _, name := range []string{copiedKey, filepath.Base(done.TokenFile), copiedDatabase} { // a database without its key opens nothing
		if err := os.Rename(filepath.Join(work, name), filepath.Join(r.Data, name)); err != nil {
			return done, fmt.Errorf("put %s in its place: %w", name, err)
		}
	}
	return done, syncFolder(r.Data)
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return !errors.Is(err, fs.ErrNotExist)
}

// fetch brings the copy's files.
func (r Recovery) fetch(ctx context.Context, rec backup.RepositoryRecord, work string) (done Recovered, err error) {
	rs := repository.New(repository.Config{Dir: filepath.Join(work, "cache"), Log: r.Log, LookupEnv: r.LookupEnv})
	defer func() { err = errors.Join(err, rs.Close(context.WithoutCancel(ctx))) }()
	all, err := rs.DatabaseCopies(ctx, rec)
	if err != nil {
		return done, err
	}
	for _, c := range all {
		done.Others = append(done.Others, c.At)
	}
	n := slices.IndexFunc(all, func(c backup.DatabaseCopy) bool { return r.Before.IsZero() || !c.At.After(r.Before) })
	if n < 0 && len(all) > 0 {
		return done, backup.Errorf(backup.NotFound, "copy", "The repository holds no copy of the database of %s or before: the oldest is of %s.",
			r.Before.UTC().Format(time.RFC3339), all[len(all)-1].At.UTC().Format(time.RFC3339))
	}
	if n < 0 {
		return done, backup.Errorf(backup.NotFound, "", "The repository holds no copy of a database. Its images can be listed all the same: start an empty server (kura serve), attach the repository "+
			"(kura repository create --read-only --password-file), and rebuild (kura catalog rebuild).")
	}
	done.At, done.Others = all[n].At, slices.Delete(done.Others, n, n+1)
	names, err := rs.FetchDatabase(ctx, rec, all[n].Ref, work)
	if err != nil {
		return done, err
	}
	for _, name := range []string{copiedDatabase, copiedKey} {
		if !slices.Contains(names, name) {
			return done, fmt.Errorf("the copy of the database lacks %s: it has %s", name, strings.Join(names, ", "))
		}
	}
	return done, nil
}

// prepare makes a token, as the text of none is in a database, and notes what
// the sheet knows better than the copy: where the repository lies now.
func (r Recovery) prepare(ctx context.Context, rec backup.RepositoryRecord, work string) (tokenFile string, err error) {
	key, err := loadKey(filepath.Join(work, copiedKey))
	if err != nil {
		return "", err
	}
	db, err := store.Open(ctx, store.Config{DSN: "sqlite:" + filepath.Join(work, copiedDatabase), Key: key, Log: r.Log, Migrate: true})
	if err != nil {
		return "", fmt.Errorf("open the copy of the database: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	text := auth.NewText()
	t := auth.Token{Name: "recovered " + time.Now().UTC().Format("2006-01-02 15:04:05"), Role: auth.Operator, Hash: auth.Hash(text.Reveal())}
	if err := db.InsertToken(ctx, &t); err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	if err := db.Update(ctx, func(tx backup.Tx) error { return moved(ctx, tx, rec) }); err != nil {
		return "", fmt.Errorf("note where the repository lies: %w", err)
	}
	name := "operator.token"
	if exists(filepath.Join(r.Data, name)) {
		name = "recovered.token"
	}
	return filepath.Join(r.Data, name), writeSecret(filepath.Join(work, name), text.Reveal())
}

// moved gives the repository of the sheet the place and the password by which
// the copy was read just now. What is given by reference stays so.
func moved(ctx context.Context, tx backup.Tx, sheet backup.RepositoryRecord) error {
	all, _, err := tx.Repositories(ctx, backup.Page{Limit: 1000})
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.UniqueID != sheet.UniqueID {
			continue
		}
		for name, v := range sheet.Settings {
			if old := r.Settings[name]; !strings.HasPrefix(old, "env:") && !strings.HasPrefix(old, "file:") {
				r.Settings[name] = v
			}
		}
		r.Password, r.NextPassword = sheet.Password, ""
		if err := tx.UpdateRepository(ctx, &r); err != nil {
			return err
		}
	}
	return nil
}
