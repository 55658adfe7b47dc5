package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/store"
)

func TestTheInventoryIsKeptByVCenterAndInstanceUUID(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		a, b := backup.VCenter{Name: "a"}, backup.VCenter{Name: "b"}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.InsertVCenter(ctx, &a), tx.InsertVCenter(ctx, &b))
		})
		save := func(vms ...backup.VirtualMachine) []backup.VirtualMachine {
			t.Helper()
			update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.SaveMachines(ctx, vms) })
			return vms
		}
		full := backup.VirtualMachine{
			VCenterID: a.ID, InstanceUUID: "1", BIOSUUID: "bios", MOID: "vm-1", Name: "<\u00e4/%2f>\U0001f600", Folder: "/DC0/vm", ResourcePool: "/p", Host: "esx1", PowerState: backup.PoweredOn,
			Template: true, GuestID: "g", CPUs: 4, MemoryMiB: 1 << 20, Disks: []backup.VMDisk{{Key: 2000, Label: "Hard disk 1", Capacity: 1 << 45, File: "[ds] a.vmdk", Unprotectable: "raw"}},
			NICs: []backup.VMNIC{{Key: 4000, MAC: "m", Network: "n", IPs: []string{"::1"}}}, Datastores: []string{"ds"}, Tags: []backup.Tag{{Category: "c", Name: "n"}}, Unprotectable: "u", Warnings: []string{"w"}, SeenAt: c.now(),
		}
		vms := save(full, backup.VirtualMachine{VCenterID: a.ID, InstanceUUID: "2", MOID: "vm-2", Name: "two"}, backup.VirtualMachine{VCenterID: b.ID, InstanceUUID: "1", MOID: "vm-1", Name: "two"})
		get := func(id string) backup.VirtualMachine {
			return read(t, db, func(ctx context.Context, tx backup.Tx) (backup.VirtualMachine, error) { return tx.Machine(ctx, id) })
		}
		full.ID = vms[0].ID
		same(t, "VM", get(vms[0].ID), full)
		list := func(f backup.MachineFilter) string {
			all := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.VirtualMachine, error) {
				all, _, err := tx.Machines(ctx, f)
				return all, err
			})
			n := map[string]int{}
			for _, vm := range all {
				n[vm.ID]++
			}
			return fmt.Sprint(n[vms[0].ID], n[vms[1].ID], n[vms[2].ID])
		}
		mark := func(moids []string, keep bool) {
			t.Helper()
			update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.MarkGone(ctx, a.ID, moids, keep) })
		}
		mark([]string{"vm-2"}, false) // seed:N45 a VM that is gone is still known
		same(t, "all, by name, by ids, with those gone", []string{
			list(backup.MachineFilter{}), list(backup.MachineFilter{Name: "two"}), list(backup.MachineFilter{VCenterID: b.ID}),
			list(backup.MachineFilter{IDs: []string{vms[0].ID, vms[1].ID}}), list(backup.MachineFilter{IDs: []string{vms[0].ID, vms[1].ID}, IncludeGone: true}),
		}, []string{"1 0 1", "0 0 1", "0 0 1", "1 0 0", "1 1 0"})
		if got := get(vms[1].ID); got.GoneAt != c.now() {
			t.Errorf("gone at %v, want now", got.GoneAt)
		}
		// It comes back under another name and managed object id, and is the same VM (seed:N70).
		again := save(backup.VirtualMachine{VCenterID: a.ID, InstanceUUID: "2", MOID: "vm-99", Name: "renamed"})
		if got := get(vms[1].ID); again[0].ID != vms[1].ID || got.Name != "renamed" || got.Gone() {
			t.Errorf("VM that came back = %+v, want the old id, the new name, not gone", got)
		}
		mark([]string{"vm-99"}, true)
		same(t, "those that are left", list(backup.MachineFilter{}), "0 1 1")
		mark(nil, true)
		same(t, "those of a vcenter without VMs", list(backup.MachineFilter{}), "0 0 1")
		double := save(backup.VirtualMachine{VCenterID: a.ID, InstanceUUID: "3", MOID: "vm-31", Name: "first"}, backup.VirtualMachine{VCenterID: a.ID, InstanceUUID: "3", MOID: "vm-32", Name: "copy"})
		if double[0].ID == double[1].ID || get(double[0].ID).Name != "first" || get(double[1].ID).Name != "copy" {
			t.Errorf("two VMs of one UUID = %+v, want a row each", double)
		}
		swapped := save(backup.VirtualMachine{VCenterID: a.ID, InstanceUUID: "3", MOID: "vm-32", Name: "first"})
		if swapped[0].ID != double[1].ID || get(double[0].ID).MOID != "vm-31" {
			t.Errorf("the copy, renamed to the other's name, is %s, want it to stay %s", swapped[0].ID, double[1].ID)
		}
		// A vcenter that was put back to an earlier state gives the managed object id to another VM.
		other := save(backup.VirtualMachine{VCenterID: a.ID, InstanceUUID: "4", MOID: "vm-31", Name: "other"})
		if other[0].ID == double[0].ID || !get(double[0].ID).Gone() {
			t.Errorf("VM %s got the object of %s, which is gone: %v, want another VM in its place", other[0].ID, double[0].ID, get(double[0].ID).Gone())
		}
	})
}

