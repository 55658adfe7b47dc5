package server_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// TestCapacityFigures measures what it costs to book a seat among very many
// schedules. Here there are few, so that the measuring itself is tested; "make
// prove-capacity" measures with 100,000 (KURA_PROVE_SCHEDULES) and writes the
// figures to the file KURA_BENCH_OUT too.
func TestCapacityFigures(t *testing.T) {
	schedules, err := strconv.Atoi(cmp.Or(os.Getenv("KURA_PROVE_SCHEDULES"), "300"))
	if err != nil || schedules < 100 {
		t.Fatalf("KURA_PROVE_SCHEDULES = %q, want a number of at least 100", os.Getenv("KURA_PROVE_SCHEDULES"))
	}
	calls := min(2000, schedules/10)
	var all []*seatFigures
	for _, database := range []string{"sqlite", "postgres"} {
		for _, vcenters := range []int{1, 50} {
			all = append(all, measureSeats(t, database, vcenters, schedules, calls))
		}
	}
	t.Logf("%d schedules, 400 days, %d clients, %d calls of each kind\n%s", schedules, benchClients, calls, seatTable(all))
	if path := os.Getenv("KURA_BENCH_OUT"); path != "" {
		text, err := json.MarshalIndent(map[string]any{"schedules": schedules, "clients": benchClients, "calls": calls, "capacity": all}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const benchClients = 10

// quantiles are of the time of a call, in milliseconds.
type quantiles struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

func (q quantiles) String() string { return fmt.Sprintf("%.3g / %.3g", q.P50, q.P99) }

func quantilesOf(all []time.Duration) quantiles {
	slices.Sort(all)
	ms := func(p int) float64 { return float64(all[(len(all)-1)*p/100].Microseconds()) / 1000 }
	return quantiles{ms(50), ms(99)}
}

// seatFigures are the figures of one database with so many vcenters.
type seatFigures struct {
	Database string    `json:"database"`
	VCenters int       `json:"vcenters"`
	Load     float64   `json:"load_s"`    // storing all schedules
	Rebuild  float64   `json:"rebuild_s"` // the first look at every vcenter
	Create   quantiles `json:"create"`
	Update   quantiles `json:"update"`
	Delete   quantiles `json:"delete"`
	Rate     float64   `json:"creates_per_s"`
	Lone     quantiles `json:"create_one_client"`
	Check    quantiles `json:"check"`            // one that fits, one client
	Refusal  quantiles `json:"check_refused"`    // with what is free instead
	Hopeless quantiles `json:"check_never_free"` // after a look at everything
	Idle     quantiles `json:"idle_dispatch"`
	Commit   quantiles `json:"commit"` // of one row, one client
	Fsync    quantiles `json:"fsync"`  // of one page of a file, beside the database
}

func seatTable(all []*seatFigures) string {
	var b strings.Builder
	row := func(name string, get func(*seatFigures) string) {
		fmt.Fprintf(&b, "%-42s", name)
		for _, f := range all {
			fmt.Fprintf(&b, " %16s", get(f))
		}
		b.WriteByte('\n')
	}
	row("", func(f *seatFigures) string { return fmt.Sprintf("%s, %d vc", f.Database, f.VCenters) })
	for _, r := range []struct {
		name string
		get  func(*seatFigures) fmt.Stringer
	}{
		{"create, p50 / p99 ms", func(f *seatFigures) fmt.Stringer { return f.Create }},
		{"update", func(f *seatFigures) fmt.Stringer { return f.Update }},
		{"delete", func(f *seatFigures) fmt.Stringer { return f.Delete }},
		{"create, one client", func(f *seatFigures) fmt.Stringer { return f.Lone }},
		{"check that fits, one client", func(f *seatFigures) fmt.Stringer { return f.Check }},
		{"check refused, with recommendations", func(f *seatFigures) fmt.Stringer { return f.Refusal }},
		{"check refused, nothing is free", func(f *seatFigures) fmt.Stringer { return f.Hopeless }},
		{"dispatch when nothing is due", func(f *seatFigures) fmt.Stringer { return f.Idle }},
		{"commit of one row, one client", func(f *seatFigures) fmt.Stringer { return f.Commit }},
		{"fsync of one page", func(f *seatFigures) fmt.Stringer { return f.Fsync }},
	} {
		row(r.name, func(f *seatFigures) string { return r.get(f).String() })
	}
	row("creates per second", func(f *seatFigures) string { return fmt.Sprintf("%.0f", f.Rate) })
	row("first look at all vcenters, s", func(f *seatFigures) string { return fmt.Sprintf("%.3g", f.Rebuild) })
	row("load, s", func(f *seatFigures) string { return fmt.Sprintf("%.3g", f.Load) })
	return b.String()
}

// crowd is a database that is full of schedules.
type crowd struct {
	*testing.T
	db        *store.DB
	planner   *backup.Planner
	vcenters  []backup.VCenter
	vms       []backup.VirtualMachine
	schedules int
}

// measureSeats measures one database. On PostgreSQL it is one that waits for
// the disk, as SQLite does.
func measureSeats(t *testing.T, database string, vcenters, schedules, calls int) *seatFigures {
	t.Helper()
	dir := t.TempDir()
	dsn := "sqlite:" + filepath.Join(dir, "kura.db")
	if database == "postgres" {
		cluster, err := pgtest.Start("fsync=on", "synchronous_commit=on", "full_page_writes=on")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := cluster.Close(); err != nil {
				t.Error(err)
			}
		}()
		dsn = cluster.DSN("postgres")
	}
	db, err := store.Open(t.Context(), store.Config{DSN: dsn, Key: bytes.Repeat([]byte{7}, 32), Migrate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	f := &seatFigures{Database: database, VCenters: vcenters}
	c := &crowd{T: t, db: db, planner: &backup.Planner{Store: db}, schedules: schedules}
	begun := time.Now()
	c.load(vcenters)
	f.Load = time.Since(begun).Seconds()
	f.Rebuild = c.rebuild()
	c.clients(calls, f)
	f.Lone = c.timed(max(20, calls/10), func(i int) error {
		_, err := c.planner.CreateSchedule(t.Context(), c.schedule(fmt.Sprint("lone ", i), i))
		return err
	})
	c.refusals(max(20, calls/10), f)
	for made := 1; made > 0; { // what has fallen due meanwhile
		if made, err = c.planner.Dispatch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.Idle = c.timed(20, func(int) error {
		_, err := c.planner.Dispatch(t.Context())
		return err
	})
	f.Commit = c.timed(max(20, calls/10), func(i int) error {
		return db.Update(t.Context(), func(tx backup.Tx) error {
			return tx.InsertGroup(t.Context(), &backup.Group{Name: fmt.Sprint("row ", i)})
		})
	})
	file, err := os.Create(filepath.Join(dir, "page"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f.Fsync = c.timed(100, func(i int) error {
		_, err := file.WriteAt(make([]byte, 4096), int64(i)*4096)
		return errors.Join(err, file.Sync())
	})
	return f
}

func (c *crowd) update(fn func(ctx context.Context, tx backup.Tx) error) {
	c.Helper()
	if err := c.db.Update(c.Context(), func(tx backup.Tx) error { return fn(c.Context(), tx) }); err != nil {
		c.Fatal(err)
	}
}

// load stores the schedules as the planner would, many in a transaction.
func (c *crowd) load(vcenters int) {
	c.Helper()
	repository := backup.RepositoryRecord{Name: "default", Kind: "filesystem", Password: "secret", Default: true}
	c.update(func(ctx context.Context, tx backup.Tx) error { return tx.InsertRepository(ctx, &repository) })
	for i := range vcenters {
		v, err := c.planner.CreateVCenter(c.Context(), backup.VCenter{Name: fmt.Sprint("v", i), Endpoint: "https://v.example", Username: "kura", Password: "p", SlotCapacity: 10_000})
		if err != nil {
			c.Fatal(err)
		}
		c.vcenters = append(c.vcenters, v)
	}
	for i := range 1000 {
		v := c.vcenters[i%vcenters]
		c.vms = append(c.vms, backup.VirtualMachine{VCenterID: v.ID, InstanceUUID: fmt.Sprint(i), MOID: fmt.Sprint("vm-", i), Name: fmt.Sprint("vm", i)})
	}
	c.update(func(ctx context.Context, tx backup.Tx) error { return tx.SaveMachines(ctx, c.vms) })
	for done := 0; done < c.schedules; {
		c.update(func(ctx context.Context, tx backup.Tx) error {
			upTo := min(done+1000, c.schedules)
			for ; done < upTo; done++ {
				s := c.schedule(fmt.Sprint("s", done), done).Defaulted()
				s.RepositoryID, s.Seats = repository.ID, 1
				seats := []backup.SeatsBooked{{VCenterID: c.vms[done%len(c.vms)].VCenterID, Seats: 1}}
				if err := tx.InsertSchedule(ctx, &s, seats); err != nil {
					return err
				}
				if err := tx.SetDueMark(ctx, s.ID, tx.Now()); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// schedule is the ith of a mix of all types, hours and zones.
func (c *crowd) schedule(name string, i int) backup.Schedule {
	r := backup.Recurrence{TimeZone: rushed[i/24%len(rushed)], Hour: i % 24}
	days := 7
	switch i / 7 % 10 {
	case 0, 1, 2, 3, 4, 5:
		r.Kind = backup.Daily
	case 6, 7:
		r.Kind, r.Weekdays, days = backup.Weekly, []time.Weekday{time.Weekday(i / 3 % 7)}, 14
	case 8:
		r.Kind, r.MonthDays, days = backup.Monthly, []int{1 + i/3%28}, 31
	case 9:
		r.Kind, r.Date, days = backup.OneTime, backup.DateOf(time.Now().AddDate(0, 0, 2+i/3%390)), 31
	}
	return backup.Schedule{Name: name, Enabled: true, LatestHour: 23, RetentionDays: days, MaxDelayHours: 6, VMID: c.vms[i%len(c.vms)].ID, Recurrence: r, DurationHours: 1 + i/5%10/9}
}

// rebuild tells how long the first look at all vcenters takes a server.
func (c *crowd) rebuild() float64 {
	c.Helper()
	fresh := &backup.Planner{Store: c.db}
	begun := time.Now()
	for i := range c.vcenters {
		if _, _, err := fresh.CheckSchedule(c.Context(), c.schedule("first look", i), nil); err != nil {
			c.Fatal(err)
		}
	}
	c.planner = fresh
	return time.Since(begun).Seconds()
}

// timed calls do n times, one after the other.
func (c *crowd) timed(n int, do func(i int) error) quantiles {
	c.Helper()
	var took []time.Duration
	for i := range n {
		begun := time.Now()
		if err := do(i); err != nil {
			c.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	return quantilesOf(took)
}

// clients lets several at once create, move and delete.
func (c *crowd) clients(calls int, f *seatFigures) {
	c.Helper()
	stored := make([]backup.Schedule, calls)
	together := func(do func(i int) error) (quantiles, time.Duration) {
		var mu sync.Mutex
		var took []time.Duration
		begun := time.Now()
		var wg sync.WaitGroup
		for k := range benchClients {
			wg.Go(func() {
				for i := k; i < calls; i += benchClients {
					begun := time.Now()
					if err := do(i); err != nil {
						c.Errorf("call %d: %v", i, err)
					}
					mu.Lock()
					took = append(took, time.Since(begun))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return quantilesOf(took), time.Since(begun)
	}
	var all time.Duration
	f.Create, all = together(func(i int) (err error) {
		stored[i], err = c.planner.CreateSchedule(c.Context(), c.schedule(fmt.Sprint("new ", i), i))
		return err
	})
	f.Rate = float64(calls) / all.Seconds()
	f.Update, _ = together(func(i int) error {
		s := stored[i]
		s.Recurrence.Hour = (s.Recurrence.Hour + 5) % 24
		_, err := c.planner.UpdateSchedule(c.Context(), s)
		return err
	})
	f.Delete, _ = together(func(i int) error { return c.planner.DeleteSchedule(c.Context(), stored[i].ID) })
}

// refusals compares checks that fit with such as do not: once while most hours
// have room, and once while none has.
func (c *crowd) refusals(n int, f *seatFigures) {
	c.Helper()
	v, now := c.vcenters[0], time.Now()
	daily := c.schedule("daily", 0)
	daily.DurationHours = 1
	check := func() error {
		_, _, err := c.planner.CheckSchedule(c.Context(), daily, nil)
		return err
	}
	f.Check = c.timed(n, func(int) error { return check() })
	slots, _, err := c.planner.Timeslots(c.Context(), backup.TimeslotQuery{VCenterID: v.ID, TimeZone: "UTC", From: now, To: now.AddDate(0, 0, 400)})
	if err != nil {
		c.Fatal(err)
	}
	used := func(a, b backup.Timeslot) int { return a.Used - b.Used }
	fullest, emptiest := slices.MaxFunc(slots[48:], used), slices.MinFunc(slots[48:], used)
	daily.Recurrence.TimeZone, daily.Recurrence.Hour = "UTC", fullest.Start.Hour()
	refused := func(capacity int) quantiles {
		v.SlotCapacity, v.Version = max(1, capacity), 0
		if _, err := c.planner.UpdateVCenter(c.Context(), v); err != nil {
			c.Fatal(err)
		}
		return c.timed(n, func(int) error {
			if err := check(); backup.CodeOf(err) != backup.SlotFull {
				return fmt.Errorf("%w: want slot_full at %s with %d seats", cmp.Or(err, errors.New("booked")), fullest.Start, v.SlotCapacity)
			}
			return nil
		})
	}
	f.Refusal = refused(fullest.Used)
	f.Hopeless = refused(emptiest.Used)
}
