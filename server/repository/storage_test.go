package repository_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/blob/s3"
	"github.com/kopia/kopia/repo/blob/sftp"
	"github.com/kopia/kopia/repo/blob/webdav"
	"github.com/kopia/kopia/repo/content"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// onEachStorage runs a test on a storage of each kind.
func onEachStorage(t *testing.T, test func(t *testing.T, p peer)) {
	t.Helper()
	for kind, start := range peers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

// siteAt makes a repository on a storage.
func siteAt(t testing.TB, p peer) *site {
	t.Helper()
	return newSite(t, func(r *backup.RepositoryRecord) { r.Kind, r.Settings = p.kind, p.settings })
}

func TestEachStorageKeepsBlobs(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		ctx := t.Context()
		s := siteAt(t, p)
		st := must(repository.OpenStorage(ctx, s.rs, s.rec))(t)
		defer st.Close(ctx)
		body := make([]byte, 3*mib)
		fill(rng(4), body)
		must(0, st.PutBlob(ctx, "p0123456789", repository.Blob(body), blob.PutOptions{}))(t)
		for _, r := range [][2]int64{{0, -1}, {0, 3 * mib}, {mib, 1}, {mib, mib}, {3*mib - 5, 5}, {7, 0}} {
			var got repository.Buffer
			err := st.GetBlob(ctx, "p0123456789", r[0], r[1], &got)
			want := body[r[0]:]
			if r[1] >= 0 {
				want = want[:r[1]]
			}
			if err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("GetBlob(%d, %d) = %d bytes, %v; want %d", r[0], r[1], got.Len(), err, len(want))
			}
		}
		for _, r := range [][2]int64{{3*mib + 1, 1}, {3*mib - 1, 2}, {-1, 1}} {
			if err := st.GetBlob(ctx, "p0123456789", r[0], r[1], &repository.Buffer{}); err == nil || errors.Is(err, blob.ErrBlobNotFound) {
				t.Errorf("GetBlob(%d, %d) = %v, want an invalid range", r[0], r[1], err)
			}
		}
		var at time.Time
		must(0, st.PutBlob(ctx, "p0123456789", repository.Blob("short"), blob.PutOptions{GetModTime: &at}))(t)
		m := must(st.GetMetadata(ctx, "p0123456789"))(t)
		if m.Length != 5 || m.BlobID != "p0123456789" || m.Timestamp.IsZero() || !at.Equal(m.Timestamp) {
			t.Errorf("GetMetadata() = %+v, written at %v; want 5 bytes and that time", m, at)
		}
		must(0, st.DeleteBlob(ctx, "p0123456789"))(t)
		must(0, st.DeleteBlob(ctx, "p0123456789"))(t)
		if err := st.GetBlob(ctx, "p0123456789", 0, -1, &repository.Buffer{}); !errors.Is(err, blob.ErrBlobNotFound) {
			t.Errorf("GetBlob() of a deleted blob = %v, want ErrBlobNotFound", err)
		}
		if _, err := st.GetMetadata(ctx, "p0123456789"); !errors.Is(err, blob.ErrBlobNotFound) {
			t.Errorf("GetMetadata() of a deleted blob = %v, want ErrBlobNotFound", err)
		}
	})
}

func TestEachStorageListsBlobsByPrefix(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		ctx := t.Context()
		s := siteAt(t, p)
		st := must(repository.OpenStorage(ctx, s.rs, s.rec))(t)
		defer st.Close(ctx)
		var want []string
		for n := range 30 {
			id := fmt.Sprintf("t%02dabcdef%d", n, n)
			want = append(want, id)
			must(0, st.PutBlob(ctx, blob.ID(id), repository.Blob(id), blob.PutOptions{}))(t)
		}
		for prefix, want := range map[string][]string{"t": want, "t1": want[10:20], "t07abcdef7": want[7:8], "z": nil} {
			var got []string
			must(0, st.ListBlobs(ctx, blob.ID(prefix), func(m blob.Metadata) error {
				got = append(got, string(m.BlobID))
				if m.Length != int64(len(m.BlobID)) {
					t.Errorf("ListBlobs() tells %d bytes of %s", m.Length, m.BlobID)
				}
				return nil
			}))(t)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("ListBlobs(%q) = %v, want %v", prefix, got, want)
			}
		}
		enough := errors.New("enough")
		if err := st.ListBlobs(ctx, "t", func(blob.Metadata) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("ListBlobs() = %v, want the callback's error", err)
		}
	})
}