func TestAnInventoryOfThousandsOfVMsIsSavedAndRead(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		v := backup.VCenter{Name: "v"}
		vms := make([]backup.VirtualMachine, 2000)
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			if err := tx.InsertVCenter(ctx, &v); err != nil {
				return err
			}
			for i := range vms {
				vms[i] = backup.VirtualMachine{VCenterID: v.ID, InstanceUUID: fmt.Sprint(i), MOID: fmt.Sprint("vm-", i), Name: fmt.Sprint("vm", i)}
			}
			return tx.SaveMachines(ctx, vms)
		})
		want := ids(vms, func(vm backup.VirtualMachine) string { return vm.ID })
		got := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.VirtualMachine, error) {
			all, _, err := tx.Machines(ctx, backup.MachineFilter{IDs: want})
			return all, err
		})
		if len(got) != 2000 {
			t.Errorf("%d VMs by id, want 2000", len(got))
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.MarkGone(ctx, v.ID, []string{"vm-7"}, true) })
		left := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.VirtualMachine, error) {
			all, _, err := tx.Machines(ctx, backup.MachineFilter{VCenterID: v.ID})
			return all, err
		})
		if len(left) != 1 || left[0].ID != want[7] {
			t.Errorf("VMs left = %d, want vm-7 alone", len(left))
		}
	})
}

func TestAScheduleComesBackAsItWasStoredWithItsSeats(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		v, w, g := backup.VCenter{Name: "v"}, backup.VCenter{Name: "w"}, backup.Group{Name: "g"}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.InsertVCenter(ctx, &v), tx.InsertVCenter(ctx, &w), tx.InsertGroup(ctx, &g))
		})
		s := backup.Schedule{
			Name: "s", Description: "d", Enabled: true, GroupID: g.ID,
			Recurrence: backup.Recurrence{
				Kind: backup.Monthly, TimeZone: "Asia/Kolkata", Hour: 23, Date: backup.Date{Year: 2027, Month: time.March, Day: 9}, Weekdays: []time.Weekday{0, 6},
				MonthDays: []int{1, 31}, LastDay: true, Nth: backup.Last, Weekday: time.Wednesday, ShortLast: true,
			},
			WindowHours: 2, DurationHours: 3, MaxDelayHours: 6, RetentionDays: 31, Extended: []backup.ExtendedRetention{{Weekdays: []time.Weekday{0}, RetentionDays: 62}},
			ApplyToExisting: true, Lock: true, Consistency: backup.ConsistencyApp, Disks: backup.DiskChoice{ExcludeLabels: []string{"Hard disk 2"}}, Unprotectable: backup.UnprotectedSkip,
			RepositoryID: "r", CopyTo: []backup.CopyTarget{{RepositoryID: "s", RetentionDays: 31}}, Labels: map[string]string{"a": "b"}, DeletionProtect: true, Seats: 5, StartTimeChosen: true, EarliestHour: 1, LatestHour: 23,
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return tx.InsertSchedule(ctx, &s, []backup.SeatsBooked{{VCenterID: v.ID, Seats: 2}, {VCenterID: w.ID, Seats: 3}})
		})
		get := func() backup.Schedule {
			return read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Schedule, error) { return tx.Schedule(ctx, s.ID) })
		}
		same(t, "schedule", get(), s)
		booked := func(id string) []backup.Booking {
			return read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Booking, error) { return tx.Booked(ctx, id) })
		}
		booking := backup.Booking{ScheduleID: s.ID, Name: "s", Recurrence: s.Recurrence, WindowHours: 2, DurationHours: 3, Seats: 3}
		same(t, "bookings", booked(w.ID), []backup.Booking{booking})
		due := func() time.Time {
			return read(t, db, func(ctx context.Context, tx backup.Tx) (time.Time, error) { return tx.DueMark(ctx, s.ID) })
		}
		if got := due(); !got.IsZero() {
			t.Errorf("due mark of a new schedule = %v, want none", got)
		}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.SetDueMark(ctx, s.ID, c.now()) })
		s.Recurrence = backup.Recurrence{Kind: backup.Daily, TimeZone: "UTC", Hour: -1}
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return tx.UpdateSchedule(ctx, &s, []backup.SeatsBooked{{VCenterID: v.ID, Seats: 4}})
		})
		same(t, "changed schedule", get(), s)
		same(t, "bookings of the vcenter that it left", booked(w.ID), []backup.Booking(nil))
		if got := booked(v.ID); len(got) != 1 || got[0].Seats != 4 {
			t.Errorf("bookings = %+v, want 4 seats", got)
		}
		same(t, "due mark after a change", due(), c.now())
		s.Enabled = false // seed:N20 it gives its seats back
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return tx.UpdateSchedule(ctx, &s, []backup.SeatsBooked{{VCenterID: v.ID, Seats: 4}})
		})
		same(t, "bookings of a disabled schedule", booked(v.ID), []backup.Booking(nil))
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteSchedule(ctx, s.ID) })
		for _, err := range []error{
			tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteSchedule(ctx, s.ID) }),
			tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.SetDueMark(ctx, s.ID, c.now()) }),
			failure(t, db, func(ctx context.Context, tx backup.Tx) (time.Time, error) { return tx.DueMark(ctx, s.ID) }),
		} {
			wantError(t, err, backup.NotFound, s.ID)
		}
	})
}

