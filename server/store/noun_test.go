package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

// What all nouns with a name and a version have in common is told once.
type noun struct {
	insert func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error)
	rename func(ctx context.Context, tx backup.Tx, m backup.Meta, name string) (backup.Meta, error)
	byName func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error)
	byID   func(ctx context.Context, tx backup.Tx, id string) (backup.Meta, error)
	list   func(ctx context.Context, tx backup.Tx, p backup.Page) ([]string, string, error)
}

func nouns() map[string]noun {
	return map[string]noun{
		"vcenter": {
			func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error) {
				v := backup.VCenter{Name: name, Password: "p"}
				err := tx.InsertVCenter(ctx, &v)
				return v.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, m backup.Meta, name string) (backup.Meta, error) {
				v := backup.VCenter{Meta: m, Name: name}
				err := tx.UpdateVCenter(ctx, &v)
				return v.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error) {
				v, err := tx.VCenterByName(ctx, name)
				return v.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, id string) (backup.Meta, error) {
				v, err := tx.VCenter(ctx, id)
				return v.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, p backup.Page) ([]string, string, error) {
				all, next, err := tx.VCenters(ctx, p)
				return ids(all, func(v backup.VCenter) string { return v.ID }), next, err
			},
		},
		"group": {
			func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error) {
				g := backup.Group{Name: name}
				err := tx.InsertGroup(ctx, &g)
				return g.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, m backup.Meta, name string) (backup.Meta, error) {
				g := backup.Group{Meta: m, Name: name}
				err := tx.UpdateGroup(ctx, &g)
				return g.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error) {
				g, err := tx.GroupByName(ctx, name)
				return g.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, id string) (backup.Meta, error) {
				g, err := tx.Group(ctx, id)
				return g.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, p backup.Page) ([]string, string, error) {
				all, next, err := tx.Groups(ctx, p)
				return ids(all, func(g backup.Group) string { return g.ID }), next, err
			},
		},
		"schedule": {
			func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error) {
				s := backup.Schedule{Name: name}
				err := tx.InsertSchedule(ctx, &s, nil)
				return s.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, m backup.Meta, name string) (backup.Meta, error) {
				s := backup.Schedule{Meta: m, Name: name}
				err := tx.UpdateSchedule(ctx, &s, nil)
				return s.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error) {
				s, err := tx.ScheduleByName(ctx, name)
				return s.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, id string) (backup.Meta, error) {
				s, err := tx.Schedule(ctx, id)
				return s.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, p backup.Page) ([]string, string, error) {
				all, next, err := tx.Schedules(ctx, backup.ScheduleFilter{Page: p})
				return ids(all, func(s backup.Schedule) string { return s.ID }), next, err
			},
		},
		"repository": {
			func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error) {
				r := backup.RepositoryRecord{Name: name, Password: "p"}
				err := tx.InsertRepository(ctx, &r)
				return r.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, m backup.Meta, name string) (backup.Meta, error) {
				r := backup.RepositoryRecord{Meta: m, Name: name}
				err := tx.UpdateRepository(ctx, &r)
				return r.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, name string) (backup.Meta, error) {
				r, err := tx.RepositoryByName(ctx, name)
				return r.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, id string) (backup.Meta, error) {
				r, err := tx.Repository(ctx, id)
				return r.Meta, err
			},
			func(ctx context.Context, tx backup.Tx, p backup.Page) ([]string, string, error) {
				all, next, err := tx.Repositories(ctx, p)
				return ids(all, func(r backup.RepositoryRecord) string { return r.ID }), next, err
			},
		},
	}
}

func ids[T any](all []T, id func(T) string) []string {
	out := make([]string, len(all))
	for i, v := range all {
		out[i] = id(v)
	}
	return out
}

// eachNoun runs the test for every noun on both databases.
func eachNoun(t *testing.T, test func(t *testing.T, n noun, word string, db *store.DB, c *clock)) {
	t.Helper()
	for word, n := range nouns() {
		t.Run(word, func(t *testing.T) {
			on(t, func(t *testing.T, db *store.DB, c *clock) { test(t, n, word, db, c) })
		})
	}
}

