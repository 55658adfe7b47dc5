package repository

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/kopia/kopia/repo/blob"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// The kinds of storage.
const (
	KindFilesystem = "filesystem" // a folder; its setting is "path"
	KindS3         = "s3"         // a bucket; see s3Settings
	KindSFTP       = "sftp"       // a folder of an SSH server; see sftpSettings
	KindWebDAV     = "webdav"     // a folder of a WebDAV server; see webdavsettings.go
)

// storage is what this package needs of a place that keeps blobs.
type storage interface {
	blob.Storage
	// location names the place for users.
	location() string
	// place says more of it.
	place() place
	// freeze refuses all writing from now on.
	freeze()
	// missing says why the place as a whole cannot be used now; nil if it can.
	missing(ctx context.Context) error
	// space tells the bytes stored and free; free is -1 where it is not known.
	space(ctx context.Context, now time.Time) (stored, free int64, err error)
}

// place is what users are told about where a repository lies.
type place struct {
	name    string   // a path, or what begins with s3:// or sftp://
	noun    string   // what it is: folder, bucket
	field   string   // setting to be changed where another place is to be taken
	connect []string // what the stock program is told to open it, secrets left out
}

// kinds are the kinds of storage by their names.
func kinds() map[string]storageKind {
	return map[string]storageKind{
		KindFilesystem: {check: checkFolder, open: openFolder},
		KindS3:         {check: checkS3, open: openS3},
		KindSFTP:       {check: checkSFTP, open: openSFTP},
		KindWebDAV:     {check: checkWebDAV, open: openWebDAV},
	}
}

// storageKind is one kind of storage.
type storageKind struct {
	// check refuses settings that no storage can be opened with. It reads no
	// reference to a secret: it may run where that is not known.
	check func(settings map[string]string) error
	open  func(ctx context.Context, w wanted) (storage, error)
}

// wanted is a storage that is to be opened.
type wanted struct {
	settings map[string]string
	create   bool // make what is not there
	lookup   func(name string) (string, bool)
	dir      string // for files of the moment
	patience patience
	calls    *calls
}

// openStorage opens the storage of a record.
func (rs *Repositories) openStorage(ctx context.Context, rec backup.RepositoryRecord, create bool) (storage, error) {
	s, err := kinds()[rec.Kind].open(ctx, wanted{
		settings: rec.Settings, create: create, lookup: rs.cfg.LookupEnv,
		dir: rs.cfg.Dir, patience: rs.patience, calls: rs.callsOf(rec.ID),
	})
	if err != nil {
		return nil, err
	}
	if rec.ReadOnly {
		s.freeze()
	}
	if f, ok := s.(*fileStore); ok {
		f.hasty = rs.hasty
		if rs.onStore != nil {
			rs.onStore(f)
		}
	}
	return withFaults(s), nil
}

// check refuses records that no repository can be made of.
func check(rec backup.RepositoryRecord) error {
	k, ok := kinds()[rec.Kind]
	if !ok {
		return backup.Errorf(backup.Invalid, "kind", "There is no kind of repository %q; choose %s.",
			rec.Kind, strings.Join(slices.Sorted(maps.Keys(kinds())), ", "))
	}
	if err := k.check(rec.Settings); err != nil {
		return err
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

// Check refuses, before anything is done, a record that no repository can be
// made of: its kind, its settings, its compression.
func Check(rec backup.RepositoryRecord) error {
	if rec.Password == "" {
		rec.Password = NewPassword()
	}
	return check(rec)
}

// severalLines are the settings that are files.
var severalLines = []string{s3CA, davCA, sftpKey, sftpKnownHosts}

// known refuses settings that a kind does not have, and wants those it needs.
func known(settings map[string]string, needed, optional []string) error {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if !slices.Contains(needed, name) && !slices.Contains(optional, name) {
			return backup.Errorf(backup.Invalid, "settings."+name, "There is no setting %q; there are %s.",
				name, strings.Join(slices.Concat(needed, optional), ", "))
		}
		if !slices.Contains(severalLines, name) && strings.ContainsFunc(settings[name], unicode.IsControl) || !utf8.ValidString(settings[name]) {
			return backup.Errorf(backup.Invalid, "settings."+name, "The setting %q holds a control character, or what is no text.", name)
		}
	}
	for _, name := range needed {
		if strings.TrimSpace(settings[name]) == "" {
			return backup.Errorf(backup.Invalid, "settings."+name, "The setting %q is missing.", name)
		}
	}
	return nil
}

const (
	// A secret may be given by name instead of by value: then the database does
	// not hold it, not even sealed.
	fromEnv  = "env:"
	fromFile = "file:"
)

// envPrefixes begin the names of variables that a setting may name: others are
// no business of whoever registers a repository.
var envPrefixes = []string{"KURA_REPOSITORY_", "AWS_"}

// checkReference refuses a reference to a secret that can never be followed.
func checkReference(settings map[string]string, name string) error {
	value := settings[name]
	if env, ok := strings.CutPrefix(value, fromEnv); ok && !slices.ContainsFunc(envPrefixes, func(p string) bool { return strings.HasPrefix(env, p) }) {
		return backup.Errorf(backup.Invalid, "settings."+name,
			"The variable %q may not be named here; choose a name that begins with %s.", env, strings.Join(envPrefixes, " or "))
	}
	if path, ok := strings.CutPrefix(value, fromFile); ok && !strings.HasPrefix(path, "/") {
		return backup.Errorf(backup.Invalid, "settings."+name, "The path %q must be absolute.", path)
	}
	return nil
}

// secret returns a secret setting, which may be a reference.
func (w wanted) secret(name string) (string, error) {
	value := w.settings[name]
	if env, ok := strings.CutPrefix(value, fromEnv); ok {
		if w.lookup != nil {
			if v, ok := w.lookup(env); ok && v != "" {
				return v, nil
			}
		}
		return "", backup.Errorf(backup.RepositoryUnreachable, "settings."+name,
			"The variable %s is not set in the server's environment. Set it and start the server anew.", env)
	}
	if path, ok := strings.CutPrefix(value, fromFile); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", backup.Errorf(backup.RepositoryUnreachable, "settings."+name, "The file %s cannot be read by the server.", path).Because(err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	return value, nil
}