func TestAScheduleOfWhatIsNotThereIsRefused(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		for field, s := range map[string]backup.Schedule{"group_id": {Name: "s", GroupID: "nope"}, "virtual_machine_id": {Name: "s", VMID: "nope"}} {
			err := tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertSchedule(ctx, &s, nil) })
			wantError(t, err, backup.NotFound, `"nope"`)
			if e := backup.AsError(err); e.Field != field {
				t.Errorf("field = %q, want %q", e.Field, field)
			}
		}
	})
}

func TestSchedulesAreFoundByWhatTheyCover(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		g := backup.Group{Name: "g"}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertGroup(ctx, &g) })
		for i := range 150 {
			s := backup.Schedule{Name: fmt.Sprint(i), Enabled: i%3 == 0}
			if i%2 == 0 {
				s.GroupID = g.ID
			}
			update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertSchedule(ctx, &s, nil) })
		}
		for want, f := range map[int]backup.ScheduleFilter{150: {}, 75: {GroupID: g.ID}, 25: {GroupID: g.ID, EnabledOnly: true}, 0: {VMID: "m"}, 9: {Page: backup.Page{Limit: 9}}} {
			got := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Schedule, error) {
				all, _, err := tx.Schedules(ctx, f)
				return all, err
			})
			if len(got) != want {
				t.Errorf("Schedules(%+v) = %d, want %d", f, len(got), want)
			}
		}
	})
}

