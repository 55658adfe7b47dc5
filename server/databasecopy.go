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