func add(t *testing.T, db *store.DB, n noun, name string) backup.Meta {
	t.Helper()
	var m backup.Meta
	update(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
		m, err = n.insert(ctx, tx, name)
		return err
	})
	return m
}

func TestANewObjectGetsItsIDVersionAndTimes(t *testing.T) {
	eachNoun(t, func(t *testing.T, n noun, _ string, db *store.DB, c *clock) {
		m := add(t, db, n, "one")
		same(t, "meta", m, backup.Meta{ID: m.ID, Project: backup.DefaultProject, Version: 1, CreatedAt: c.now(), UpdatedAt: c.now()})
		if len(m.ID) != 26 {
			t.Errorf("id = %q, want 26 characters", m.ID)
		}
		same(t, "meta by id", read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Meta, error) { return n.byID(ctx, tx, m.ID) }), m)
		same(t, "meta by name", read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Meta, error) { return n.byName(ctx, tx, "one") }), m)
	})
}

func TestAChangeCountsTheVersionUpAndAStaleOneIsRefused(t *testing.T) {
	eachNoun(t, func(t *testing.T, n noun, word string, db *store.DB, c *clock) {
		old := add(t, db, n, "one")
		c.pass(time.Minute)
		var m backup.Meta
		update(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
			m, err = n.rename(ctx, tx, old, "two")
			return err
		})
		same(t, "meta", m, backup.Meta{ID: old.ID, Project: old.Project, Version: 2, CreatedAt: old.CreatedAt, UpdatedAt: c.now()})
		same(t, "stored meta", read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Meta, error) { return n.byName(ctx, tx, "two") }), m)

		var kept backup.Meta
		err := tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
			kept, err = n.rename(ctx, tx, old, "three")
			return err
		})
		wantError(t, err, backup.Stale, word, `"three"`, "version 2", "version 1")
		same(t, "meta after a refusal", kept, old)
	})
}

func TestANameIsTakenOnceAndLettersCount(t *testing.T) {
	eachNoun(t, func(t *testing.T, n noun, word string, db *store.DB, _ *clock) {
		add(t, db, n, "Alpha")
		other := add(t, db, n, "alpha")
		err := tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := n.insert(ctx, tx, "Alpha")
			return err
		})
		wantError(t, err, backup.Conflict, word, `"Alpha"`)
		err = tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := n.rename(ctx, tx, other, "Alpha")
			return err
		})
		wantError(t, err, backup.Conflict, word, `"Alpha"`)
	})
}

func TestARefusedInsertLeavesTheTransactionUsable(t *testing.T) {
	eachNoun(t, func(t *testing.T, n noun, _ string, db *store.DB, _ *clock) {
		add(t, db, n, "taken")
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := n.insert(ctx, tx, "taken")
			wantError(t, err, backup.Conflict)
			_, err = n.insert(ctx, tx, "free")
			return err
		})
	})
}

func TestWhatIsNotThereIsNamed(t *testing.T) {
	eachNoun(t, func(t *testing.T, n noun, word string, db *store.DB, _ *clock) {
		wantError(t, failure(t, db, func(ctx context.Context, tx backup.Tx) (backup.Meta, error) { return n.byID(ctx, tx, "x") }), backup.NotFound, "There is no "+word, `"x"`)
		wantError(t, failure(t, db, func(ctx context.Context, tx backup.Tx) (backup.Meta, error) { return n.byName(ctx, tx, "y") }), backup.NotFound, "There is no "+word, `"y"`)
		err := tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error {
			_, err := n.rename(ctx, tx, backup.Meta{ID: "x", Version: 1}, "z")
			return err
		})
		wantError(t, err, backup.NotFound, `"x"`)
	})
}