func TestImagesAreListedNewestFirstByEachFilter(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		start := c.now()
		image := backup.Image{
			Project: backup.DefaultProject, VCenterID: "v", VMMOID: "vm-1", VMInstanceUUID: "u", JobID: "j", StartedAt: start, EndedAt: start.Add(time.Minute), ExpiresAt: start.Add(time.Hour),
			LockedUntil: start, Consistency: backup.ConsistencyApp, ChangeDetection: backup.DetectCBT, Message: "m", Disks: []backup.ImageDisk{{Key: 2000, Label: "l", Capacity: 1 << 50, SHA256: "s"}},
			ExtendedUntil: start, StorageLockedUntil: start.Add(time.Hour), Sizes: backup.Sizes{Provisioned: 4, Read: 3, Changed: 2, Stored: 1}, VerifiedAt: start, FullCompareAt: start, Ref: "ref", // seed:N49
		}
		for i := range 250 {
			image.ID, image.PointInTime = fmt.Sprintf("i%03d", i), start.Add(time.Duration(i/2)*time.Hour)
			image.VMID, image.VMName, image.GroupID, image.RunID = fmt.Sprint("m", i%5), fmt.Sprint("n", i%5), fmt.Sprint("g", i%2), fmt.Sprint("r", i%125)
			image.ScheduleID, image.RepositoryID, image.Labels = fmt.Sprint("s", i%3), fmt.Sprint("repo", i%2), map[string]string{"os": fmt.Sprint(i % 4), "all": "yes"}
			image.Status = []backup.ImageStatus{backup.ImageGood, backup.ImagePartial, backup.ImageDamaged, backup.ImageExpired}[i%4]
			update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertImage(ctx, image) })
		}
		same(t, "image", read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Image, error) { return tx.Image(ctx, "i249") }), image)
		list := func(f backup.ImageFilter) (all []string) {
			t.Helper()
			for f.Limit = 37; ; {
				var some []backup.Image
				view(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
					some, f.Cursor, err = tx.Images(ctx, f)
					return err
				})
				all = append(all, ids(some, func(i backup.Image) string { return i.ID })...)
				if f.Cursor == "" {
					return all
				}
			}
		}
		var want []string
		for i := 249; i >= 0; i-- {
			want = append(want, fmt.Sprintf("i%03d", i))
		}
		same(t, "all images", list(backup.ImageFilter{}), want)
		for _, f := range []struct {
			filter backup.ImageFilter
			n      int
			first  string
		}{
			{backup.ImageFilter{VMID: "m1"}, 50, "i246"},
			{backup.ImageFilter{VMName: "n2"}, 50, "i247"},
			{backup.ImageFilter{GroupID: "g0"}, 125, "i248"},
			{backup.ImageFilter{ScheduleID: "s0"}, 84, "i249"},
			{backup.ImageFilter{RunID: "r7"}, 2, "i132"},
			{backup.ImageFilter{VCenterID: "v"}, 250, "i249"},
			{backup.ImageFilter{RepositoryID: "repo1"}, 125, "i249"},
			{backup.ImageFilter{Status: backup.ImageGood}, 63, "i248"},
			{backup.ImageFilter{CreatedAfter: start.Add(120 * time.Hour)}, 10, "i249"},
			{backup.ImageFilter{CreatedBefore: start.Add(2 * time.Hour)}, 4, "i003"},
			{backup.ImageFilter{Labels: map[string]string{"os": "3"}}, 62, "i247"},
			{backup.ImageFilter{Labels: map[string]string{"os": "3", "all": "yes"}, VMID: "m0"}, 12, "i235"},
			{backup.ImageFilter{Labels: map[string]string{"os": "9"}}, 0, ""},
		} {
			got := list(f.filter)
			if len(got) != f.n || f.n > 0 && got[0] != f.first {
				t.Errorf("Images(%+v) = %d, first %v, want %d, first %s", f.filter, len(got), got[:min(1, len(got))], f.n, f.first)
			}
		}
	})
}

func TestAnImageIsChangedAndDeletedWithItsLabels(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		i := backup.Image{ID: "i", Project: backup.DefaultProject, VMID: "m", RepositoryID: "r", Status: backup.ImageGood, PointInTime: c.now(), Labels: map[string]string{"a": "1"}}
		older, damaged := i, i
		older.ID, older.PointInTime, older.Status = "older", c.now().Add(-time.Hour), backup.ImagePartial
		damaged.ID, damaged.PointInTime, damaged.Status = "damaged", c.now().Add(time.Hour), backup.ImageDamaged
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.InsertImage(ctx, i), tx.InsertImage(ctx, older), tx.InsertImage(ctx, damaged))
		})
		wantError(t, tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.InsertImage(ctx, i) }), backup.Conflict)
		last := func(ctx context.Context, tx backup.Tx) (backup.Image, error) { return tx.LastImage(ctx, "m", "r") }
		same(t, "last good image", read(t, db, last).ID, "i")
		i.Status, i.Labels = backup.ImageExpired, map[string]string{"b": "2"}
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateImage(ctx, i) })
		same(t, "changed image", read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Image, error) { return tx.Image(ctx, "i") }), i)
		same(t, "last good image now", read(t, db, last).ID, "older")
		found := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Image, error) {
			all, _, err := tx.Images(ctx, backup.ImageFilter{Labels: map[string]string{"b": "2"}})
			return all, err
		})
		same(t, "images by the new label", ids(found, func(i backup.Image) string { return i.ID }), []string{"i"})
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.DeleteImage(ctx, "i"), tx.DeleteImage(ctx, "older"))
		})
		wantError(t, failure(t, db, last), backup.NotFound, `"m"`, `"r"`)
		wantError(t, tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteImage(ctx, "i") }), backup.NotFound, `"i"`)
		wantError(t, tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateImage(ctx, i) }), backup.NotFound, `"i"`)
	})
}

