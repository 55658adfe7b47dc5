//go:build failpoints && linux

package server_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// TestTortureFindsAMissingSafeguard leaves one of the safeguards out: what the
// torture does then comes to light, so that it is a proof where nothing does.
func TestTortureFindsAMissingSafeguard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rig  rigged
		find func(*torture) []string
		want string
	}{
		"intent": { // what will be made is written down before it is made
			find: func(r *torture) []string {
				out := r.bear(breach{Kind: "backup.image_committed", Work: "backup over nfc", Place: true, Times: 1})
				if err := r.rebuildCatalogue(); err != nil {
					out.Trouble = append(out.Trouble, err.Error())
				}
				return out.Trouble
			},
			want: "the repository default and the catalogue differ: 1 images are listed now that were not",
		},
		"sweeper": {
			rig: rigged{grace: 3 * time.Second},
			find: func(r *torture) []string {
				if err := r.lab.Arm(lab.Fault{Kind: "remove_fail"}); err != nil {
					r.Fatal(err)
				}
				return r.bear(breach{Kind: "backup.ended", Work: "backup over nfc", Place: true, Times: 1}).Trouble
			},
			want: "and no job that runs owns it",
		},
		"fence": { // nobody writes to a job that is another's by now
			rig:  rigged{postgres: true, servers: 2},
			find: (*torture).outliveALease,
			want: "(5) The job",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.rig.seed, c.rig.without = 1, []string{name}
			r := newTorture(t, c.rig)
			found := c.find(r)
			if !slices.ContainsFunc(found, func(v string) bool { return strings.Contains(v, c.want) }) {
				t.Errorf("without the %s the torture finds %q, want %q among it", name, found, c.want)
			}
		})
	}
}

// TestAServerThatWasStoppedForLongerThanItsLeaseHarmsNothing is what the fence
// is for.
func TestAServerThatWasStoppedForLongerThanItsLeaseHarmsNothing(t *testing.T) {
	t.Parallel()
	r := newTorture(t, rigged{seed: 1, postgres: true, servers: 2})
	for _, v := range r.outliveALease() {
		t.Error(v)
	}
	r.mustHold()
}

// outliveALease stops a server in the middle of a backup, lets the other end
// that, and then lets the first one go on.
func (r *torture) outliveALease() []string {
	r.Helper()
	for _, v := range r.servers {
		order(r.T, v.conf.Failpoints, "backup.snapshot_made", "stop")
	}
	asked := make(chan string, 1)
	a := r.check.any()
	go func() {
		var id string
		g, err := a.BackupVirtualMachineWithResponse(r.ctx, r.vms["vm01"].ID, nil, api.BackupOptions{RetentionDays: 31})
		if err == nil && g.JSON202 != nil {
			id = g.JSON202.ID
		}
		asked <- id
	}()
	v := r.stopped()
	run := <-asked // a server that stands still has answered before
	r.disarm()
	v.hide()
	if _, err := r.runEnd(run); err != nil {
		return []string{err.Error()}
	}
	v.signal(syscall.SIGCONT)
	r.await("the first server to give its attempt up", func() bool {
		b, err := os.ReadFile(filepath.Join(v.conf.Failpoints, "passed"))
		_, after, _ := strings.Cut(string(b), "backup.snapshot_made stop\n")
		log, lerr := os.ReadFile(v.p.log.Name())
		return err == nil && lerr == nil && (strings.Contains(after, "backup.ended") || regexp.MustCompile(`job lost to another server|job end not stored`).Match(log))
	})
	v.show()
	return r.lookAtEnded()
}

// stopped waits for the server that stands still.
func (r *torture) stopped() (v *victim) {
	r.Helper()
	r.await("a server to stand still", func() bool {
		i := slices.IndexFunc(r.servers, func(v *victim) bool {
			b, err := os.ReadFile(filepath.Join(v.conf.Failpoints, "passed"))
			return err == nil && strings.HasSuffix(string(b), " stop\n")
		})
		if i >= 0 {
			v = r.servers[i]
		}
		return i >= 0
	})
	return v
}

// await waits for what servers do by themselves.
func (r *torture) await(what string, done func() bool) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	for !done() {
		if ctx.Err() != nil {
			r.Fatalf("waited %s for %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
