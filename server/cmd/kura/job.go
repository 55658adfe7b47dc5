package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type jobCmd struct {
	List   jobList   `cmd:"" help:"List jobs, the newest first: the history."`
	Show   jobShow   `cmd:"" help:"Show a job."`
	Watch  jobWatch  `cmd:"" help:"Show how a job goes on until it is over."`
	Cancel jobCancel `cmd:"" help:"Ask a job to stop and to clean up after itself."`
}

// jobHead are the columns of a history. The order of the first five is fixed.
var jobHead = []string{"START TIME", "TYPE", "STATUS", "DURATION", "VM", "MESSAGE", "ID"}

func (s *session) jobRow(j api.Job) []string {
	vm := ""
	if j.VirtualMachine != nil {
		vm = j.VirtualMachine.Name
	}
	return []string{when(j.StartedAt), string(j.Kind), string(j.State), took(j.StartedAt, j.EndedAt, s.now()), vm, remark(j), j.ID}
}

// remark is what is to be said of a job in few words.
func remark(j api.Job) string {
	switch {
	case j.Error != nil:
		return j.Error.Message
	case j.State == api.JobStateRunning:
		return strings.Trim(j.Step+", "+progress(j.Progress), ", ")
	case j.LateBySeconds > 0:
		return "late by " + (time.Duration(j.LateBySeconds) * time.Second).String()
	case len(j.Messages) > 0:
		return j.Messages[len(j.Messages)-1]
	}
	return ""
}

type jobList struct {
	Kind   string `enum:",backup,restore,sync,delete" default:"" as:"KIND" help:"backup, restore, sync or delete."`
	State  string `enum:",queued,running,succeeded,failed,cancelled,skipped,missed" default:"" as:"STATE" help:"queued, running, succeeded, failed, cancelled, skipped or missed."`
	Active bool   `help:"Only queued and running ones."`
	VM     string `name:"vm" as:"NAME" help:"Only those of this virtual machine."`
	RunID  string `name:"run" as:"ID" help:"Only those of this run."`
	recent
}

// Help is shown below the command's first line.
func (*jobList) Help() string {
	return examples("kura job list --last 7d", "kura job list --vm erp --kind backup --state failed", "kura job list --active")
}

// Run lists jobs.
func (l *jobList) Run(ctx context.Context, s *session) error {
	since, err := l.since(s.now())
	if err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	p := api.ListJobsParams{Kind: api.JobKind(l.Kind), State: api.JobState(l.State), Active: l.Active, RunID: l.RunID, CreatedAfter: since, Limit: pageSize}
	if p.VirtualMachineID, err = vmID(ctx, c, l.VM); err != nil {
		return err
	}
	items, err := collect(l.Limit, func(cursor string) (answer, error) {
		p.Cursor = cursor
		return c.ListJobsWithResponse(ctx, &p)
	})
	if err != nil {
		return err
	}
	return showAll(s, "jobs", items, jobHead, s.jobRow)
}

type jobShow struct {
	ID string `arg:"" help:"The job's id."`
}

// Run shows a job.
func (j *jobShow) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	if err := needID("job", j.ID); err != nil {
		return err
	}
	raw, err := body(c.GetJobWithResponse(ctx, j.ID))
	if err != nil {
		return err
	}
	return showOne(s, raw, s.jobRecord)
}

func (s *session) jobRecord(j api.Job) (r record) {
	r.add("id", j.ID)
	r.add("type", string(j.Kind))
	r.add("state", string(j.State))
	if j.VirtualMachine != nil {
		r.add("virtual machine", j.VirtualMachine.Name+" ("+j.VirtualMachine.ID+")")
	}
	if j.Error != nil {
		r.add("error", j.Error.Message+" ("+string(j.Error.Code)+")")
	}
	for _, m := range j.Messages {
		r.add("message", m)
	}
	r.add("step", j.Step)
	r.add("progress", progress(j.Progress))
	r.add("attempt", fmt.Sprintf("%d of %d", j.Attempt, j.MaxAttempts))
	if j.CancelRequested {
		r.add("cancelled by request", "yes")
	}
	if j.LateBySeconds > 0 {
		r.add("late by", (time.Duration(j.LateBySeconds) * time.Second).String())
	}
	r.add("run id", j.RunID)
	r.add("image id", j.ImageID)
	r.add("restore id", j.RestoreID)
	r.add("due", when(j.DueAt))
	r.add("created", when(j.CreatedAt))
	r.add("started", when(j.StartedAt))
	r.add("ended", when(j.EndedAt))
	r.add("duration", took(j.StartedAt, j.EndedAt, s.now()))
	return r
}

type jobWatch struct {
	ID string `arg:"" help:"The job's id."`
}

// Run follows a job.
func (j *jobWatch) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	if err := needID("job", j.ID); err != nil {
		return err
	}
	return s.followed(ctx, c, j.ID)
}

// followed waits for a job and shows it as it ended.
func (s *session) followed(ctx context.Context, c *api.ClientWithResponses, id string) error {
	job, err := s.waitJob(ctx, c, id)
	if err != nil {
		return err
	}
	raw, err := body(c.GetJobWithResponse(ctx, id))
	if err != nil {
		return err
	}
	if err := showOne(s, raw, s.jobRecord); err != nil {
		return err
	}
	return jobEnd(job)
}

// jobEnd is the error of a job that did not succeed, nil of one that did.
func jobEnd(j api.Job) error {
	if j.State == api.JobStateSucceeded {
		return nil
	}
	message := ""
	if j.Error != nil {
		message = j.Error.Message
	}
	return failf("The job ended as %s. %s", j.State, cmp.Or(message, strings.Join(j.Messages, " ")))
}

// jobStarted shows a job that the command began: as it is now or, with wait,
// as it ended.
func (s *session) jobStarted(ctx context.Context, c *api.ClientWithResponses, raw json.RawMessage, wait bool) error {
	if !wait {
		return showOne(s, raw, s.jobRecord)
	}
	j, err := decode[api.Job](raw)
	if err != nil {
		return err
	}
	return s.followed(ctx, c, j.ID)
}

type jobCancel struct {
	ID   string `arg:"" help:"The job's id."`
	Wait bool   `help:"Wait until it has stopped."`
}

// Run cancels a job.
func (j *jobCancel) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	if err := needID("job", j.ID); err != nil {
		return err
	}
	raw, err := body(c.CancelJobWithResponse(ctx, j.ID))
	if err != nil {
		return err
	}
	if !j.Wait {
		return showOne(s, raw, s.jobRecord)
	}
	job, err := s.waitJob(ctx, c, j.ID)
	if err != nil {
		return err
	}
	if raw, err = body(c.GetJobWithResponse(ctx, j.ID)); err != nil {
		return err
	}
	if err := showOne(s, raw, s.jobRecord); err != nil {
		return err
	}
	if job.State != api.JobStateCancelled {
		return failf("The job was over before it could be cancelled: it ended as %s.", job.State)
	}
	return nil
}
