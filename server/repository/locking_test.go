package repository_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// locksOf tells until when each object is locked that restores need.
func (b *bucket) locksOf(t *testing.T) map[string]time.Time {
	t.Helper()
	all := map[string]time.Time{}
	for _, o := range b.held(t) {
		if o.IsLatest && !strings.HasSuffix(o.Key, "kopia.maintenance") { // it is written again and again, and restores need it not
			_, all[strings.TrimPrefix(o.Key, b.settings["prefix"])] = b.lockOf(t, o.Key)
		}
	}
	return all
}

// lockDays is the site's repository with another period.
func (s *site) lockDays(days string) backup.Repository {
	s.t.Helper()
	rec := s.rec
	rec.Settings = maps.Clone(rec.Settings)
	rec.Settings["lock_days"] = days
	return must(s.rs.Repository(s.t.Context(), rec))(s.t)
}

// packsOnly leaves packs of disk data.
func packsOnly(all map[string]time.Time) (names []string) {
	for name := range all {
		if strings.HasPrefix(name, "p") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

// movedClock is a clock that tests set.
type movedClock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *movedClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *movedClock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

// TestWhatLiveImagesNeedIsLockedAnewAndNothingElse: packs, index and what opens
// the repository; not the packs that only a deleted image needed.
func TestWhatLiveImagesNeedIsLockedAnewAndNothingElse(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, b := lockedSite(t, "compliance")
	d := sparse(rng(1), 2000, 2*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	first := packsOnly(b.locksOf(t))
	gone, _ := take(t, s, draft("image-2"), sparse(rng(2), 2000, 2*mib))
	must(0, s.Delete(ctx, gone))(t)

	r := s.lockDays("30")
	requests := s.rs.Requests(s.rec.ID)["PUT retention"]
	var told []int
	got := must(r.Lock(ctx, backup.Locking{Progress: func(done, all int) { told = append(told, done, all) }}))(t)
	requests = s.rs.Requests(s.rec.ID)["PUT retention"] - requests
	if !slices.Equal(got.Images, []string{"image-1"}) || got.Days != 30 || got.Missing != 0 || got.Bytes == 0 {
		t.Errorf("Lock() = %+v, want image-1 locked for 30 days", got)
	}
	if got.Calls != requests || int64(got.Blobs) != requests || len(told) == 0 || told[len(told)-1] != got.Blobs {
		t.Errorf("%d blobs, %d calls, %d requests, told %v; want one for each", got.Blobs, got.Calls, requests, told)
	}
	if at := time.Until(got.Until); at > days(30) || at < days(30)-time.Minute {
		t.Errorf("locked until %s, want 30 days from now", got.Until)
	}
	for name, until := range b.locksOf(t) {
		long := time.Until(until) > days(29)
		if want := !strings.HasPrefix(name, "p") || slices.Contains(first, name); long != want {
			t.Errorf("%s is locked until %s; locked anew: %t, want %t", name, until, long, want)
		}
	}
	// A period that was made shorter takes nothing back, and is no failure.
	again := must(s.lockDays("3").Lock(ctx, backup.Locking{}))(t)
	if again.Blobs != got.Blobs {
		t.Errorf("with a shorter period %d blobs are locked, want the same %d", again.Blobs, got.Blobs)
	}
	for _, name := range first {
		if _, until := b.lockOf(t, b.settings["prefix"]+name); time.Until(until) < days(29) {
			t.Errorf("%s is locked until %s after a shorter period", name, until)
		}
	}
	compare(t, s.again(), ref, d)
}

// TestAnImageLocksWhatItSharesWithOlderOnes: before a backup succeeds, packs
// that were written long ago are locked anew, unless its base's are known to be.
func TestAnImageLocksWhatItSharesWithOlderOnes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := newBucket(t, true)
	b.settings["lock_mode"], b.settings["lock_days"] = "governance", "7"
	now := time.Now()
	c := &movedClock{now: now.Add(-days(3))}
	rs := repository.New(repository.Config{Installation: "installation-1", Dir: t.TempDir(), Now: c.Now})
	t.Cleanup(func() { must(0, rs.Close(context.Background()))(t) })
	s := &site{t: t, rs: rs, rec: record("")}
	s.rec.Kind, s.rec.Settings = b.kind, b.settings
	must(rs.Create(ctx, s.rec))(t)
	s.Repository = must(rs.Repository(ctx, s.rec))(t)
	shared := sparse(rng(1), 2000, 2*mib)
	base, _ := take(t, s, draft("image-1"), shared)
	old := packsOnly(b.locksOf(t))

	c.set(now)
	d := draft("image-2")
	d.BaseRef = base
	own := sparse(rng(2), 2001, 2*mib)
	ref, _ := take(t, s, d, shared, own)
	for name, ask := range map[string]struct {
		backup.Locking
		blobs int
		until time.Time
	}{
		"base known to be locked": {backup.Locking{Ref: ref, Base: base, BaseUntil: now.Add(days(28) + 14*time.Hour)}, 0, now.Add(days(28) + 14*time.Hour)},
	} {
		got := must(s.lockDays("30").Lock(ctx, ask.Locking))(t)
		if got.Blobs != ask.blobs || !got.Until.Equal(ask.until) {
			t.Errorf("%s: %d blobs locked, all until %s; want %d, %s", name, got.Blobs, got.Until, ask.blobs, ask.until)
		}
	}
	got := must(s.lockDays("30").Lock(ctx, backup.Locking{Ref: ref, Base: base, BaseUntil: now.Add(days(5))}))(t)
	if got.Blobs == 0 || got.Blobs != int(got.Calls) {
		t.Fatalf("Lock() = %+v, want the shared packs locked", got)
	}
	anew := 0
	for name, until := range b.locksOf(t) {
		if time.Until(until) < days(29) || strings.HasPrefix(name, "kopia.") { // these are written anew when the settings change
			continue
		}
		anew++
		if strings.HasPrefix(name, "p") && !slices.Contains(old, name) {
			t.Errorf("%s was locked anew, though it has just been written", name)
		}
	}
	if anew != got.Blobs {
		t.Errorf("%d objects are locked for 30 days, want the %d that were told", anew, got.Blobs)
	}
	for _, name := range old {
		if _, until := b.lockOf(t, b.settings["prefix"]+name); time.Until(until) < days(29) {
			t.Errorf("%s, which the image shares, is locked until %s", name, until)
		}
	}
	_, err := s.Lock(ctx, backup.Locking{Ref: "none"})
	wantCode(t, "Lock() of no image", err, backup.NotFound)
}

// TestACollectionInALockedBucketGivesUpWhatTheStorageKeeps: it neither fails
// nor says that space came back. The versions stay until their lock ends.
func TestACollectionInALockedBucketGivesUpWhatTheStorageKeeps(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, b := lockedSite(t, "compliance")
	d := sparse(rng(1), 2000, 2*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	gone, _ := take(t, s, draft("image-2"), sparse(rng(2), 2000, 3*mib))
	before := packsOnly(b.locksOf(t))
	must(0, s.Delete(ctx, gone))(t)
	var kept int64
	for range 4 {
		c := must(repository.CollectAtOnce(ctx, s.Repository, backup.Collection{}))(t)
		if c.Freed != 0 {
			t.Errorf("%d bytes are said to be free; the storage keeps them", c.Freed)
		}
		kept += c.Locked
	}
	if kept < mib {
		t.Errorf("%d bytes given up, want the deleted image's", kept)
	}
	after := packsOnly(b.locksOf(t))
	versions := map[string]bool{}
	for _, o := range b.held(t) {
		versions[strings.TrimPrefix(o.Key, b.settings["prefix"])] = true
	}
	vanished := 0
	for _, name := range before {
		if !slices.Contains(after, name) {
			vanished++
		}
		if !versions[name] {
			t.Errorf("%s is gone for good before its lock has ended", name)
		}
	}
	if vanished == 0 {
		t.Error("no pack was given up")
	}
	compare(t, s.again(), ref, d)
	got := must(s.Lock(ctx, backup.Locking{}))(t)
	if got.Missing != 0 || !slices.Equal(got.Images, []string{"image-1"}) {
		t.Errorf("Lock() after the collection = %+v, want all that image-1 needs", got)
	}
}

// TestACollectionCopesWithPacksThatItMayNotDeleteYet: a storage without versions
// refuses to delete. The collection does the rest, and later ones try again.
func TestACollectionCopesWithPacksThatItMayNotDeleteYet(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := newBucket(t, true)
	to := must(url.Parse("https://" + b.settings["endpoint"]))(t)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	transport.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(b.settings["ca_certificate"]))
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to); p.Out.Host = p.In.Host }}
	var refused atomic.Int64
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if name := path.Base(q.URL.Path); q.Method == http.MethodDelete && strings.ContainsAny(name[:1], "pqx") {
			refused.Add(1)
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<Error><Code>AccessDenied</Code><Message>Object is WORM protected.</Message></Error>")
			return
		}
		proxy.ServeHTTP(w, q)
	}))
	t.Cleanup(front.Close)
	b.settings["endpoint"] = front.Listener.Addr().String()
	b.settings["ca_certificate"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}))
	b.settings["lock_mode"], b.settings["lock_days"] = "compliance", "7"
	s := siteAt(t, b.peer)
	d := sparse(rng(1), 2000, 2*mib)
	ref, _ := take(t, s, draft("image-1"), d)
	gone, _ := take(t, s, draft("image-2"), sparse(rng(2), 2000, 2*mib))
	must(0, s.Delete(ctx, gone))(t)
	var kept int64
	for range 4 {
		c := must(repository.CollectAtOnce(ctx, s.Repository, backup.Collection{}))(t)
		if c.Freed != 0 {
			t.Errorf("%d bytes are said to be free", c.Freed)
		}
		kept += c.Locked
	}
	if kept == 0 || refused.Load() == 0 {
		t.Errorf("%d bytes wait for their lock, %d deletions were refused; want some", kept, refused.Load())
	}
	compare(t, s.again(), ref, d)
}

