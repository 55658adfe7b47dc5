package repository

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var _ backup.RepositoryGauge = (*Repositories)(nil)

// gaugePrefix begins the names of what is written to measure a storage. kopia
// knows no blobs of that name and leaves them alone.
const gaugePrefix blob.ID = "kura.gauge-"

// gaugeParts is into how many blobs that is cut, which travel together, as the
// packs of an image do.
const gaugeParts = 4

// staleGauge is the age at which what a measurement left is nobody's any more.
const staleGauge = time.Hour

// Gauge implements [backup.RepositoryGauge].
func (rs *Repositories) Gauge(ctx context.Context, rec backup.RepositoryRecord, size int64) (backup.Gauged, error) {
	opened, err := rs.Repository(ctx, rec)
	if err != nil {
		return backup.Gauged{}, err
	}
	r, ok := opened.(*repository)
	if !ok {
		return backup.Gauged{}, fmt.Errorf("gauge %s: a repository of another kind", rec.Name)
	}
	out := backup.Gauged{Free: -1, Lies: lies(ctx, rec)}
	if c, err := r.store.GetCapacity(ctx); err == nil {
		out.Free = int64(c.FreeB)
	} else if !errors.Is(err, blob.ErrNotAVolume) {
		return out, explain(ctx, r.store, "ask for the free space", err)
	}
	if size == 0 {
		return out, nil
	}
	if err := r.writable(); err != nil {
		return out, err
	}
	out.Bytes = size / gaugeParts * gaugeParts
	out.Write, out.Read, err = r.gauge(ctx, int(size/gaugeParts))
	return out, explain(ctx, r.store, "measure the repository", err)
}

// gauge writes and reads blobs of that size and removes them, whatever happens.
func (r *repository) gauge(ctx context.Context, size int) (write, read time.Duration, err error) {
	if err := r.clearGauges(ctx); err != nil {
		return 0, 0, err
	}
	ids := make([]blob.ID, gaugeParts)
	for i := range ids {
		ids[i] = gaugePrefix + blob.ID(fmt.Sprintf("%016x%d", rand.Uint64(), i)) //nolint:gosec // a name, no secret
	}
	defer func() {
		dctx, cancel := settle(ctx)
		defer cancel()
		for _, id := range ids {
			if derr := r.store.DeleteBlob(dctx, id); derr != nil && !errors.Is(derr, blob.ErrBlobNotFound) && err == nil {
				err = fmt.Errorf("take %s away: %w", id, derr)
			}
		}
	}()
	body := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(body) // it never fails; storages that compress gain nothing by it
	began := time.Now()
	if err := each(ctx, ids, func(ctx context.Context, id blob.ID) error {
		return r.store.PutBlob(ctx, id, blobBytes(body), blob.PutOptions{})
	}); err != nil {
		return 0, 0, err
	}
	write, began = time.Since(began), time.Now()
	err = each(ctx, ids, func(ctx context.Context, id blob.ID) error {
		var got blobBuffer
		if err := r.store.GetBlob(ctx, id, 0, -1, &got); err != nil {
			return err
		}
		if got.Length() != size {
			return fmt.Errorf("%s came back with %d bytes of %d", id, got.Length(), size)
		}
		return nil
	})
	return write, time.Since(began), err
}

// clearGauges removes what measurements left that were killed.
func (r *repository) clearGauges(ctx context.Context) error {
	var old []blob.ID
	err := r.store.ListBlobs(ctx, gaugePrefix, func(m blob.Metadata) error {
		if r.cfg.Now().Sub(m.Timestamp) > staleGauge {
			old = append(old, m.BlobID)
		}
		return nil
	})
	for _, id := range old {
		if derr := r.store.DeleteBlob(ctx, id); derr != nil && !errors.Is(derr, blob.ErrBlobNotFound) {
			err = errors.Join(err, derr)
		}
	}
	return err
}

func each(ctx context.Context, ids []blob.ID, do func(context.Context, blob.ID) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, id := range ids {
		g.Go(func() error { return do(ctx, id) })
	}
	return g.Wait()
}

// lookupTime bounds the question which addresses a host has.
const lookupTime = 5 * time.Second

// lies tells on what the storage of a record lies.
func lies(ctx context.Context, rec backup.RepositoryRecord) backup.StoragePlace {
	var p backup.StoragePlace
	switch rec.Kind {
	case KindFilesystem:
		p.Host, p.RemotePath = mountOf(rec.Settings["path"])
	case KindS3:
		p.Host = hostOf(rec.Settings[s3Endpoint])
	case KindSFTP:
		p.Host = hostOf(sftpAddress(rec.Settings))
	case KindWebDAV:
		_, rest, _ := strings.Cut(rec.Settings[davURL], "://")
		host, _, _ := strings.Cut(rest, "/")
		p.Host = hostOf(host)
	}
	if p.Host != "" {
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		p.Addresses, _ = net.DefaultResolver.LookupHost(ctx, p.Host) // a name that does not resolve lies nowhere
	}
	return p
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return strings.Trim(address, "[]")
}
