package repository

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/object"
)

// The defaults, to be compared with what else there is.
const (
	DefaultHashing     = hashing
	DefaultEncryption  = encryption
	DefaultCompression = "s2-default"
)

// Formula is a way to store blocks.
type Formula struct {
	Hashing, Encryption, Compression, Splitter string
	Block                                      int
}

// nowhere counts packs instead of keeping them.
type nowhere struct {
	blob.Storage
	stored int64
}

func (n *nowhere) PutBlob(ctx context.Context, id blob.ID, b blob.Bytes, o blob.PutOptions) error {
	if !strings.HasPrefix(string(id), packPrefix) {
		return n.Storage.PutBlob(ctx, id, b, o)
	}
	length, err := b.WriteTo(io.Discard)
	n.stored += length
	return err
}

// Packer packs bytes by a formula.
type Packer struct {
	f     Formula
	store *nowhere
	repo  repo.DirectRepository
}

// NewPacker makes a repository below dir that keeps no packs.
func NewPacker(ctx context.Context, dir string, f Formula) (*Packer, error) {
	s, err := openFileStore(ctx, dir, true)
	if err != nil {
		return nil, err
	}
	n := &nowhere{Storage: s}
	o := &repo.NewRepositoryOptions{FormatBlockKeyDerivationAlgorithm: keyDerivation}
	o.BlockFormat.Hash, o.BlockFormat.Encryption = f.Hashing, f.Encryption
	o.BlockFormat.MaxPackSize, o.BlockFormat.Version = packSize, format.FormatVersion3
	if err := repo.Initialize(ctx, n, o, "defaults"); err != nil {
		return nil, err
	}
	r, err := opening{id: "defaults", storage: n, password: "defaults", dir: dir, now: time.Now, log: slog.New(slog.DiscardHandler)}.open(ctx)
	return &Packer{f, n, r}, err
}

// Pack packs bytes and returns how many would be stored.
func (p *Packer) Pack(ctx context.Context, bytes []byte) (int64, error) {
	_, w, err := p.repo.NewDirectWriter(ctx, repo.WriteSessionOptions{})
	if err != nil {
		return 0, err
	}
	for off := 0; off < len(bytes) && err == nil; off += p.f.Block {
		err = p.block(ctx, w, bytes[off:min(off+p.f.Block, len(bytes))])
	}
	return p.store.stored, errors.Join(err, w.Flush(ctx), w.Close(ctx))
}

func (p *Packer) block(ctx context.Context, w repo.DirectRepositoryWriter, b []byte) error {
	o := w.NewObjectWriter(ctx, object.WriterOptions{Compressor: compression.Name(p.f.Compression), Splitter: p.f.Splitter})
	_, err := o.Write(b)
	if err == nil {
		_, err = o.Result()
	}
	return errors.Join(err, o.Close())
}

// Close closes the repository.
func (p *Packer) Close(ctx context.Context) error { return p.repo.Close(ctx) }
