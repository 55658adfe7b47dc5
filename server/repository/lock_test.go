package repository_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// locked is a site in a bucket with object lock.
func lockedSite(t *testing.T, mode string) (*site, *bucket) {
	t.Helper()
	b := newBucket(t, true)
	b.settings["lock_mode"], b.settings["lock_days"] = mode, "7"
	return siteAt(t, b.peer), b
}

// held are the objects that an image's restore needs.
func (b *bucket) held(t *testing.T) (all []minio.ObjectInfo) {
	t.Helper()
	for o := range b.cli.ListObjectsIter(t.Context(), b.name, minio.ListObjectsOptions{Prefix: b.settings["prefix"], Recursive: true, WithVersions: true}) {
		must(0, o.Err)(t)
		name := strings.TrimPrefix(o.Key, b.settings["prefix"])
		for _, p := range []string{"p", "q", "xn", "kopia."} {
			if strings.HasPrefix(name, p) && !o.IsDeleteMarker {
				all = append(all, o)
				break
			}
		}
	}
	return all
}

// lockOf asks how an object is locked, and until when.
func (b *bucket) lockOf(t *testing.T, key string) (mode string, until time.Time) {
	t.Helper()
	o := must(b.cli.StatObject(t.Context(), b.name, key, minio.StatObjectOptions{}))(t)
	until = must(time.Parse(time.RFC3339, o.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date")))(t)
	return o.Metadata.Get("X-Amz-Object-Lock-Mode"), until
}

func TestTheStorageItselfRefusesToDeleteAndToShorten(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"governance", "compliance"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s, b := lockedSite(t, mode)
			begin := time.Now()
			d := sparse(rng(1), 2000, 3*mib)
			ref, _ := take(t, s, draft("image-1"), d)
			all := b.held(t)
			if len(all) < 4 {
				t.Fatalf("%d objects, want packs, indexes and the repository's own", len(all))
			}
			for _, o := range all {
				if err := b.cli.RemoveObject(ctx, b.name, o.Key, minio.RemoveObjectOptions{VersionID: o.VersionID}); err == nil {
					t.Errorf("deleting %s for good was allowed", o.Key)
				}
				m, soon := minio.RetentionMode(strings.ToUpper(mode)), time.Now().Add(time.Hour)
				short := minio.PutObjectRetentionOptions{Mode: &m, RetainUntilDate: &soon, VersionID: o.VersionID}
				if err := b.cli.PutObjectRetention(ctx, b.name, o.Key, short); err == nil {
					t.Errorf("shortening the lock of %s was allowed", o.Key)
				}
				if mode == "compliance" {
					short.GovernanceBypass = true
					if err := b.cli.PutObjectRetention(ctx, b.name, o.Key, short); err == nil {
						t.Errorf("shortening the lock of %s past governance was allowed", o.Key)
					}
				}
				if !o.IsLatest {
					continue // it answers the lock of the latest version only
				}
				if got, until := b.lockOf(t, o.Key); !strings.EqualFold(got, mode) || until.Sub(begin) < 7*24*time.Hour-time.Minute {
					t.Errorf("%s is locked as %q until %v; want %s for 7 days", o.Key, got, until, mode)
				}
			}
			compare(t, s.again(), ref, d)
		})
	}
}

func TestALockIsExtended(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, b := lockedSite(t, "compliance")
	take(t, s, draft("image-1"), sparse(rng(1), 2000, mib))
	st := must(repository.OpenStorage(ctx, s.rs, s.rec))(t)
	defer st.Close(ctx)
	longer := blob.ExtendOptions{RetentionMode: blob.Compliance, RetentionPeriod: 30 * 24 * time.Hour}
	before := s.rs.Requests(s.rec.ID)["PUT retention"]
	all := b.held(t)
	for _, o := range all {
		id := blob.ID(strings.TrimPrefix(o.Key, b.settings["prefix"]))
		must(0, st.ExtendBlobRetention(ctx, id, longer))(t)
		if _, until := b.lockOf(t, o.Key); time.Until(until) < 29*24*time.Hour {
			t.Errorf("%s is locked until %v; want 30 days", o.Key, until)
		}
	}
	if got := s.rs.Requests(s.rec.ID)["PUT retention"] - before; got != int64(len(all)) {
		t.Errorf("%d requests for %d blobs, want one for each", got, len(all))
	}
}

func TestALockWantsABucketThatLocks(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := newBucket(t, false)
	open := record("")
	open.Kind, open.Settings = b.kind, maps.Clone(b.settings)
	rs := newRepositories(t, "installation-1")
	must(rs.Create(ctx, open))(t)

	locks := open
	locks.Settings = maps.Clone(b.settings)
	locks.Settings["lock_mode"], locks.Settings["lock_days"], locks.Settings["prefix"] = "compliance", "30", "site-2/"
	_, err := rs.Create(ctx, locks)
	wantInvalid(t, "Create()", err, "settings.lock_mode")
	locks.Settings["prefix"] = open.Settings["prefix"]
	_, err = rs.Repository(ctx, locks)
	wantInvalid(t, "Repository()", err, "settings.lock_mode")
}

func wantInvalid(t testing.TB, what string, err error, field string) {
	t.Helper()
	if e := backup.AsError(err); e == nil || e.Code != backup.Invalid || e.Field != field {
		t.Errorf("%s = %v, want invalid %q", what, err, field)
	}
}
