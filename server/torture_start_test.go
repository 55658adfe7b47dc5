//go:build failpoints && linux

package server_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// firstStart starts a server on nothing, which dies on its way, until it serves:
// there is one token, one repository, and that can be used.
func (r *torture) firstStart() error {
	conf := child{Data: r.TempDir(), Failpoints: r.TempDir()}
	if r.postgres {
		conf.Database = pgtest.Database(r.T)
	}
	v := &victim{name: "a first start", r: r, conf: conf}
	var err error
	if v.p, err = newProcess(r.T, conf); err != nil {
		return err
	}
	defer func() { _ = v.p.log.Close() }()
	r.mu.Lock()
	place, times := r.place, r.times
	r.mu.Unlock()
	if place != "" {
		order(r.T, conf.Failpoints, place, fmt.Sprintf("kill %d", times))
	}
	for {
		v.p.launch()
		err := v.p.answers()
		if err == nil {
			break
		}
		if !v.killed() {
			return err
		}
	}
	defer v.p.kill()
	v.passed()
	a := client(r.T, v.p.url, v.p.tokenFile())
	g, err := a.ListRepositoriesWithResponse(r.ctx, nil)
	if err := api.Err(g, err); err != nil {
		return err
	}
	if n := len(g.JSON200.Items); n != 1 {
		return fmt.Errorf("the first start made %d repositories, want one", n)
	}
	m, err := a.MaintainRepositoryWithResponse(r.ctx, g.JSON200.Items[0].ID, nil, api.Maintenance{})
	if err := api.Err(m, err); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		j, err := a.GetJobWithResponse(r.ctx, m.JSON202.ID)
		if err := api.Err(j, err); err != nil {
			return err
		}
		if j.JSON200.State.Final() {
			return well(*j.JSON200)
		}
		if time.Now().After(end) {
			return fmt.Errorf("the collection of a new repository is %s", j.JSON200.State)
		}
	}
}

// lockImages makes a repository that locks, an image in it, and starts a server
// anew, which then extends the locks of all.
func (r *torture) lockImages() error {
	before, err := r.locked()
	if err != nil {
		return err
	}
	if r.bucket == nil {
		r.bucket = s3test.New(r.T, true)
	}
	settings := maps.Clone(r.bucket.Settings)
	settings["lock_mode"], settings["lock_days"], settings["prefix"] = "governance", "7", r.key()+"/"
	name, id := "vault "+r.key(), ""
	p := &api.CreateRepositoryParams{IdempotencyKey: r.key()}
	err = r.made(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, string, error) {
		g, err := a.CreateRepositoryWithResponse(ctx, p, api.Repository{Name: name, Kind: "s3", Settings: settings})
		if err == nil && g.JSON201 != nil {
			return g, g.JSON201.ID, nil
		}
		return g, "", err
	}, func(context.Context, *api.ClientWithResponses) (string, error) {
		ids, err := r.repositories()
		return ids[name], err
	}, &id)
	if err != nil {
		return err
	}
	image, err := r.imageOf(r.victimVM(), api.BackupOptions{RetentionDays: 31, Repository: name})
	if err != nil {
		return err
	}
	var is api.BackupImage
	err = r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.GetBackupImageWithResponse(ctx, image)
		if err == nil && g.JSON200 != nil {
			is = *g.JSON200
		}
		return g, err
	})
	if err != nil || is.StorageLockedUntil.Before(time.Now().Add(5*24*time.Hour)) {
		return errors.Join(err, fmt.Errorf("the storage locks image %s until %s, want a week", image, is.StorageLockedUntil))
	}
	r.servers[0].fall(syscall.SIGKILL)
	for end := time.Now().Add(patience); ; time.Sleep(30 * time.Millisecond) {
		after, err := r.locked()
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(after, func(j api.Job) bool {
			return j.State.Final() && !slices.ContainsFunc(before, func(b api.Job) bool { return b.ID == j.ID })
		}); i >= 0 {
			return r.outcome(after[i])
		}
		if time.Now().After(end) {
			return fmt.Errorf("no locks were extended within %s", patience)
		}
	}
}

// locked are the jobs that extend locks.
func (r *torture) locked() (jobs []api.Job, err error) {
	err = r.do(func(ctx context.Context, a *api.ClientWithResponses) (api.Answer, error) {
		g, err := a.ListJobsWithResponse(ctx, &api.ListJobsParams{Kind: api.JobKindLock, Limit: 1000})
		if err == nil && g.JSON200 != nil {
			jobs = g.JSON200.Items
		}
		return g, err
	})
	return jobs, err
}