// roundTrip takes a full and an incremental image and reads both.
func roundTrip(t testing.TB, r backup.Repository) {
	t.Helper()
	d := sparse(rng(1), 2000, 6*mib)
	ref, _ := take(t, r, draft("image-1"), d)
	next := *d
	next.bytes = slices.Clone(d.bytes)
	fill(rng(2), next.bytes[2*mib:2*mib+64*kib])
	next.ranges = [][2]int64{{0, d.Capacity}}
	second := draft("image-2")
	second.BaseRef, second.PointInTime = ref, second.PointInTime.Add(time.Hour)
	ref2, m := take(t, r, second, &next)
	compare(t, r, ref, d)
	compare(t, r, ref2, &next)
	if stored := m.Image.Disks[0].Stored; stored > 2*mib {
		t.Errorf("the incremental image stored %d bytes, want those of a block", stored)
	}
}

func TestEachStorageKeepsImages(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		ctx := t.Context()
		s := siteAt(t, p)
		roundTrip(t, s)
		if n := len(must(s.again().Images(ctx))(t)); n != 2 {
			t.Errorf("Images() = %d, want 2", n)
		}
		stored, free, err := s.Space(ctx)
		if err != nil || stored < mib || free == 0 {
			t.Errorf("Space() = %d, %d, %v; want what two images take", stored, free, err)
		}
		all := must(s.Images(ctx))(t)
		must(0, s.Delete(ctx, all[0].Image.Ref))(t)
		if n := len(must(s.again().Images(ctx))(t)); n != 1 {
			t.Errorf("Images() after Delete() = %d, want 1", n)
		}
	})
}

func TestEachStorageOpensAsKopiasOwnKind(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		ctx := t.Context()
		s := siteAt(t, p)
		ref, _ := take(t, s, draft("image-1"), sparse(rng(1), 2000, 2*mib))
		st := must(stockStorage(ctx, p))(t)
		config := filepath.Join(t.TempDir(), "kopia.config")
		must(0, repo.Connect(ctx, config, st, s.rec.Password.Reveal(), &repo.ConnectOptions{
			ClientOptions:  repo.ClientOptions{Hostname: "elsewhere", Username: "root"},
			CachingOptions: content.CachingOptions{CacheDirectory: t.TempDir(), ContentCacheSizeBytes: mib, MetadataCacheSizeBytes: mib},
		}))(t)
		r := must(repo.Open(ctx, config, s.rec.Password.Reveal(), &repo.Options{DisableRepositoryLog: true}))(t)
		defer r.Close(ctx)
		snap := must(repository.Snapshot(ctx, s.Repository, ref))(t)
		if contents := must(r.VerifyObject(ctx, snap.RootObjectID()))(t); len(contents) == 0 {
			t.Error("VerifyObject() = none, want the folder's content")
		}
	})
}

// stockStorage opens a storage with kopia's own implementation of its kind.
func stockStorage(ctx context.Context, p peer) (blob.Storage, error) {
	switch v := p.settings; p.kind {
	case repository.KindS3:
		return s3.New(ctx, &s3.Options{
			Endpoint: v["endpoint"], BucketName: v["bucket"], Prefix: v["prefix"], Region: v["region"],
			AccessKeyID: v["access_key_id"], SecretAccessKey: v["secret_access_key"], RootCA: []byte(v["ca_certificate"]),
		}, false)
	case repository.KindSFTP:
		var port int
		if _, err := fmt.Sscan(v["port"], &port); err != nil {
			return nil, err
		}
		return sftp.New(ctx, &sftp.Options{
			Host: v["host"], Port: port, Username: v["user"], Path: v["path"], KeyData: v["private_key"], KnownHostsData: v["known_hosts"],
		}, false)
	case repository.KindWebDAV:
		block, _ := pem.Decode([]byte(v["ca_certificate"]))
		sum := sha256.Sum256(block.Bytes)
		return webdav.New(ctx, &webdav.Options{
			URL: v["url"], Username: v["username"], Password: v["http_password"], TrustedServerCertificateFingerprint: hex.EncodeToString(sum[:]),
		}, false)
	default:
		return filesystem.New(ctx, &filesystem.Options{Path: v["path"]}, false)
	}
}