func TestOnlyARepositoryWithObjectLockLocks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, err := s.Lock(t.Context(), backup.Locking{})
	wantCode(t, "Lock() without object lock", err, backup.Conflict)
}

// TestALockingThatCannotReachTheStorageFails: nobody may be told that all is
// locked when some of it is not.
func TestALockingThatCannotReachTheStorageFails(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, b := lockedSite(t, "governance")
	take(t, s, draft("image-1"), sparse(rng(1), 2000, 2*mib))
	s.rs.Hurry(time.Millisecond, time.Second)
	r := s.lockDays("30") // opened with the short patience
	b.FailEvery.Store(1)
	_, err := r.Lock(ctx, backup.Locking{})
	wantCode(t, "Lock() without a storage", err, backup.RepositoryUnreachable)
	b.FailEvery.Store(0)
	got := must(r.Lock(ctx, backup.Locking{}))(t)
	if got.Blobs == 0 {
		t.Errorf("Lock() with the storage back = %+v", got)
	}
}

// BenchmarkLocking tells what the daily extension of an image of 512 MiB of
// random bytes costs; docs/dev/locks.md has the figures.
func BenchmarkLocking(b *testing.B) {
	bucket := newBucket(b, true)
	bucket.settings["lock_mode"], bucket.settings["lock_days"] = "governance", "7"
	s := siteAt(b, bucket.peer)
	d := &disk{DiskDraft: backup.DiskDraft{Key: 2000, Capacity: 512 * mib}, bytes: make([]byte, 512*mib)}
	fill := rng(1)
	for i := 0; i < len(d.bytes); i += 8 {
		binary.LittleEndian.PutUint64(d.bytes[i:], fill.Uint64())
	}
	d.ranges = [][2]int64{{0, d.Capacity}}
	take(b, s, draft("image-1"), d)
	var got backup.StorageLocked
	b.ResetTimer()
	for range b.N {
		got = must(s.Lock(b.Context(), backup.Locking{}))(b)
	}
	b.ReportMetric(float64(got.Calls), "calls")
	b.ReportMetric(float64(got.Calls)*tib/float64(got.Bytes), "calls/TiB")
}