func TestARestoreTellsHowItsJobGoes(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		r := backup.Restore{
			ID: "re", Project: backup.DefaultProject, ImageID: "i", NewVM: &backup.RestoreNewVM{Name: "n", NetworkMappings: map[string]string{"a": "b"}}, Description: "d", Token: "t", JobID: "j",
			State: backup.JobQueued, CreatedAt: c.now(),
		}
		older := r
		older.ID, older.CreatedAt, older.NewVM, older.InPlace, older.JobID, older.State = "z", c.now().Add(-time.Hour), nil, &backup.RestoreInPlace{PowerOff: true, Safety: backup.SafetyQuick}, "none", ""
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			return errors.Join(tx.InsertRestore(ctx, r), tx.InsertRestore(ctx, older), tx.InsertJob(ctx, job("j", c.now())))
		})
		get := func() backup.Restore {
			return read(t, db, func(ctx context.Context, tx backup.Tx) (backup.Restore, error) { return tx.RestoreByToken(ctx, "t") })
		}
		same(t, "restore", get(), r)
		j := claim(t, db, backup.Claim{})
		c.pass(time.Minute)
		r.Result, r.Bytes, r.Delivered = backup.RestoredVM{MOID: "vm-9", Name: "n"}, 1<<40, true
		err := db.Finish(t.Context(), lease(j), backup.Ending{State: backup.JobFailed, Code: backup.NoSpace, Error: "Full.", Messages: []string{"m"}}, func(tx backup.Tx) error {
			return tx.UpdateRestore(t.Context(), r)
		})
		if err != nil {
			t.Fatal(err)
		}
		r.State, r.StartedAt, r.CompletedAt, r.ErrorCode, r.Error, r.Messages = backup.JobFailed, c.now().Add(-time.Minute), c.now(), backup.NoSpace, "Full.", []string{"m"}
		same(t, "restore that is over", get(), r)
		all := read(t, db, func(ctx context.Context, tx backup.Tx) ([]backup.Restore, error) {
			all, _, err := tx.Restores(ctx, backup.Page{})
			return all, err
		})
		same(t, "restores, newest first", all, []backup.Restore{r, older})
		update(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteRestore(ctx, "re") })
		for _, err := range []error{
			failure(t, db, func(ctx context.Context, tx backup.Tx) (backup.Restore, error) { return tx.Restore(ctx, "re") }),
			failure(t, db, func(ctx context.Context, tx backup.Tx) (backup.Restore, error) { return tx.RestoreByToken(ctx, "re") }),
			tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.DeleteRestore(ctx, "re") }),
			tryUpdate(t, db, func(ctx context.Context, tx backup.Tx) error { return tx.UpdateRestore(ctx, r) }),
		} {
			wantError(t, err, backup.NotFound, `"re"`)
		}
	})
}

func TestTokensAreFoundByHashUntilForGood(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		ctx, text := t.Context(), auth.NewText().Reveal()
		k := auth.Token{Name: "ci", Role: auth.Backup, Hash: auth.Hash(text), ExpiresAt: c.now().Add(time.Hour)}
		if err := db.InsertToken(ctx, &k); err != nil {
			t.Fatal(err)
		}
		got, err := db.TokenByHash(ctx, auth.Hash(text))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "token by hash", got, k)
		if len(k.ID) != 26 || k.CreatedAt != c.now() {
			t.Errorf("token = %+v, want an id and its time", k)
		}
		double := auth.Token{Name: "ci", Role: auth.Viewer, Hash: "h"}
		wantError(t, db.InsertToken(ctx, &double), backup.Conflict, `"ci"`)
		_, err = db.TokenByHash(ctx, "h")
		wantError(t, err, backup.NotFound)

		used := func(after time.Duration) time.Time {
			t.Helper()
			c.pass(after)
			if err := db.TouchToken(ctx, k, c.now()); err != nil {
				t.Fatal(err)
			}
			k, err = db.Token(ctx, k.ID)
			if err != nil {
				t.Fatal(err)
			}
			return k.UsedAt
		}
		first := used(0)
		same(t, "last use, then within the minute, then after it", []time.Time{first, used(59 * time.Second), used(time.Second)}, []time.Time{first, first, first.Add(time.Minute)})

		revoked, err := db.RevokeToken(ctx, k.ID)
		if err != nil || revoked.RevokedAt != c.now() {
			t.Errorf("RevokeToken = %+v, %v, want it revoked now", revoked, err)
		}
		c.pass(time.Minute)
		again, err := db.RevokeToken(ctx, k.ID)
		if err != nil || again.RevokedAt != revoked.RevokedAt {
			t.Errorf("RevokeToken again = %+v, %v, want it as it was", again, err)
		}
		_, err = db.RevokeToken(ctx, "x")
		wantError(t, err, backup.NotFound, `"x"`)
		if err := db.InsertToken(ctx, &double); err != nil {
			t.Errorf("a revoked token's name is not free: %v", err)
		}
		var all []auth.Token
		for p := (backup.Page{Limit: 1}); ; {
			some, next, err := db.Tokens(ctx, p)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, some...)
			if p.Cursor = next; next == "" {
				break
			}
		}
		same(t, "tokens", all, []auth.Token{again, double})
	})
}

