package repository

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// A copy of the database is a snapshot of plain files, which the stock program
// restores as well. Collections keep it as they keep what others have stored.
const (
	kindDatabase = "database"
	databasePath = "/database"
)

// mine opens the repository of rec as this package knows it.
func (rs *Repositories) mine(ctx context.Context, rec backup.RepositoryRecord) (*repository, error) {
	r, err := rs.Repository(ctx, rec)
	if err != nil {
		return nil, err
	}
	return r.(*repository), nil
}

// KeepDatabase stores files as a copy of the database.
func (rs *Repositories) KeepDatabase(ctx context.Context, rec backup.RepositoryRecord, at time.Time, files []backup.CopiedFile) error {
	r, err := rs.mine(ctx, rec)
	if err == nil {
		err = r.writable()
	}
	if err == nil {
		err = r.stillOwned(ctx)
	}
	if err != nil {
		return err
	}
	err = repo.WriteSession(ctx, r.repo, repo.WriteSessionOptions{Purpose: "copy of the database"},
		func(ctx context.Context, w repo.RepositoryWriter) error {
			s, err := storeFiles(ctx, w, at, files)
			if err != nil {
				return err
			}
			s.Source = snapshot.SourceInfo{Host: rs.cfg.Installation, UserName: sourceUser, Path: databasePath}
			s.Tags = map[string]string{tagKind: kindDatabase, tagInstallation: rs.cfg.Installation}
			_, err = snapshot.SaveSnapshot(ctx, w, s)
			return err
		})
	return explain(ctx, r.store, "store the copy of the database", err)
}

// storeFiles stores files and their folder, and returns its snapshot.
func storeFiles(ctx context.Context, w repo.RepositoryWriter, at time.Time, files []backup.CopiedFile) (*snapshot.Manifest, error) {
	when := fs.UTCTimestampFromTime(at)
	var b snapshotfs.DirManifestBuilder
	var total int64
	for _, f := range files {
		id, n, err := storeFile(ctx, w, f)
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", f.Name, err)
		}
		total += n
		b.AddEntry(&snapshot.DirEntry{Name: f.Name, Type: snapshot.EntryTypeFile, Permissions: fileMode, FileSize: n, ModTime: when, ObjectID: id})
	}
	dir := b.Build(when, "")
	id, err := snapshotfs.WriteDirManifest(ctx, w, ".", dir, metaCompression)
	if err != nil {
		return nil, fmt.Errorf("store folder: %w", err)
	}
	return &snapshot.Manifest{
		Description: "database of Kura", StartTime: when, EndTime: when, Pins: []string{pin},
		RootEntry: &snapshot.DirEntry{Name: "database", Type: snapshot.EntryTypeDirectory, Permissions: dirMode, ModTime: when, ObjectID: id, DirSummary: dir.Summary},
		Stats:     snapshot.Stats{TotalFileSize: total, TotalFileCount: int32(len(files)), TotalDirectoryCount: 1}, //nolint:gosec // a few files
	}, nil
}

func storeFile(ctx context.Context, w repo.RepositoryWriter, f backup.CopiedFile) (id object.ID, n int64, err error) {
	in, err := os.Open(f.Path)
	if err != nil {
		return id, 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	o := w.NewObjectWriter(ctx, object.WriterOptions{Description: f.Name, Compressor: metaCompression, MetadataCompressor: metaCompression})
	defer func() { err = errors.Join(err, o.Close()) }()
	if n, err = io.Copy(o, in); err != nil {
		return id, n, err
	}
	id, err = o.Result()
	return id, n, err
}

// databases lists the snapshots that are copies of databases.
func (r *repository) databases(ctx context.Context) ([]*snapshot.Manifest, error) {
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	if err := r.manifests.update(ctx, r.repo.ContentReader()); err != nil {
		return nil, explainRead(ctx, r.store, "list copies of the database", err)
	}
	var all []*snapshot.Manifest
	for _, s := range r.manifests.snapshots() {
		if s.kind != kindDatabase {
			continue
		}
		m, err := s.parse()
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *snapshot.Manifest) int {
		return cmp.Or(b.StartTime.ToTime().Compare(a.StartTime.ToTime()), cmp.Compare(b.ID, a.ID))
	})
	return all, nil
}

// DatabaseCopies lists the copies of all installations, newest first.
func (rs *Repositories) DatabaseCopies(ctx context.Context, rec backup.RepositoryRecord) ([]backup.DatabaseCopy, error) {
	r, err := rs.mine(ctx, rec)
	if err != nil {
		return nil, err
	}
	there, err := r.databases(ctx)
	all := make([]backup.DatabaseCopy, len(there))
	for n, m := range there {
		all[n] = backup.DatabaseCopy{Ref: string(m.ID), Installation: m.Tags[tagInstallation], At: m.StartTime.ToTime(), Bytes: m.Stats.TotalFileSize}
	}
	return all, err
}

// ForgetDatabase takes copies away. Their space comes back with collections.
func (rs *Repositories) ForgetDatabase(ctx context.Context, rec backup.RepositoryRecord, refs []string) error {
	r, err := rs.mine(ctx, rec)
	if err == nil {
		err = r.writable()
	}
	if err != nil {
		return err
	}
	ids := make([]manifest.ID, len(refs))
	for n, ref := range refs {
		ids[n] = manifest.ID(ref)
	}
	err = repo.WriteSession(ctx, r.repo, repo.WriteSessionOptions{Purpose: "forget copies of the database"},
		func(ctx context.Context, w repo.RepositoryWriter) error { return r.manifests.drop(ctx, w, ids) })
	return explain(ctx, r.store, "forget copies of the database", err)
}

// FetchDatabase writes the files of a copy into a folder that is there, and
// returns their names.
func (rs *Repositories) FetchDatabase(ctx context.Context, rec backup.RepositoryRecord, ref, folder string) (names []string, err error) {
	r, err := rs.mine(ctx, rec)
	if err != nil {
		return nil, err
	}
	there, err := r.databases(ctx)
	if err != nil {
		return nil, err
	}
	n := slices.IndexFunc(there, func(m *snapshot.Manifest) bool { return string(m.ID) == ref })
	if n < 0 {
		return nil, backup.Errorf(backup.NotFound, "", "There is no copy %s of the database in the repository at %s.", ref, r.store.location())
	}
	b, err := r.readObject(ctx, there[n].RootObjectID())
	if err != nil {
		return nil, explainRead(ctx, r.store, "read the copy of the database", err)
	}
	var dir snapshot.DirManifest
	if err := json.Unmarshal(b, &dir); err != nil {
		return nil, fmt.Errorf("parse folder: %w", err)
	}
	for _, e := range dir.Entries {
		if !filepath.IsLocal(e.Name) || filepath.Base(e.Name) != e.Name {
			return nil, fmt.Errorf("the copy of the database holds a file with the name %q", e.Name)
		}
		if err := r.fetch(ctx, e.ObjectID, filepath.Join(folder, e.Name)); err != nil {
			return nil, explainRead(ctx, r.store, "read the copy of the database", err)
		}
		names = append(names, e.Name)
	}
	return names, nil
}

func (r *repository) fetch(ctx context.Context, id object.ID, file string) (err error) {
	o, err := r.repo.OpenObject(ctx, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, o)
	return errors.Join(err, f.Sync(), f.Close())
}
