package repository

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// KindFilesystem is a repository in a folder; its setting is "path".
const KindFilesystem = "filesystem"

// settingPath is the folder of a KindFilesystem.
const settingPath = "path"

// NewPassword returns a password of 256 random bits.
func NewPassword() backup.Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: the runtime ends the process instead
	return backup.Secret(hex.EncodeToString(b[:]))
}

// Create makes the repository of rec and returns its own id. It may be called
// again with the same record, and after a creation that was cut short before
// the repository was first opened. It refuses with [backup.Conflict] what
// belongs to another installation or is not empty.
func (rs *Repositories) Create(ctx context.Context, rec backup.RepositoryRecord) (string, error) {
	if err := check(rec); err != nil {
		return "", err
	}
	if err := prepareFolder(rec.Settings[settingPath]); err != nil {
		return "", err
	}
	s, err := rs.openStorage(ctx, rec, true)
	if err != nil {
		return "", err
	}
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
		return "", backup.Errorf(backup.Conflict, "settings.path",
			"The folder %s holds a repository of installation %s. Choose an empty folder, or attach that repository.",
			s.location(), m.Installation)
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
		return "", backup.Errorf(backup.Conflict, "settings.path",
			"The folder %s holds another repository of this installation. Choose an empty folder.", s.location())
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
		return "", backup.Errorf(backup.Conflict, "settings.path",
			"The folder %s holds data of this installation under another password. Choose an empty folder.", s.location())
	}
	for _, id := range left {
		if err := s.DeleteBlob(ctx, id); err != nil {
			return "", fmt.Errorf("remove %s: %w", id, err)
		}
	}
	if err := initialize(ctx, s, rec.Password); err != nil {
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

// refuseStranger refuses a folder that holds anything that is not ours.
func refuseStranger(ctx context.Context, s storage) error {
	_, err := s.GetMetadata(ctx, formatBlob)
	if err == nil {
		return backup.Errorf(backup.Conflict, "settings.path",
			"The folder %s holds a kopia repository that kura did not make. Choose an empty folder.", s.location())
	}
	if !errors.Is(err, blob.ErrBlobNotFound) {
		return err
	}
	return nil
}

// prepareFolder makes the folder and refuses one in which others keep files.
func prepareFolder(path string) error {
	if err := os.MkdirAll(path, dirMode); err != nil {
		return unreachable(path, err).Because(err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return unreachable(path, err).Because(err)
	}
	ours := []string{layoutFile, string(markBlob), string(formatBlob), format.KopiaBlobCfgBlobID}
	known := func(e os.DirEntry) bool {
		name := e.Name()
		if i := strings.Index(name, tmpMark); i >= 0 {
			name = name[:i]
		}
		return slices.Contains(ours, strings.TrimSuffix(name, ".f"))
	}
	if slices.ContainsFunc(entries, known) {
		return nil // what it is will show
	}
	for _, e := range entries {
		if e.Name() != lostAndFound {
			return backup.Errorf(backup.Conflict, "settings.path",
				"The folder %s is not empty: it holds %q. Choose an empty folder.", path, e.Name())
		}
	}
	return nil
}

// check refuses records that no repository can be made of.
func check(rec backup.RepositoryRecord) error {
	if rec.Kind != KindFilesystem {
		return backup.Errorf(backup.Invalid, "kind", "There is no kind of repository %q; choose %q.", rec.Kind, KindFilesystem)
	}
	if !filepath.IsAbs(rec.Settings[settingPath]) {
		return backup.Errorf(backup.Invalid, "settings.path", "The path %q must be absolute.", rec.Settings[settingPath])
	}
	if _, ok := compressions[rec.Compression]; !ok {
		return backup.Errorf(backup.Invalid, "compression",
			"There is no compression %q; choose s2, zstd-fastest or none.", rec.Compression)
	}
	if rec.Password == "" {
		return backup.Errorf(backup.Invalid, "", "A repository needs a password.")
	}
	return nil
}
