package repository

import (
	"context"
	"crypto/md5" // #nosec G501 -- S3 wants it beside an object lock; nothing rests on its strength
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// s3Store keeps blobs in a bucket, in the layout of kopia's own store: the stock
// program opens it as a plain "s3" repository. Unlike that store it gives up a
// request that hangs, counts its requests, and knows whether the bucket locks.
type s3Store struct {
	blob.DefaultProviderImplementation
	cli      *minio.Core
	bucket   string
	prefix   string
	patience patience
	at       place
}

// connections is how many idle connections to a storage are kept.
const connections = 32

func openS3(ctx context.Context, w wanted) (storage, error) {
	s, err := newS3(w)
	if err != nil {
		return nil, err
	}
	l, err := lockOf(w.settings)
	if err != nil {
		return nil, err
	}
	if l.mode != "" {
		if err := s.wantLocks(ctx); err != nil {
			return nil, err
		}
	}
	if w.create {
		names, err := s.first(ctx)
		if err != nil {
			return nil, unreachable(s.at.name, err).Because(err)
		}
		if err := refuseOccupied(s.at, names); err != nil {
			return nil, err
		}
	}
	return &remoteStore{remote: s, at: s.at}, nil
}

func newS3(w wanted) (*s3Store, error) {
	access, err := w.secret(s3AccessKey)
	if err != nil {
		return nil, err
	}
	secret, err := w.secret(s3SecretKey)
	if err != nil {
		return nil, err
	}
	token, err := w.secret(s3Token)
	if err != nil {
		return nil, err
	}
	cli, err := minio.NewCore(w.settings[s3Endpoint], &minio.Options{
		Creds:      credentials.NewStaticV4(access, secret, token),
		Secure:     w.settings[s3TLS] != "false",
		Region:     w.settings[s3Region],
		Transport:  countedTransport{trusting(w.settings[s3CA]), w.calls},
		MaxRetries: 1, // our patience knows what a try costs
	})
	if err != nil {
		return nil, backup.Errorf(backup.Invalid, "settings."+s3Endpoint, "The endpoint %q cannot be used: write host or host:port.", w.settings[s3Endpoint]).Because(err)
	}
	return &s3Store{
		cli: cli, bucket: w.settings[s3Bucket], prefix: w.settings[s3Prefix],
		patience: w.patience, at: s3Place(w.settings),
	}, nil
}

// wantLocks refuses a bucket that would take a lock for a wish.
func (s *s3Store) wantLocks(ctx context.Context) error {
	var enabled string
	err := s.patience.do(ctx, "ask for object lock", func(ctx context.Context, _ func()) (err error) {
		enabled, _, _, _, err = s.cli.GetObjectLockConfig(ctx, s.bucket)
		return s.translate(err)
	})
	var answer minio.ErrorResponse
	if errors.As(err, &answer) && answer.Code == "ObjectLockConfigurationNotFoundError" || err == nil && enabled != "Enabled" {
		return backup.Errorf(backup.Invalid, "settings."+s3LockMode,
			"The bucket %s has no object lock, so it would not keep anything from being deleted. Make a bucket with object lock, or leave lock_mode out.", s.bucket)
	}
	if err != nil {
		return unreachable(s.at.name, err).Because(err)
	}
	return nil
}

// first names some of what the place holds.
func (s *s3Store) first(ctx context.Context) (names []string, err error) {
	err = s.patience.do(ctx, "look into the bucket", func(ctx context.Context, _ func()) error {
		names = nil
		for o := range s.cli.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix}) {
			if o.Err != nil {
				return s.translate(o.Err)
			}
			if names = append(names, strings.TrimPrefix(o.Key, s.prefix)); len(names) == pageBlobs {
				break
			}
		}
		return ctx.Err()
	})
	return names, err
}

func (s *s3Store) key(id blob.ID) string { return s.prefix + string(id) }

// GetBlob reads length bytes from offset, or all if length is negative.
func (s *s3Store) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if offset < 0 {
		return blob.ErrInvalidRange
	}
	if length == 0 {
		out.Reset()
		_, err := s.GetMetadata(ctx, id)
		return err
	}
	return s.patience.do(ctx, "read "+string(id), func(ctx context.Context, alive func()) error {
		out.Reset()
		var o minio.GetObjectOptions
		if length > 0 {
			if err := o.SetRange(offset, offset+length-1); err != nil {
				return fmt.Errorf("%w: %w", blob.ErrInvalidRange, err)
			}
		}
		body, _, _, err := s.cli.GetObject(ctx, s.bucket, s.key(id), o)
		if err != nil {
			return s.translate(err)
		}
		defer body.Close()
		if _, err := io.Copy(movingWriter{out, alive}, body); err != nil {
			return s.translate(err)
		}
		return blob.EnsureLengthExactly(out.Length(), length)
	})
}

// GetMetadata tells a blob's length and time.
func (s *s3Store) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	var m blob.Metadata
	err := s.patience.do(ctx, "look at "+string(id), func(ctx context.Context, _ func()) error {
		o, err := s.cli.StatObject(ctx, s.bucket, s.key(id), minio.StatObjectOptions{})
		m = blob.Metadata{BlobID: id, Length: o.Size, Timestamp: o.LastModified}
		return s.translate(err)
	})
	return m, err
}

