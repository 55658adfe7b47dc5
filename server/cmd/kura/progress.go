package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// What a terminal is told: cut a line that is too long; wrap it; go to its
// begin and empty it.
const (
	noWrap = "\x1b[?7l"
	wrap   = "\x1b[?7h"
	wipe   = "\r\x1b[K"
)

// meter shows how jobs go on: on a terminal as one line that is drawn again,
// elsewhere as a line per change.
type meter struct {
	w        io.Writer
	terminal bool
	now      func() time.Time
	told     map[string]string // by job: what was told last
	drawn    bool
}

func newMeter(s *session) *meter {
	f, ok := s.stderr.(*os.File)
	return &meter{w: s.stderr, now: s.now, told: map[string]string{}, terminal: ok && isTerminal(f)}
}

func isTerminal(f *os.File) bool { return isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()) }

// show takes the jobs as they are now. On a terminal only those that have
// ended get a line of their own.
func (m *meter) show(jobs ...api.Job) {
	for _, j := range jobs {
		mark := string(j.State) + j.Step
		if total := j.Progress.Total; total > 0 && !m.terminal {
			mark += fmt.Sprint(10 * j.Progress.Done / total)
		}
		if m.told[j.ID] == mark {
			continue
		}
		m.told[j.ID] = mark
		if !m.terminal || j.State.Final() {
			m.line(m.tell(j))
		}
	}
	if m.terminal {
		m.draw(bar(jobs))
	}
}

// line prints a line that stays.
func (m *meter) line(text string) {
	m.clear()
	fmt.Fprintln(m.w, clean(text))
}

func (m *meter) draw(text string) {
	m.clear()
	if text != "" {
		fmt.Fprint(m.w, noWrap+clean(text)+wrap)
		m.drawn = true
	}
}

func (m *meter) clear() {
	if m.drawn {
		fmt.Fprint(m.w, wipe)
		m.drawn = false
	}
}

// tell says in one line how a job stands.
func (m *meter) tell(j api.Job) string {
	text := subject(j) + ": " + string(j.State)
	switch {
	case j.State == api.JobStateRunning:
		if j.Step != "" {
			text += ", " + j.Step
		}
		if p := progress(j.Progress); p != "" {
			text += ", " + p
		}
	case j.State.Final():
		if d := took(j.StartedAt, j.EndedAt, m.now()); d != "" {
			text += " after " + d
		}
		if j.Error != nil {
			text += ": " + j.Error.Message + " (" + string(j.Error.Code) + ")"
		}
		for _, message := range j.Messages {
			text += " " + message
		}
	}
	return text
}

// subject is what a job works on.
func subject(j api.Job) string {
	if j.VirtualMachine != nil {
		return string(j.Kind) + " of " + j.VirtualMachine.Name
	}
	return string(j.Kind)
}

// progress says how far a job is: percent, bytes, rate and time left.
func progress(p api.Progress) string {
	var parts []string
	if p.Total > 0 {
		parts = append(parts, fmt.Sprintf("%d %%, %s of %s", 100*p.Done/p.Total, size(p.Done), size(p.Total)))
	} else if p.Done > 0 {
		parts = append(parts, size(p.Done))
	}
	if p.BytesPerSecond > 0 {
		parts = append(parts, size(p.BytesPerSecond)+"/s")
	}
	if p.EtaSeconds > 0 {
		parts = append(parts, (time.Duration(p.EtaSeconds)*time.Second).String()+" left")
	}
	return strings.Join(parts, ", ")
}

const barWidth = 20

// bar is the line for a terminal: one job by its step, several by their sum.
// The time left of several is that of the slowest.
func bar(jobs []api.Job) string {
	var sum api.Progress
	var text string
	over := 0
	for _, j := range jobs {
		sum.Done += j.Progress.Done
		sum.Total += max(j.Progress.Total, j.Progress.Done)
		if j.State.Final() {
			over++
			continue
		}
		text = cmp.Or(j.Step, string(j.State))
		if j.State == api.JobStateRunning {
			sum.BytesPerSecond += j.Progress.BytesPerSecond
			sum.EtaSeconds = max(sum.EtaSeconds, j.Progress.EtaSeconds)
		}
	}
	if over == len(jobs) {
		return ""
	}
	if len(jobs) > 1 {
		text = fmt.Sprintf("%d of %d over", over, len(jobs))
	}
	if sum.Total > 0 {
		full := int(barWidth * sum.Done / sum.Total)
		text += " [" + strings.Repeat("#", full) + strings.Repeat("-", barWidth-full) + "]"
	}
	if p := progress(sum); p != "" {
		text += " " + p
	}
	return text
}

// waitRun follows a run until it is over, and returns it as it ended.
func (s *session) waitRun(ctx context.Context, c *api.ClientWithResponses, id string) (answer, api.Run, error) {
	m := newMeter(s)
	defer m.clear()
	var silent time.Time // since when the server does not answer
	for {
		a, err := c.GetRunWithResponse(ctx, id)
		switch err := api.Err(a, err); {
		case err == nil && a.JSON200 == nil:
			return a, api.Run{}, errNoObject
		case err == nil:
			silent = time.Time{}
			m.show(a.JSON200.Jobs...)
			if a.JSON200.State.Final() {
				return a, *a.JSON200, nil
			}
		case ctx.Err() != nil:
			return nil, api.Run{}, hinted{errInterrupted, fmt.Sprintf("The run goes on: see kura run show %s.", id)}
		default:
			if err := s.bear(m, &silent, err); err != nil {
				return nil, api.Run{}, err
			}
		}
		pause(ctx, s.poll)
	}
}

// waitJob follows a job until it is over, and returns it as it ended.
func (s *session) waitJob(ctx context.Context, c *api.ClientWithResponses, id string) (api.Job, error) {
	m := newMeter(s)
	defer m.clear()
	var silent time.Time
	for {
		job, err := c.FollowJob(ctx, id, func(j api.Job) {
			silent = time.Time{}
			m.show(j)
		})
		switch {
		case err == nil:
			return job, nil
		case ctx.Err() != nil:
			return job, hinted{errInterrupted, fmt.Sprintf("The job goes on: see kura job show %s; kura job cancel %s stops it.", id, id)}
		}
		if err := s.bear(m, &silent, err); err != nil {
			return job, err
		}
		pause(ctx, s.poll)
	}
}

var errNoObject = errors.New("the answer holds no object; is this a kura server?")

// bear returns err unless a server may be back soon: one that is started again
// takes its jobs up where they were.
func (s *session) bear(m *meter, silent *time.Time, err error) error {
	if !unreachable(err) && api.CodeOf(err) != api.ErrorCodeUnavailable {
		return err
	}
	if silent.IsZero() {
		*silent = s.now()
		if s.patience > 0 {
			m.line("The server does not answer; waiting for it.")
		}
	}
	if s.now().Sub(*silent) >= s.patience {
		return err
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
