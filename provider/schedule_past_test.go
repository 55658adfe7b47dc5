package provider_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// later starts a server whose clock says noon of today in Tokyo and can be put
// forward, with the spare lab as its vcenter, and lets terraform and the client
// of the tests talk to it.
func later(t *testing.T) (vcenter api.VCenter, noon time.Time, forward func(time.Duration)) {
	t.Helper()
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	y, m, d := time.Now().In(tokyo).Date()
	noon = time.Date(y, m, d, 12, 0, 0, 0, tokyo)
	var ahead atomic.Int64
	ahead.Store(int64(time.Until(noon)))
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := server.New(ctx, server.Config{
		Listen: "127.0.0.1:0", Data: filepath.Join(dir, "data"), Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run the server: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close the server: %v", err)
		}
	})
	token, err := os.ReadFile(s.OperatorTokenFile())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KURA_ENDPOINT", s.URL())
	t.Setenv("KURA_TOKEN", strings.TrimSpace(string(token)))
	shared := house.api
	t.Cleanup(func() { house.api = shared })
	if house.api, err = api.New(api.Config{Endpoint: s.URL(), Token: strings.TrimSpace(string(token))}); err != nil {
		t.Fatal(err)
	}
	if vcenter, err = addVCenter(ctx, house.spare, api.VCenter{Name: "later", TimeZone: "Asia/Tokyo"}); err != nil {
		t.Fatal(err)
	}
	return vcenter, noon, func(d time.Duration) { ahead.Add(int64(d)) }
}

// TestTheDayAfterAOneTimeRunThePlanIsEmpty plans again when the date of a
// schedule has passed: nothing is to do, and what does not touch the date can
// still be changed. A date of the past is refused where it is new.
func TestTheDayAfterAOneTimeRunThePlanIsEmpty(t *testing.T) {
	vcenter, noon, forward := later(t)
	day := func(days int) string { return noon.AddDate(0, 0, days).Format(time.DateOnly) }
	of := func(name, date, more string) string {
		return schedule(name, fmt.Sprintf("virtual_machine_id = %q\nstart_time = \"02:00\"\none_time = { date = %q }\nretention_days = 1\n%s", vmOf(t, vcenter, "vm01"), date, more))
	}
	p := newProgram(t, of("once", day(1), ""))
	p.apply()
	unchanged(t, p)

	forward(48 * time.Hour)
	unchanged(t, p)
	p.write(of("once", day(1), "description = \"done\""))
	p.apply()
	unchanged(t, p)

	for name, config := range map[string]string{
		"a new schedule":      of("once", day(1), "description = \"done\"") + of("late", day(1), ""),
		"the date is changed": of("once", day(0), "description = \"done\""),
	} {
		p.write(config)
		for address, d := range p.refusals() {
			if !strings.Contains(d.Detail, "The next slot that can be booked is "+day(2)) || !strings.Contains(d.Detail, "Code slot_closed") {
				t.Errorf("%s: %s is refused by %q, want a closed slot, and the next that is open", name, address, d.Detail)
			}
		}
	}
	p.write(of("once", day(4), ""))
	p.apply()
	unchanged(t, p)
	p.ok("destroy", "-no-color", "-input=false", "-auto-approve")
}