// PutBlob writes a blob, with the lock that the options ask for.
func (s *s3Store) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if o.DoNotRecreate {
		return blob.ErrUnsupportedPutBlobOption
	}
	if !o.SetModTime.IsZero() {
		return blob.ErrSetTimeUnsupported
	}
	h := md5.New() // #nosec G401 -- as above
	if _, err := data.WriteTo(h); err != nil {
		return err
	}
	sum := base64.StdEncoding.EncodeToString(h.Sum(nil))
	opts := minio.PutObjectOptions{ContentType: "application/x-kopia"}
	err := s.patience.do(ctx, "store "+string(id), func(ctx context.Context, alive func()) error {
		if o.RetentionPeriod != 0 {
			opts.Mode = minio.RetentionMode(o.RetentionMode)
			opts.RetainUntilDate = time.Now().Add(o.RetentionPeriod).UTC()
		}
		r := data.Reader()
		defer func() { _ = r.Close() }() // it was only read
		_, err := s.cli.PutObject(ctx, s.bucket, s.key(id), movingReader{r, alive}, int64(data.Length()), sum, "", opts)
		return s.translate(err)
	})
	if err != nil || o.GetModTime == nil {
		return err
	}
	m, err := s.GetMetadata(ctx, id)
	*o.GetModTime = m.Timestamp
	return err
}

// DeleteBlob removes a blob. In a bucket with versions it stays as an older
// version until its lock is over and the bucket's own rule takes it away; where
// the storage keeps no versions it refuses, with errLocked.
func (s *s3Store) DeleteBlob(ctx context.Context, id blob.ID) error {
	err := s.patience.do(ctx, "delete "+string(id), func(ctx context.Context, _ func()) error {
		err := s.cli.RemoveObject(ctx, s.bucket, s.key(id), minio.RemoveObjectOptions{})
		if refuses(err) && s.lockedUntil(ctx, id).After(time.Now()) {
			return &trouble{"its lock is not over", true, fmt.Errorf("%w: %w", errLocked, err)}
		}
		return s.translate(err)
	})
	if errors.Is(err, blob.ErrBlobNotFound) {
		return nil
	}
	return err
}

// ExtendBlobRetention locks a blob anew, from now on. One that is locked for
// longer, from days when the period was longer, stays so.
func (s *s3Store) ExtendBlobRetention(ctx context.Context, id blob.ID, o blob.ExtendOptions) error {
	mode := minio.RetentionMode(o.RetentionMode)
	return s.patience.do(ctx, "lock "+string(id), func(ctx context.Context, _ func()) error {
		until := time.Now().Add(o.RetentionPeriod).UTC()
		err := s.cli.PutObjectRetention(ctx, s.bucket, s.key(id), minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until})
		if refuses(err) && s.lockedUntil(ctx, id).After(until.Add(-time.Second)) { // the storage tells whole seconds
			return nil
		}
		return s.translate(err)
	})
}

// refuses says whether an answer may mean that a lock forbids what was asked.
func refuses(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && (answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusBadRequest)
}

// lockedUntil asks until when a blob is locked; zero = it is not, or nobody knows.
func (s *s3Store) lockedUntil(ctx context.Context, id blob.ID) time.Time {
	o, err := s.cli.StatObject(ctx, s.bucket, s.key(id), minio.StatObjectOptions{})
	if err != nil {
		return time.Time{}
	}
	until, _ := time.Parse(time.RFC3339, o.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date")) // zero when it cannot be read
	return until
}

// ListBlobs goes on behind the last blob that it has told when a page fails.
func (s *s3Store) ListBlobs(ctx context.Context, prefix blob.ID, tell func(blob.Metadata) error) error {
	for after, more := "", true; more; {
		var page []minio.ObjectInfo
		var err error
		if page, more, err = s.page(ctx, prefix, after); err != nil {
			return err
		}
		for _, o := range page {
			after = o.Key
			name := strings.TrimPrefix(o.Key, s.prefix)
			if strings.Contains(name, "/") {
				continue // what others keep below the prefix
			}
			if err := tell(blob.Metadata{BlobID: blob.ID(name), Length: o.Size, Timestamp: o.LastModified}); err != nil {
				return err
			}
		}
	}
	return nil
}

// page lists some blobs, and says whether there may be more.
func (s *s3Store) page(ctx context.Context, prefix blob.ID, after string) (page []minio.ObjectInfo, more bool, err error) {
	o := minio.ListObjectsOptions{Prefix: s.key(prefix), StartAfter: after, MaxKeys: pageBlobs, Recursive: true}
	err = s.patience.do(ctx, "list blobs", func(ctx context.Context, _ func()) error {
		page, more = page[:0], false
		for o := range s.cli.ListObjectsIter(ctx, s.bucket, o) {
			if o.Err != nil {
				return s.translate(o.Err)
			}
			if page = append(page, o); len(page) == pageBlobs {
				more = true
				break
			}
		}
		return ctx.Err()
	})
	return page, more, err
}

// pageBlobs is how many blobs S3 lists at once.
const pageBlobs = 1000

func (s *s3Store) measure(ctx context.Context, _ time.Time) (int64, error) { return sumBlobs(ctx, s) }