func TestPagesMissNothingAndRepeatNothingWhileRowsAreAdded(t *testing.T) {
	eachNoun(t, func(t *testing.T, n noun, _ string, db *store.DB, c *clock) {
		want := map[string]bool{}
		for i := range 250 {
			c.pass(time.Second)
			want[add(t, db, n, fmt.Sprint("n", i)).ID] = true
		}
		seen, p := map[string]bool{}, backup.Page{Limit: 40}
		for page := 0; ; page++ {
			var got []string
			view(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
				got, p.Cursor, err = n.list(ctx, tx, p)
				return err
			})
			for _, id := range got {
				if seen[id] {
					t.Fatalf("id %s is on two pages", id)
				}
				seen[id] = true
			}
			if p.Cursor == "" {
				break
			}
			if len(got) != 40 {
				t.Fatalf("page %d has %d rows, want 40", page, len(got))
			}
			c.pass(time.Second)
			add(t, db, n, fmt.Sprint("between", page))
		}
		for id := range want {
			if !seen[id] {
				t.Errorf("id %s is on no page", id)
			}
		}
	})
}

func TestABrokenCursorOrLimitIsRefused(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		for _, p := range []backup.Page{{Cursor: "?"}, {Cursor: "AAAA"}, {Cursor: strings.Repeat("x", 100)}, {Cursor: "MTIzL2FiYw"}, {Limit: -1}, {Limit: 1001}} {
			err := failure(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Group, error) {
				all, _, err := tx.Groups(ctx, p)
				return all, err
			})
			wantError(t, err, backup.Invalid)
		}
		// A cursor of a list by id fits no list by time.
		for _, c := range []string{"L2FiYw", "eC9hYmM"} {
			err := failure(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Run, error) {
				all, _, err := tx.Runs(ctx, backup.RunFilter{Page: backup.Page{Cursor: c}})
				return all, err
			})
			wantError(t, err, backup.Invalid, c)
		}
	})
}

func TestAVCenterComesBackAsItWasStored(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		v := backup.VCenter{
			Name: "vc <\u00e4>\U0001f600", Endpoint: "https://vc", Username: "u", Password: "p'\"", Thumbprint: "aa:bb", CACertificate: "PEM", TimeZone: "Asia/Tokyo",
			SlotCapacity: 7, Limits: backup.Limits{Disks: 3, BytesPerSecond: 1 << 40}, Transport: backup.TransportNFC,
			TagMappings:  []backup.TagMapping{{Category: "OS", Tag: "Windows", Key: "os", Value: "windows"}},
			InstanceUUID: "uuid", APIVersion: "8.0", SyncState: backup.SyncPending,
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertVCenter(ctx, &v) })
		get := func() backup.VCenter {
			return read(t, db, func(ctx context.Context, tx backup.Tx) (backup.VCenter, error) { return tx.VCenter(ctx, v.ID) })
		}
		same(t, "vcenter", get(), v)

		// seed:W22 what a sync learns is kept apart from what a user changes.
		synced := get()
		synced.SyncState, synced.SyncedAt, synced.APIVersion, synced.Name = backup.SyncReady, c.now(), "8.0.3", "not a sync's business"
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.SaveSync(ctx, synced) })
		v.SlotCapacity, v.Password = 8, "changed"
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateVCenter(ctx, &v) })
		want := v
		want.SyncState, want.SyncedAt = backup.SyncReady, c.now()
		same(t, "vcenter after a sync and a change of an older copy", get(), want)
		wantError(t, tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error {
			return tx.SaveSync(ctx, backup.VCenter{Meta: backup.Meta{ID: "x"}})
		}), backup.NotFound, `"x"`)
	})
}