func TestAKillInTheMiddleHurtsNothingOnAnyStorage(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		s := siteAt(t, p)
		d := sparse(rng(1), 2000, 3*mib)
		ref, _ := take(t, s, draft("image-1"), d)
		for _, at := range []int{1, 25} { // before and after the first pack
			kill(t, s, at)
			r := s.again()
			if n := len(must(r.Images(t.Context()))(t)); n != 1 {
				t.Errorf("Images() after a kill at %d MiB = %d, want 1", at, n)
			}
			compare(t, r, ref, d)
		}
		next := sparse(rng(2), 2000, 5*mib)
		ref, _ = take(t, s.again(), draft("image-killed"), next)
		compare(t, s, ref, next)
	})
}

func TestTwoServersShareEachStorage(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		ctx := t.Context()
		s := siteAt(t, p)
		other := s.again()
		d := sparse(rng(1), 2000, 3*mib)
		ref, _ := take(t, s, draft("image-1"), d)
		compare(t, other, ref, d)
		e := sparse(rng(2), 2001, 3*mib)
		second := draft("image-2")
		second.PointInTime = second.PointInTime.Add(time.Hour)
		ref2, _ := take(t, other, second, e)
		compare(t, s, ref2, e)
		for name, r := range map[string]backup.Repository{"first": s, "other": other} {
			if n := len(must(r.Images(ctx))(t)); n != 2 {
				t.Errorf("%s server: Images() = %d, want 2", name, n)
			}
		}
	})
}

func TestARemoteStorageMayBeSlow(t *testing.T) {
	t.Parallel()
	onEachRemote(t, func(t *testing.T, p peer) {
		s := siteAt(t, p)
		delay := 200 * time.Millisecond
		if p.kind != repository.KindS3 {
			delay /= 8 // what is one request to S3 takes several answers: open, read, read to the end, close
		}
		p.Delay.Store(int64(delay))
		roundTrip(t, s)
	})
}

func TestARemoteStorageMayFailNowAndThen(t *testing.T) {
	t.Parallel()
	onEachRemote(t, func(t *testing.T, p peer) {
		s := siteAt(t, p)
		p.FailEvery.Store(10) // ten times what is promised
		roundTrip(t, s)
		if p.Failed.Load() == 0 {
			t.Error("nothing failed, want some")
		}
	})
}

func TestARemoteStorageMayFailOnce(t *testing.T) {
	t.Parallel()
	onEachRemote(t, func(t *testing.T, p peer) {
		s := siteAt(t, p)
		st := must(repository.OpenStorage(t.Context(), s.rs, s.rec))(t)
		defer st.Close(t.Context())
		body := make([]byte, 2*mib)
		for name, do := range map[string]func() error{
			"put":  func() error { return st.PutBlob(t.Context(), "p01", repository.Blob(body), blob.PutOptions{}) },
			"get":  func() error { return st.GetBlob(t.Context(), "p01", 0, -1, &repository.Buffer{}) },
			"list": func() error { return st.ListBlobs(t.Context(), "p", func(blob.Metadata) error { return nil }) },
		} {
			must(0, st.PutBlob(t.Context(), "p01", repository.Blob(body), blob.PutOptions{}))(t)
			before := p.Failed.Load()
			p.FailEvery.Store(p.Count.Load() + 1)
			if err := do(); err != nil {
				t.Errorf("%s after a failure = %v", name, err)
			}
			p.FailEvery.Store(0)
			if p.Failed.Load() == before && (name != "list" || p.kind == repository.KindS3) { // a list is too short to break a connection
				t.Errorf("%s: nothing failed, want one request", name)
			}
		}
	})
}

func TestARemoteStorageThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	onEachRemote(t, func(t *testing.T, p peer) {
		ctx := t.Context()
		s := siteAt(t, p)
		rs := newRepositories(t, "installation-1")
		rs.Hurry(time.Millisecond, 1500*time.Millisecond)
		st := must(repository.OpenStorage(ctx, rs, s.rec))(t)
		defer st.Close(ctx)
		p.Hang.Store(true)
		_, err := st.GetMetadata(ctx, "p01")
		if err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("GetMetadata() = %v, want that the storage does not answer", err)
		}
		_, err = rs.Repository(ctx, s.rec)
		wantCode(t, "Repository()", err, backup.RepositoryUnreachable)
		p.Hang.Store(false)
		rs.Hurry(time.Millisecond, time.Minute)
		must(rs.Repository(ctx, s.rec))(t)
	})
}

// onEachRemote runs a test on the storages that are reached by a network.
func onEachRemote(t *testing.T, test func(t *testing.T, p peer)) {
	t.Helper()
	onEachStorage(t, func(t *testing.T, p peer) {
		if p.kind != repository.KindFilesystem { // a disk that errs is told at once
			test(t, p)
		}
	})
}
