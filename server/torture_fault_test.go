//go:build failpoints && linux

package server_test

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
)

// fault is a way in which something other than a place in the code goes wrong
// while a work is done. A job may end badly for it, if it says why.
type fault struct {
	name  string
	works string // words of the names of works that it fits; "" = all
	// strike begins it and returns what ends it.
	strike func(*torture) (undo func())
	many   bool // it takes several servers
}

// labFault is one that the lab knows, which strikes once or twice.
func labFault(kind, works string, f lab.Fault) fault {
	return fault{name: kind, works: works, strike: func(r *torture) func() {
		f.Kind, _, _ = strings.Cut(kind, " ")
		f.Count = 1 + r.chance.IntN(2)
		if f.Kind == "task_slow" || f.Kind == "http_503" {
			f.Count *= 3
		}
		if f.After > 0 {
			f.After = r.chance.Int64N(f.After)
		}
		if err := r.lab.Arm(f); err != nil {
			r.Error(err)
		}
		return r.lab.ClearFaults
	}}
}

// faults is the table of what can go wrong beside kills at places.
func faults() []fault {
	const reads, writes = "backup", "restore"
	all := []fault{
		labFault("session_expire", "", lab.Fault{After: 20}),
		labFault("http_503", "", lab.Fault{After: 20}),
		labFault("snapshot_fail", reads, lab.Fault{}),
		labFault("remove_fail", reads, lab.Fault{}),
		labFault("consolidation_needed", reads, lab.Fault{}),
		labFault("datastore_full", "backup restore", lab.Fault{After: 2}),
		labFault("hotadd_fail", "hotadd areas", lab.Fault{}),
		labFault("cbt_fault", reads, lab.Fault{}),
		labFault("cbt_reset", reads, lab.Fault{}),
		labFault("cbt_empty", reads, lab.Fault{}),
		labFault("cbt_beyond", reads, lab.Fault{}),
		labFault("cbt_unordered", reads, lab.Fault{}),
		labFault("cbt_stuck", reads, lab.Fault{}),
		labFault("cbt_truncate", reads, lab.Fault{}),
		labFault("stream_stall", "nfc new disk", lab.Fault{After: 1 << 20, Delay: time.Second}),
		labFault("export_cut", reads, lab.Fault{After: 1 << 20}),
		labFault("export_short", reads, lab.Fault{After: 1 << 20}),
		labFault("upload_cut", "new disks", lab.Fault{After: 1 << 20}),
		labFault("lease_expire", "nfc new disks", lab.Fault{After: 1 << 20}),
		labFault("device_slow", "hotadd areas", lab.Fault{}),
		labFault("device_fail", "hotadd areas", lab.Fault{After: 4}),
		labFault("device_write_fail", "areas", lab.Fault{After: 4}),
	}
	for _, method := range []string{"CreateSnapshot_Task", "RemoveSnapshot_Task", "ReconfigVM_Task", "PowerOffVM_Task", "PowerOnVM_Task", "Destroy_Task", "MoveVirtualDisk_Task"} {
		works := writes
		if strings.Contains(method, "Snapshot") {
			works = "backup areas"
		}
		all = append(all, labFault("task_fail "+method, works, lab.Fault{Method: method, After: 3}),
			labFault("task_slow "+method, works, lab.Fault{Method: method, Delay: 500 * time.Millisecond}))
	}
	return append(all, processFaults()...)
}

// processFaults strike servers at moments by chance, and their database.
func processFaults() []fault {
	later := func(r *torture, do func(*victim)) func() {
		v := r.servers[r.chance.IntN(len(r.servers))]
		wait := time.Duration(r.chance.IntN(600)) * time.Millisecond
		done := make(chan struct{})
		go func() {
			defer close(done)
			time.Sleep(wait) // the moment is what is left to chance
			do(v)
		}()
		return func() { <-done }
	}
	return []fault{
		{name: "kill -9 at any moment", strike: func(r *torture) func() { return later(r, func(v *victim) { v.fall(syscall.SIGKILL) }) }},
		{name: "SIGTERM at any moment", strike: func(r *torture) func() { return later(r, func(v *victim) { v.fall(syscall.SIGTERM) }) }},
		{name: "requests to S3 fail", works: "locks", strike: func(r *torture) func() {
			if r.bucket == nil {
				r.bucket = s3test.New(r.T, true)
			}
			r.bucket.FailEvery.Store(int64(4 + r.chance.IntN(8)))
			return func() { r.bucket.FailEvery.Store(0) }
		}},
		{name: "SIGSTOP for longer than a lease", many: true, strike: func(r *torture) func() {
			return later(r, func(v *victim) {
				v.hide()
				v.signal(syscall.SIGSTOP)
				time.Sleep(2 * v.conf.Lease)
				v.signal(syscall.SIGCONT)
				v.show()
			})
		}},
		{name: "all connections to PostgreSQL are cut", many: true, strike: func(r *torture) func() {
			return later(r, func(*victim) {
				if err := r.cutDatabase(); err != nil {
					r.say("The connections to PostgreSQL cannot be cut: %v", err)
				}
			})
		}},
	}
}

// cutDatabase ends every server's connections.
func (r *torture) cutDatabase() error {
	db, err := r.check.openSQL()
	if err != nil {
		return err
	}
	_, err = db.ExecContext(r.ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kura' AND datname = current_database()`)
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	return err
}

// strike begins the fault of a breach that is no kill at a place.
func (r *torture) strike(x breach) (undo func()) {
	if x.Place {
		return func() {}
	}
	for _, f := range faults() {
		if f.name == x.Kind {
			return f.strike(r)
		}
	}
	r.Fatal(fmt.Errorf("there is no fault %q", x.Kind))
	return nil
}

// fits says whether the fault means something in a work.
func (f fault) fits(w work) bool {
	if f.works == "" {
		return true
	}
	for word := range strings.FieldsSeq(f.works) {
		if strings.Contains(" "+w.name+" ", " "+word+" ") {
			return true
		}
	}
	return false
}
