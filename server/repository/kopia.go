package repository

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/maintenance"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

const (
	hashing    = "BLAKE3-256-128"
	encryption = "AES256-GCM-HMAC-SHA256"
	// keyDerivation needs no 64 MiB of memory at each open, as kopia's default
	// does; the password is random, so that a costly derivation gains nothing.
	keyDerivation = "pbkdf2-sha256-600000"
	packSize      = 20 << 20
	// An epoch of the index may end after epochMin and is looked for so often
	// that no process misses two; every epochsRange epochs, about a day of busy
	// ones, the whole index is written anew.
	epochMin     = 20 * time.Minute
	epochRefresh = 5 * time.Minute
	epochsRange  = 48
	// removals is how many blobs are removed at the same time: a storage far
	// away takes as long for one as for all of them.
	removals = 16

	// clientHost and the record's id are what every process calls itself, so
	// that kopia sees one client.
	clientHost = "kura"

	formatBlob = blob.ID(format.KopiaRepositoryBlobID)
	configBlob = blob.ID(format.KopiaBlobCfgBlobID)

	// metaCompression packs lists, manifests and zeroes, which shrink a lot.
	metaCompression = compression.Name("zstd-fastest")
)

// compressions are the settings that users choose from, by name.
var compressions = map[string]compression.Name{
	"":             "s2-default",
	"s2":           "s2-default",
	"s2-default":   "s2-default",
	"zstd-fastest": "zstd-fastest",
	"none":         "",
}

// initialize makes an empty kopia repository in s.
func initialize(ctx context.Context, s blob.Storage, password backup.Secret, l lock) error {
	o := &repo.NewRepositoryOptions{FormatBlockKeyDerivationAlgorithm: keyDerivation, RetentionMode: l.mode, RetentionPeriod: l.period}
	o.BlockFormat.Hash = hashing
	o.BlockFormat.Encryption = encryption
	o.BlockFormat.MaxPackSize = packSize
	o.BlockFormat.Version = format.FormatVersion3
	o.ObjectFormat.Splitter = splitterOf(blockMedium)
	return repo.Initialize(ctx, s, o, password.Reveal())
}

// tune sets what cannot be set when a repository is made. It changes nothing
// where it has been set already.
func tune(ctx context.Context, r repo.DirectRepository) error {
	if err := tuneEpochs(ctx, r); err != nil {
		return fmt.Errorf("set epochs: %w", err)
	}
	had, err := maintenance.HasParams(ctx, r)
	if err != nil || had {
		return err
	}
	p := maintenance.DefaultParams()
	p.Owner = r.ClientOptions().UsernameAtHost() // else the stock program makes itself the owner
	return repo.WriteSession(ctx, r, repo.WriteSessionOptions{Purpose: "create repository"},
		func(ctx context.Context, w repo.RepositoryWriter) error { return maintenance.SetParams(ctx, w, &p) })
}

func tuneEpochs(ctx context.Context, r repo.DirectRepository) error {
	m := r.FormatManager()
	p, err := m.GetMutableParameters(ctx)
	want := p.EpochParameters
	want.MinEpochDuration, want.EpochRefreshFrequency = epochMin, epochRefresh
	want.FullCheckpointFrequency, want.DeleteParallelism = epochsRange, removals
	if err != nil || p.EpochParameters == want {
		return err
	}
	p.EpochParameters = want
	cfg, err := m.BlobCfgBlob(ctx)
	if err != nil {
		return err
	}
	features, err := m.RequiredFeatures(ctx)
	if err != nil {
		return err
	}
	return m.SetParameters(ctx, p, cfg, features)
}

// opening says how to open a kopia repository.
type opening struct {
	id       string // of the record
	storage  blob.Storage
	password backup.Secret
	next     backup.Secret // where the password is being changed
	dir      string
	cache    int64
	now      func() time.Time
	log      *slog.Logger
}

// open opens a kopia repository.
func (o opening) open(ctx context.Context) (repo.DirectRepository, error) {
	r, _, _, err := o.openAny(ctx)
	return r, err
}

// openAny opens a kopia repository with the password, or with the next one where
// it is being changed, and tells which it was.
func (o opening) openAny(ctx context.Context) (repo.DirectRepository, *steady, backup.Secret, error) {
	s := newSteady(o.storage)
	used := o.password
	r, err := o.openWith(ctx, s, used)
	if err != nil && o.next != "" && ctx.Err() == nil {
		s.forget()
		next, nerr := o.openWith(ctx, s, o.next)
		if nerr == nil {
			r, used, err = next, o.next, nil
		}
	}
	if err == nil {
		s.taken()
	}
	return r, s, used, err
}

// openWith opens a kopia repository through a configuration file, which kopia
// insists on.
func (o opening) openWith(ctx context.Context, s blob.Storage, password backup.Secret) (repo.DirectRepository, error) {
	key := filepath.Join(o.dir, o.id)
	path := key + ".config"
	if err := o.writeConfig(path, key); err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	defer handovers.offer(key, s)()
	r, err := repo.Open(ctx, path, password.Reveal(), &repo.Options{
		TimeNowFunc:          o.now,
		DisableRepositoryLog: true,
		DoNotWaitForUpgrade:  true,
		OnFatalError: func(err error) {
			o.log.ErrorContext(ctx, "repository needs a newer kura", "repository", o.id, "error", err)
		},
	})
	if err != nil {
		return nil, err
	}
	return r.(repo.DirectRepository), nil
}

func (o opening) writeConfig(path, key string) error {
	c := repo.LocalConfig{
		Storage: &blob.ConnectionInfo{Type: kind, Config: &handle{Key: key}},
		ClientOptions: repo.ClientOptions{
			Username:    o.id,
			Hostname:    clientHost,
			Description: "kura " + o.id,
			// A cache on disk may hold the format under the password of before.
			FormatBlobCacheDuration: -1,
		},
		Caching: &content.CachingOptions{},
	}
	if o.cache > 0 { // kopia panics on a folder without sizes, and keeps no cache without a folder
		c.Caching = &content.CachingOptions{
			CacheDirectory:        filepath.Join(o.dir, o.id+".cache"),
			ContentCacheSizeBytes: o.cache, ContentCacheSizeLimitBytes: o.cache,
			MetadataCacheSizeBytes: o.cache,
		}
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, dirMode); err != nil {
		return err
	}
	return replaceFile(path, b)
}

// replaceFile writes a file so that a reader sees the old or the new one.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+tmpMark+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error counts
	}
	return err
}

// uniqueID is the repository's own name of itself.
func uniqueID(r repo.DirectRepository) string { return hex.EncodeToString(r.UniqueID()) }

// blobBytes is a small blob to write.
type blobBytes []byte

func (b blobBytes) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b)
	return int64(n), err
}

func (b blobBytes) Length() int { return len(b) }

func (b blobBytes) Reader() io.ReadSeekCloser { return nopCloser{bytes.NewReader(b)} }

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// blobBuffer takes a small blob that is read.
type blobBuffer struct{ bytes.Buffer }

func (b *blobBuffer) Length() int { return b.Len() }