func TestAVCenterInUseIsNotDeleted(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		v := backup.VCenter{Name: "vc"}
		vms := []backup.VirtualMachine{{InstanceUUID: "1", MOID: "vm-1", Name: "a"}, {InstanceUUID: "2", MOID: "vm-2", Name: "b"}}
		selecting, listing := backup.Group{Name: "selecting"}, backup.Group{Name: "listing"}
		s := backup.Schedule{Name: "nightly"}
		image := backup.Image{ID: "i1", PointInTime: c.now()}
		job := backup.Job{ID: "j1", Kind: backup.KindBackup, State: backup.JobRunning}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			if err := tx.InsertVCenter(ctx, &v); err != nil {
				return err
			}
			vms[0].VCenterID, vms[1].VCenterID = v.ID, v.ID
			if err := tx.SaveMachines(ctx, vms); err != nil {
				return err
			}
			selecting.Selector = &backup.Selector{VCenterID: v.ID}
			listing.VirtualMachineIDs = []string{vms[1].ID}
			s.VMID, image.VCenterID, job.VCenterID = vms[0].ID, v.ID, v.ID
			return errors.Join(tx.InsertGroup(ctx, &selecting), tx.InsertGroup(ctx, &listing), tx.InsertImage(ctx, image), tx.InsertJob(ctx, job),
				tx.InsertSchedule(ctx, &s, nil), tx.InsertJob(ctx, backup.Job{ID: "sync", Kind: backup.KindSync, VCenterID: v.ID}))
		})
		remove := func() error {
			return tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteVCenter(ctx, v.ID) })
		}
		wantError(t, remove(), backup.InUse, `"vc"`, `schedule "nightly"`, `groups "listing", "selecting"`, "1 image", "1 backup or restore")
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.DeleteSchedule(ctx, s.ID), tx.DeleteGroup(ctx, listing.ID), tx.DeleteImage(ctx, "i1"))
		})
		wantError(t, remove(), backup.InUse, `group "selecting"`)
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteGroup(ctx, selecting.ID) })
		wantError(t, remove(), backup.InUse, "1 backup or restore")
		if err := db.Finish(t.Context(), backup.Lease{JobID: "j1"}, backup.Ending{State: backup.JobSucceeded}, nil); err != nil {
			t.Fatal(err)
		}
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		wantError(t, remove(), backup.NotFound, v.ID)
		sync := read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Job, error) { return tx.Job(ctx, "sync") })
		if sync.State != backup.JobCancelled {
			t.Errorf("the waiting sync is %s, want cancelled", sync.State)
		}
		wantError(t, failure(t, db, func(ctx context.Context, tx backup.Tx) (backup.VirtualMachine, error) {
			return tx.Machine(ctx, vms[0].ID)
		}), backup.NotFound)
	})
}

func TestAGroupComesBackAsItWasStoredAndStaysWhileSchedulesAreOnIt(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		g := backup.Group{
			Name: "g", Description: "d", VirtualMachineIDs: []string{"b", "a"}, ExcludeIDs: []string{"c"}, ReservedSeats: 4, MaxParallel: 2, Consistent: true,
			Labels: map[string]string{"team": "a"}, DeletionProtection: true,
			Selector: &backup.Selector{VCenterID: "v", Tags: []backup.Tag{{Category: "backup", Name: "gold"}}, Folder: "/DC0/vm", Recursive: true, ResourcePool: "/p", NameRegex: "^a"},
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertGroup(ctx, &g) })
		get := func() backup.Group {
			return read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Group, error) { return tx.Group(ctx, g.ID) })
		}
		same(t, "group", get(), g)
		g.Selector, g.Labels = nil, nil
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateGroup(ctx, &g) })
		same(t, "changed group", get(), g)

		for i := range 7 {
			update(t, db, func(ctx context.Context, tx backup.Tx) error {
				return tx.InsertSchedule(ctx, &backup.Schedule{Name: fmt.Sprint("s", i), GroupID: g.ID}, nil)
			})
		}
		err := tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteGroup(ctx, g.ID) })
		wantError(t, err, backup.InUse, `schedules "s0", "s1", "s2", "s3", "s4" and 2 more`)
		wantError(t, tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteGroup(ctx, "x") }), backup.NotFound)
	})
}

func TestARepositoryComesBackAsItWasStored(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		r := backup.RepositoryRecord{
			Name: "r", Kind: "filesystem", Settings: map[string]string{"path": "/srv"}, Password: "secret", Compression: "s2", VerifyDays: 30, Default: true,
			UniqueID: "u", CheckedAt: c.now(), CheckError: "e", StoredBytes: 1 << 50, ImageCount: 9, FreeBytes: -1, OwnedBy: "i", ReadOnly: true,
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertRepository(ctx, &r) })
		r.Settings["path"], r.Password, r.Default = "/srv2", "other", false
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateRepository(ctx, &r) })
		same(t, "repository", read(t, db, func(ctx context.Context, tx backup.Tx) (backup.RepositoryRecord, error) {
			return tx.Repository(ctx, r.ID)
		}), r)
	})
}
