package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

const keySize = 32

// loadKey reads the installation's key, or makes it. Secrets and repository
// keys in the database can be read with it only: who loses it loses them.
func loadKey(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the installation's key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keySize {
		return nil, backup.Errorf(backup.Invalid, "key_file", "%s does not hold %d bytes in hex. Put the installation's key back: without it the secrets in the database cannot be read.", file, keySize)
	}
	return key, nil
}

func makeKey(file string) ([]byte, error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails: the runtime ends the process instead
	if err := writeSecret(file, hex.EncodeToString(key)); errors.Is(err, fs.ErrExist) {
		return loadKey(file) // another server on the same folder was first
	} else if err != nil {
		return nil, fmt.Errorf("write the installation's key: %w", err)
	}
	return key, nil
}

// writeSecret makes a file that only its owner can read. It never overwrites
// one, and the file is there whole or not at all.
func writeSecret(file, text string) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // its content lives on under the other name
	_, err = f.WriteString(text + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), file); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(file))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// firstStart makes what an empty installation needs. Each step can be cut off
// and is then done by the next start.
func (s *Server) firstStart(ctx context.Context) error {
	if err := s.operatorToken(ctx); err != nil {
		return fmt.Errorf("make the operator's token: %w", err)
	}
	if err := s.defaultRepository(ctx); err != nil {
		return fmt.Errorf("make the default repository: %w", err)
	}
	return nil
}

// operatorToken makes a token where there is none. The file is written first:
// a token that nobody can read would lock the installation.
func (s *Server) operatorToken(ctx context.Context) error {
	tokens, _, err := s.db.Tokens(ctx, backup.Page{Limit: 1})
	if err != nil || len(tokens) > 0 {
		return err
	}
	file := s.OperatorTokenFile()
	text := auth.NewText()
	if err := writeSecret(file, text.Reveal()); errors.Is(err, fs.ErrExist) {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text = backup.Secret(strings.TrimSpace(string(b)))
	} else if err != nil {
		return err
	}
	failpoint.Hit("start.token_written")
	t := auth.Token{Name: "operator", Role: auth.Operator, Hash: auth.Hash(text.Reveal())}
	err = s.db.InsertToken(ctx, &t)
	if backup.CodeOf(err) == backup.Conflict { // another server made one meanwhile: ours opens nothing
		return os.Remove(file)
	}
	return err
}

// defaultRepository makes the embedded repository where the installation has
// none. Its record, with the password, is written first: a repository whose
// password is lost could never be opened.
func (s *Server) defaultRepository(ctx context.Context) error {
	const name = "default"
	var r backup.RepositoryRecord
	err := s.db.Update(ctx, func(tx backup.Tx) (err error) {
		r, err = tx.RepositoryByName(ctx, name)
		if backup.CodeOf(err) != backup.NotFound {
			return err
		}
		all, _, err := tx.Repositories(ctx, backup.Page{Limit: 1})
		if err != nil || len(all) > 0 {
			return err
		}
		r = backup.RepositoryRecord{Name: name, Kind: "filesystem", Settings: map[string]string{"path": filepath.Join(s.config.Data, "repository")},
			Password: repository.NewPassword(), Compression: "s2", VerifyDays: 30, Default: true, OwnedBy: s.installation}
		return tx.InsertRepository(ctx, &r)
	})
	if err != nil || r.ID == "" || r.UniqueID != "" {
		return err
	}
	failpoint.Hit("start.repository_intended")
	unique, err := s.repositories.Create(ctx, r)
	if err != nil {
		return err
	}
	failpoint.Hit("start.repository_made")
	return s.db.Update(ctx, func(tx backup.Tx) error {
		c, err := tx.Repository(ctx, r.ID)
		if err != nil {
			return err
		}
		c.UniqueID = unique
		return tx.UpdateRepository(ctx, &c)
	})
}
