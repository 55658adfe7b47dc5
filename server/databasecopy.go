package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// The files of a copy of the database.
const (
	copiedDatabase = "kura.db"
	copiedKey      = "kura.key"
)

// CopyDatabase makes a copy of the database in the data folder, for
// repositories to keep. It holds the key, too, which the secrets in it are
// encrypted with; the repository encrypts both.
func (s *Server) CopyDatabase(ctx context.Context) (files []backup.CopiedFile, done func() error, err error) {
	s.copying.Lock()
	folder := filepath.Join(s.config.Data, "copying")
	done = func() error {
		defer s.copying.Unlock()
		return os.RemoveAll(folder)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	if err := os.RemoveAll(folder); err != nil { // of a server that was killed
		return nil, nil, fmt.Errorf("remove an unfinished copy: %w", err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the folder for the copy: %w", err)
	}
	file := filepath.Join(folder, copiedDatabase)
	if err := s.db.CopyTo(ctx, file); err != nil {
		return nil, nil, err
	}
	return []backup.CopiedFile{{Name: copiedDatabase, Path: file}, {Name: copiedKey, Path: s.config.KeyFile}}, done, nil
}

// keepsDatabase says whether copies of the database are made by the server.
func (c Config) keepsDatabase() bool {
	return strings.HasPrefix(c.Database, "sqlite:") && !c.NoDatabaseCopies
}

func (s *Server) databaseKeeper() *backup.DatabaseKeeper {
	return &backup.DatabaseKeeper{Store: s.db, Copier: s, Copies: s.repositories, Installation: s.installation, Reach: s.config.Reach}
}

// belongTogether refuses a start that would make anew what is only missing: a
// key for a database that has one, a database for a repository that has one.
func (c Config) belongTogether() error {
	file, embedded := strings.CutPrefix(c.Database, "sqlite:")
	if !embedded {
		return nil
	}
	st, err := os.Stat(file)
	there := err == nil && st.Size() > 0
	if there && !exists(c.KeyFile) {
		return backup.Errorf(backup.Invalid, "key_file", "The key %s is not there, without which the secrets in %s cannot be read. Put it back. A copy is in each copy of the database: kura catalog recover brings it into a new folder.", c.KeyFile, file)
	}
	if own := filepath.Join(c.Data, "repository"); !there && exists(filepath.Join(own, "kura.owner.f")) {
		return backup.Errorf(backup.Invalid, "database", "The database %s is not there or is empty, but %s holds images. Put it back; or make a new folder of the repository's copy of it: kura catalog recover; or start an empty server in another folder, and attach the repository there.", file, own)
	}
	return nil
}
