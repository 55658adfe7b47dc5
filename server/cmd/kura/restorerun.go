package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// wanted is one image of a run and what is to become of it.
type wanted struct {
	vm       string
	spec     api.Restore
	warnings []string
	refused  error
}

// all restores every image of a run.
func (r *restoreCreate) all(ctx context.Context, s *session) error {
	if err := needID("run", r.RunID); err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	list, err := r.ofRun(ctx, c)
	if err != nil {
		return err
	}
	refused := 0
	for i := range list {
		w := &list[i]
		if w.refused == nil {
			w.warnings, w.refused = checked(ctx, c, w.spec)
		}
		if w.refused != nil {
			if ctx.Err() != nil || unreachable(w.refused) {
				return w.refused
			}
			refused++
		}
		w.tell(s)
	}
	switch {
	case refused > 0 && (!r.KeepGoing || refused == len(list)):
		return failf("%d of %s cannot be restored; none was begun. --keep-going restores the others.", refused, count(len(list), "image"))
	case r.Check:
		fmt.Fprintf(s.stderr, "%s of %d can be restored.\n", count(len(list)-refused, "image"), len(list))
		return nil
	}
	return r.start(ctx, s, c, list)
}

// ofRun lists the images of the run with what is asked for each.
func (r *restoreCreate) ofRun(ctx context.Context, c *api.ClientWithResponses) ([]wanted, error) {
	example, err := r.spec(ctx, c)
	if err != nil {
		return nil, err
	}
	raw, err := collectImages(ctx, c, 0, api.ListBackupImagesParams{RunID: r.RunID, Limit: pageSize})
	if err != nil {
		return nil, err
	}
	var list []wanted
	names := map[string]bool{}
	for _, item := range raw {
		i, err := decode[api.BackupImage](item)
		if err != nil {
			return nil, err
		}
		w := wanted{vm: i.VirtualMachine.Name, spec: example}
		w.spec.ImageID = i.ID
		if example.NewVM != nil {
			vm := *example.NewVM
			vm.Name = r.NewVMPrefix + w.vm
			w.spec.NewVM = &vm
		}
		if names[w.vm] && example.NewVM != nil {
			w.refused = failf("another VM of the run has the same name. Restore this image by itself: --image %s --new-vm NAME", i.ID)
		}
		names[w.vm] = true
		list = append(list, w)
	}
	if len(list) == 0 {
		return nil, failf("The run %s has no images.", r.RunID)
	}
	slices.SortStableFunc(list, func(a, b wanted) int { return strings.Compare(a.vm, b.vm) })
	return list, nil
}

// checked asks whether a restore would start.
func checked(ctx context.Context, c *api.ClientWithResponses, spec api.Restore) ([]string, error) {
	raw, err := body(c.CheckRestoreWithResponse(ctx, nil, spec))
	if err != nil {
		return nil, err
	}
	a, err := decode[api.RestoreCheckResult](raw)
	return a.Warnings, err
}

// tell prints what there is to know of one VM before anything begins.
func (w *wanted) tell(s *session) {
	for _, text := range w.warnings {
		fmt.Fprintf(s.stderr, "Warning: %s: %s\n", clean(w.vm), clean(text))
	}
	if w.refused != nil {
		fmt.Fprintf(s.stderr, "Refused: %s: %s\n", clean(w.vm), clean(reason(w.refused)))
	}
}

func reason(err error) string {
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p.Detail + " (" + string(p.Code) + ")"
	}
	return err.Error()
}

// start begins the restores, which the server runs as its limits allow, and
// with --wait follows them to their end.
func (r *restoreCreate) start(ctx context.Context, s *session, c *api.ClientWithResponses, list []wanted) error {
	names := map[string]string{} // of the VMs, by image
	var begun []json.RawMessage
	var jobs []string
	failed := 0
	for _, w := range list {
		names[w.spec.ImageID] = w.vm
		if w.refused != nil {
			failed++
			continue
		}
		raw, err := body(c.CreateRestoreWithResponse(ctx, &api.CreateRestoreParams{IdempotencyKey: newKey()}, w.spec))
		if err != nil && (ctx.Err() != nil || unreachable(err)) {
			return hinted{err, fmt.Sprintf("%s begun before; kura restore list shows them.", count(len(begun), "restore"))}
		}
		if err != nil { // refused only now
			failed++
			w.warnings, w.refused = nil, err
			w.tell(s)
			continue
		}
		started, err := decode[api.Restore](raw)
		if err != nil {
			return err
		}
		begun, jobs = append(begun, raw), append(jobs, started.JobID)
	}
	if !r.Wait {
		if err := s.showRestores(begun, names); err != nil || failed == 0 {
			return err
		}
		return failf("%d of %s could not be begun.", failed, count(len(list), "restore"))
	}
	ended, err := s.waitJobs(ctx, c, jobs)
	if err != nil {
		return err
	}
	for i, raw := range begun {
		started, err := decode[api.Restore](raw)
		if err != nil {
			return err
		}
		if begun[i], err = body(c.GetRestoreWithResponse(ctx, started.ID, &api.GetRestoreParams{})); err != nil {
			return err
		}
	}
	if err := s.showRestores(begun, names); err != nil {
		return err
	}
	if failed += failedJobs(ended); failed > 0 {
		return failf("%d of %s did not succeed.", failed, count(len(list), "restore"))
	}
	return nil
}

func (s *session) showRestores(items []json.RawMessage, names map[string]string) error {
	return showAll(s, "restores", items, []string{"NAME", "STATUS", "DURATION", "RESTORED VM", "ERROR", "IMAGE", "ID"}, func(r api.Restore) []string {
		vm, why := "", ""
		if r.RestoredVM != nil {
			vm = r.RestoredVM.Name
		}
		if r.Error != nil {
			why = r.Error.Message + " (" + string(r.Error.Code) + ")"
		}
		return []string{names[r.ImageID], string(r.Status), took(r.StartedAt, r.CompletedAt, s.now()), vm, why, r.ImageID, r.ID}
	})
}

// waitJobs follows jobs until all are over, and returns them as they ended.
func (s *session) waitJobs(ctx context.Context, c *api.ClientWithResponses, ids []string) ([]api.Job, error) {
	m := newMeter(s)
	defer m.clear()
	var silent time.Time
	jobs := make([]api.Job, len(ids))
	for {
		over := 0
		for i, id := range ids {
			if jobs[i].ID != "" && jobs[i].State.Final() {
				over++
				continue
			}
			raw, err := body(c.GetJobWithResponse(ctx, id))
			switch {
			case err == nil:
				silent = time.Time{}
				if jobs[i], err = decode[api.Job](raw); err != nil {
					return nil, err
				}
			case ctx.Err() != nil:
				return nil, hinted{errInterrupted, "The restores go on: see kura restore list."}
			default:
				if err := s.bear(m, &silent, err); err != nil {
					return nil, err
				}
			}
		}
		m.show(slices.DeleteFunc(slices.Clone(jobs), func(j api.Job) bool { return j.ID == "" })...)
		if over == len(ids) {
			return jobs, nil
		}
		pause(ctx, s.poll)
	}
}
