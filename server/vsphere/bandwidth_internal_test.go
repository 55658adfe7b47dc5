package vsphere

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// movers are what the store counts.
type movers struct {
	mu  sync.Mutex // guards what follows
	n   int
	err error
}

func (m *movers) set(n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n, m.err = n, err
}

func (m *movers) count(_ context.Context, vcenter string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if vcenter != "vc1" {
		return 0, errors.New("another vcenter was asked about")
	}
	return m.n, m.err
}

func TestTheServersThatMoveDisksShareTheBandwidth(t *testing.T) {
	l, err := lab.New(lab.Config{Dir: t.TempDir(), VMs: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var m movers
	c := New(Config{Movers: m.count, Share: 2 * time.Millisecond})
	t.Cleanup(func() { _ = c.Close() })
	v := backup.VCenter{Meta: backup.Meta{ID: "vc1"}, Endpoint: "https://" + l.URL().Host, Username: l.User(), Password: backup.Secret(l.Password()), Thumbprint: l.Thumbprint()}
	connect := func(limit int64) *Session {
		t.Helper()
		v.Limits.BytesPerSecond = limit
		s, err := c.Connect(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		return s.(*Session)
	}
	s := connect(0)
	if s.speed.Limit() != rate.Inf {
		t.Errorf("without a limit it is %g", s.speed.Limit())
	}
	for _, x := range []struct {
		servers int
		err     error
		want    rate.Limit
	}{{0, nil, 9 << 20}, {1, nil, 9 << 20}, {3, nil, 3 << 20}, {0, errors.New("the database is away"), 3 << 20}, {2, nil, 9 << 19}} {
		m.set(x.servers, x.err)
		if connect(9<<20) != s || s.speed.Limit() != x.want {
			t.Errorf("with %d servers (%v) the share is %g, want %g", x.servers, x.err, s.speed.Limit(), x.want)
		}
	}
	m.set(4, nil) // begins while a disk is being read, and no session is opened
	for end := time.Now().Add(time.Minute); s.speed.Limit() != 9<<18; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the share stays %g", s.speed.Limit())
		}
	}
}