func TestAnAnswerIsKeptForADayUnderItsKey(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, c *clock) {
		ctx := t.Context()
		save := func(key, hash string, status int, body string) {
			t.Helper()
			if err := db.SaveIdempotent(ctx, "default", key, hash, status, []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		ask := func(key, hash string) string {
			t.Helper()
			status, body, found, err := db.IdempotentResponse(ctx, "default", key, hash)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%d %s %v", status, body, found)
		}
		same(t, "an unknown key", ask("k", "h"), "0  false")
		save("k", "h", 201, "body")
		save("k", "h", 500, "another")
		same(t, "the key", ask("k", "h"), "201 body true")
		_, _, _, err := db.IdempotentResponse(ctx, "default", "k", "other request")
		wantError(t, err, backup.Conflict, `"k"`)
		same(t, "the key of another project", func() bool {
			_, _, found, _ := db.IdempotentResponse(ctx, "other", "k", "h")
			return found
		}(), false)
		c.pass(24 * time.Hour)
		same(t, "the key a day later", ask("k", "h"), "0  false")
		save("k", "h2", 200, "new")
		same(t, "the key used anew", ask("k", "h2"), "200 new true")
	})
}

func TestASettingIsKeptAndReplaced(t *testing.T) {
	on(t, func(t *testing.T, db *store.DB, _ *clock) {
		_, found, err := db.Setting(t.Context(), "a")
		if found || err != nil {
			t.Errorf("Setting never set = %v, %v, want not found", found, err)
		}
		if err := errors.Join(db.SetSetting(t.Context(), "a", "1"), db.SetSetting(t.Context(), "a", "2")); err != nil {
			t.Fatal(err)
		}
		if v, found, err := db.Setting(t.Context(), "a"); v != "2" || !found || err != nil {
			t.Errorf("Setting = %q, %v, %v, want 2", v, found, err)
		}
	})
}

// A label that very many images have is looked up in another way than a rare one.
func TestImagesAreFoundByACommonLabelAndARareOne(t *testing.T) {
	each(t, func(t *testing.T, p place) {
		db := p.open(t, nil)
		const common = 2100
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		update(t, db, func(ctx context.Context, tx backup.Tx) error {
			for i := range common {
				labels := map[string]string{"env": "prod"}
				if i%700 == 0 {
					labels["app"] = "rare"
				}
				if err := tx.InsertImage(ctx, backup.Image{ID: fmt.Sprintf("i%05d", i), PointInTime: at.Add(time.Duration(i) * time.Minute), Labels: labels}); err != nil {
					return err
				}
			}
			return tx.InsertImage(ctx, backup.Image{ID: "other", PointInTime: at, Labels: map[string]string{"env": "test"}})
		})
		for _, f := range []struct {
			labels map[string]string
			want   int
		}{{map[string]string{"env": "prod"}, common}, {map[string]string{"app": "rare"}, 3}, {map[string]string{"app": "rare", "env": "prod"}, 3}, {map[string]string{"env": "test"}, 1}, {map[string]string{"env": "prod", "app": "none"}, 0}} {
			seen := map[string]bool{}
			for page := (backup.Page{Limit: 500}); ; {
				var all []backup.Image
				view(t, db, func(ctx context.Context, tx backup.Tx) (err error) {
					all, page.Cursor, err = tx.Images(ctx, backup.ImageFilter{Labels: f.labels, Page: page})
					return err
				})
				for _, i := range all {
					seen[i.ID] = true
				}
				if page.Cursor == "" {
					break
				}
			}
			if len(seen) != f.want {
				t.Errorf("labels %v: %d images, want %d", f.labels, len(seen), f.want)
			}
		}
	})
}
