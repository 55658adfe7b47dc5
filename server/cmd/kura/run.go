package main

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type runCmd struct {
	List runList `cmd:"" help:"List runs, the newest first."`
	Show runShow `cmd:"" help:"Show a run with its jobs."`
}

// recent are the flags of a history.
type recent struct {
	Last  string `as:"7d" help:"Only those of this last time, such as 7d or 36h. Default: all."`
	Limit int    `as:"N" help:"No more than this many. Default: all."`
}

// since returns the time that --last stands for, the zero one without it.
func (r recent) since(now time.Time) (time.Time, error) {
	d, err := span("last", r.Last)
	if err != nil || d == 0 {
		return time.Time{}, err
	}
	return now.Add(-d), nil
}

type runList struct {
	Schedule string `as:"NAME" help:"Only those of this schedule."`
	Group    string `as:"NAME" help:"Only those of this group."`
	State    string `enum:",queued,running,succeeded,partial,failed,missed" default:"" as:"STATE" help:"queued, running, succeeded, partial, failed or missed."`
	recent
}

// Help is shown below the command's first line.
func (*runList) Help() string {
	return examples("kura run list --last 7d", "kura run list --schedule nightly --state partial")
}

// Run lists runs.
func (l *runList) Run(ctx context.Context, s *session) error {
	since, err := l.since(s.now())
	if err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	p := api.ListRunsParams{State: api.RunState(l.State), Limit: pageSize}
	if p.ScheduleID, err = scheduleID(ctx, c, l.Schedule); err != nil {
		return err
	}
	if p.GroupID, err = groupID(ctx, c, l.Group); err != nil {
		return err
	}
	recently := func(raw json.RawMessage) bool { // they come newest first
		r, err := decode[api.Run](raw)
		return err != nil || !r.CreatedAt.Before(since)
	}
	items, err := collectWhile(recently, l.Limit, func(cursor string) (answer, error) {
		p.Cursor = cursor
		return c.ListRunsWithResponse(ctx, &p)
	})
	if err != nil {
		return err
	}
	of, err := s.scheduleNames(ctx, c)
	if err != nil {
		return err
	}
	return showAll(s, "runs", items, []string{"START TIME", "TYPE", "STATUS", "DURATION", "SCHEDULE", "MESSAGE", "ID"}, func(r api.Run) []string {
		return []string{when(r.CreatedAt), string(r.Trigger), string(r.State), took(r.CreatedAt, r.EndedAt, s.now()), cmp.Or(of[r.ScheduleID], r.ScheduleID), r.Message, r.ID}
	})
}

// scheduleNames maps the ids of schedules to their names, for tables.
func (s *session) scheduleNames(ctx context.Context, c *api.ClientWithResponses) (map[string]string, error) {
	if s.cli.Output == "json" {
		return nil, nil //nolint:nilnil // programs read ids
	}
	items, err := collect(0, func(cursor string) (answer, error) { return scheduleNoun(ctx, c).list("", cursor) })
	return names(items), err
}

type runShow struct {
	ID string `arg:"" help:"The run's id."`
}

// Run shows a run.
func (r *runShow) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	if err := needID("run", r.ID); err != nil {
		return err
	}
	raw, err := body(c.GetRunWithResponse(ctx, r.ID))
	if err != nil {
		return err
	}
	return showOne(s, raw, s.runRecord)
}

func (s *session) runRecord(run api.Run) (r record) {
	r.add("id", run.ID)
	r.add("type", string(run.Trigger))
	r.add("state", string(run.State))
	r.add("message", run.Message)
	r.add("schedule id", run.ScheduleID)
	r.add("group id", run.GroupID)
	r.add("slot", when(run.SlotAt))
	r.add("started", when(run.CreatedAt))
	r.add("ended", when(run.EndedAt))
	if run.SpreadSeconds > 0 {
		r.add("spread of the snapshots", strconv.FormatFloat(run.SpreadSeconds, 'f', 1, 64)+" s")
	}
	members := table{head: []string{"VM", "CHANGE", "CAUSE"}}
	for _, m := range append(slices.Clone(run.Joined), run.Left...) {
		members.rows = append(members.rows, []string{m.VirtualMachine.Name, string(m.Change), m.Cause})
	}
	r.addTable("changes of the group since its run before", members)
	jobs := table{head: jobHead}
	for _, j := range run.Jobs {
		jobs.rows = append(jobs.rows, s.jobRow(j))
	}
	r.addTable("jobs", jobs)
	return r
}

// runStarted shows a run that the command began: as it is now or, with wait,
// as it ended.
func (s *session) runStarted(ctx context.Context, c *api.ClientWithResponses, raw json.RawMessage, wait bool) error {
	if !wait {
		return showOne(s, raw, s.runRecord)
	}
	started, err := decode[api.Run](raw)
	if err != nil {
		return err
	}
	last, run, err := s.waitRun(ctx, c, started.ID)
	if err != nil {
		return err
	}
	if err := showOne(s, last.GetBody(), s.runRecord); err != nil {
		return err
	}
	if run.State == api.RunStateSucceeded {
		return nil
	}
	return failf("The run ended as %s: %d of %s did not succeed.", run.State, failedJobs(run.Jobs), count(len(run.Jobs), "job"))
}

// needID refuses what cannot be an id: these objects have no names.
func needID(what, id string) error {
	if !idPattern.MatchString(id) {
		return usef("A %s is named by its id, 26 characters, got %q. kura %s list shows them.", what, id, what)
	}
	return nil
}

// failedJobs counts the jobs that did not succeed.
func failedJobs(jobs []api.Job) (n int) {
	for _, j := range jobs {
		if j.State.Final() && j.State != api.JobStateSucceeded {
			n++
		}
	}
	return n
}
