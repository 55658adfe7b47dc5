package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type scheduleCmd struct {
	List        scheduleList        `cmd:"" help:"List the schedules."`
	Show        scheduleShow        `cmd:"" help:"Show a schedule."`
	Run         scheduleRun         `cmd:"" help:"Run a schedule now."`
	Check       scheduleCheck       `cmd:"" help:"Tell whether a schedule would be accepted; nothing is booked."`
	Occurrences scheduleOccurrences `cmd:"" help:"List the coming slots of a schedule."`
}

func scheduleNoun(ctx context.Context, c *api.ClientWithResponses) noun {
	return noun{
		what: "schedule",
		get:  func(id string) (answer, error) { return c.GetBackupScheduleWithResponse(ctx, id) },
		list: func(name, cursor string) (answer, error) {
			return c.ListBackupSchedulesWithResponse(ctx, &api.ListBackupSchedulesParams{Name: name, Limit: pageSize, Cursor: cursor})
		},
		hint: "kura schedule list shows all.",
	}
}

// scheduleID returns the id of what a flag names, "" for a flag that is empty.
func scheduleID(ctx context.Context, c *api.ClientWithResponses, ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	o, err := find(scheduleNoun(ctx, c), ref)
	return o.ID, err
}

type scheduleList struct {
	Group   string `as:"NAME" help:"Only those on this group."`
	VM      string `name:"vm" as:"NAME" help:"Only those on this virtual machine."`
	Enabled bool   `help:"Only enabled ones."`
}

// Run lists the schedules.
func (l *scheduleList) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	p := api.ListBackupSchedulesParams{Enabled: l.Enabled, Limit: pageSize}
	if p.GroupID, err = groupID(ctx, c, l.Group); err != nil {
		return err
	}
	if p.VirtualMachineID, err = vmID(ctx, c, l.VM); err != nil {
		return err
	}
	items, err := collect(0, func(cursor string) (answer, error) {
		p.Cursor = cursor
		return c.ListBackupSchedulesWithResponse(ctx, &p)
	})
	if err != nil {
		return err
	}
	return showAll(s, "schedules", items, []string{"NAME", "ENABLED", "WHEN", "NEXT RUN", "SEATS", "KEPT", "ID"}, func(b api.BackupSchedule) []string {
		return []string{b.Name, yes(enabled(b)), b.Summary, when(b.NextRunAt), strconv.Itoa(b.Seats), kept(b.RetentionDays), b.ID}
	})
}

func enabled(b api.BackupSchedule) bool { return b.Enabled == nil || *b.Enabled }

func kept(days int) string {
	if days == 0 {
		return "forever"
	}
	return count(days, "day")
}

type scheduleShow struct {
	Name string `arg:"" help:"Name or id."`
}

// Run shows a schedule.
func (b *scheduleShow) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(scheduleNoun(ctx, c), b.Name)
	if err != nil {
		return err
	}
	raw, err := body(c.GetBackupScheduleWithResponse(ctx, o.ID)) // a list does not tell what was measured
	if err != nil {
		return err
	}
	return showOne(s, raw, scheduleRecord)
}

func scheduleRecord(b api.BackupSchedule) (r record) {
	r.add("name", b.Name)
	r.add("id", b.ID)
	r.add("description", b.Description)
	r.add("enabled", yes(enabled(b)))
	r.add("group id", b.GroupID)
	r.add("virtual machine id", b.VirtualMachineID)
	r.add("when", b.Summary)
	r.add("time zone", b.TimeZone)
	r.add("next run", when(b.NextRunAt))
	r.add("seats", strconv.Itoa(b.Seats))
	if b.UnbookedSeats > 0 {
		r.add("unbooked seats", count(b.UnbookedSeats, "VM")+" of its group found no room in the hour and wait until it has some")
	}
	r.add("window", count(max(1, b.WindowHours), "hour"))
	r.add("duration", count(max(1, b.DurationHours), "hour"))
	r.add("measured", measured(b))
	if b.MaxDelayHours != nil {
		r.add("late at most", count(*b.MaxDelayHours, "hour"))
	}
	r.add("kept", kept(b.RetentionDays))
	for _, e := range b.ExtendedRetention {
		r.add("kept longer", kept(e.RetentionDays)+" "+extended(e))
	}
	r.add("locked", yes(b.Lock))
	r.add("consistency", string(b.Consistency))
	r.add("repository", b.Repository)
	for _, c := range b.CopyTo {
		r.add("copied to", c.Repository+", kept "+kept(c.RetentionDays))
	}
	if b.Disks != nil {
		r.add("only disks", strings.Join(b.Disks.IncludeLabels, ", "))
		r.add("without disks", strings.Join(b.Disks.ExcludeLabels, ", "))
	}
	r.add("unprotectable disks", string(b.UnprotectableDisks))
	for _, k := range keys(b.Labels) {
		r.add("label", k+"="+b.Labels[k])
	}
	r.add("deletion protection", yes(b.DeletionProtection))
	r.add("created", when(b.CreatedAt))
	r.add("updated", when(b.UpdatedAt))
	return r
}

// measured says how long its backups took of late.
func measured(b api.BackupSchedule) string {
	m := b.Measured
	if m == nil {
		return ""
	}
	text := fmt.Sprintf("%s, median %s, longest %s", count(m.Backups, "backup"), lasting(m.MedianSeconds), lasting(m.LongestSeconds))
	if booked := max(1, b.DurationHours); m.SuggestedDurationHours != booked {
		text += fmt.Sprintf("; duration_hours = %d would fit them", m.SuggestedDurationHours)
	}
	return text
}

func lasting(seconds int64) string { return (time.Duration(seconds) * time.Second).String() }

// extended says which runs an extended retention is for.
func extended(e api.ExtendedRetention) string {
	switch {
	case len(e.DaysOfWeek) > 0:
		return "on " + join(e.DaysOfWeek)
	case len(e.DaysOfMonth) > 0:
		return "on day " + join(e.DaysOfMonth) + " of the month"
	case e.WeekDayOfMonth != nil:
		return fmt.Sprintf("on the %s %s of the month", e.WeekDayOfMonth.WeekOfMonth, e.WeekDayOfMonth.DayOfWeek)
	}
	return "on the last day of the month"
}

type scheduleRun struct {
	Name string `arg:"" help:"Name or id."`
	Wait bool   `help:"Show how it goes and end when it has; the exit status is 1 unless all of it succeeded."`
}

// Help is shown below the command's first line.
func (*scheduleRun) Help() string { return examples("kura schedule run nightly --wait") }

// Run runs a schedule.
func (b *scheduleRun) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(scheduleNoun(ctx, c), b.Name)
	if err != nil {
		return err
	}
	raw, err := body(c.RunBackupScheduleWithResponse(ctx, o.ID, &api.RunBackupScheduleParams{IdempotencyKey: newKey()}))
	if err != nil {
		return err
	}
	return s.runStarted(ctx, c, raw, b.Wait)
}

type scheduleCheck struct {
	File   string `arg:"" help:"YAML or JSON of a schedule as in the API; - is stdin."`
	Change string `as:"NAME" help:"The schedule that would be changed; without it, a new one."`
}

// Help is shown below the command's first line.
func (*scheduleCheck) Help() string {
	return "The file holds what the API takes. Instead of group_id and virtual_machine_id it may have group and virtual_machine with a name.\n\n" +
		examples("kura schedule check nightly.yaml", "echo '{name: n, group: gold, start_time: \"02:00\", daily: {}, retention_days: 8}' | kura schedule check -")
}

// Run asks whether a schedule would be accepted.
func (b *scheduleCheck) Run(ctx context.Context, s *session) error {
	text, err := s.readFile(b.File)
	if err != nil {
		return err
	}
	schedule, err := readMapping(text)
	if err != nil {
		return usef("%s: %v.", b.File, err)
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	if err := resolveNames(ctx, c, schedule); err != nil {
		return err
	}
	check := map[string]any{"schedule": schedule}
	if b.Change != "" {
		if check["id"], err = scheduleID(ctx, c, b.Change); err != nil {
			return err
		}
	}
	text, err = json.Marshal(check)
	if err != nil {
		return err
	}
	raw, err := body(c.CheckBackupScheduleWithBodyWithResponse(ctx, "application/json", bytes.NewReader(text)))
	if err != nil {
		return err
	}
	return showOne(s, raw, func(a api.BackupScheduleCheckResult) (r record) {
		r.add("accepted", "yes")
		r.add("when", a.Schedule.Summary)
		r.add("start time", a.Schedule.StartTime)
		r.add("next run", when(a.Schedule.NextRunAt))
		r.add("seats", strconv.Itoa(a.Schedule.Seats))
		for _, w := range a.Warnings {
			r.add("warning", w)
		}
		return r
	})
}

// readMapping reads YAML, of which JSON is a part.
func readMapping(text []byte) (map[string]any, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if doc.Kind == 0 {
		return nil, errors.New("the file is empty")
	}
	value, err := plainYAML(doc.Content[0])
	if err != nil {
		return nil, err
	}
	m, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("want a mapping")
	}
	return m, nil
}

// resolveNames puts ids in the place of the names that a file may hold.
func resolveNames(ctx context.Context, c *api.ClientWithResponses, schedule map[string]any) error {
	for k, id := range map[string]func(context.Context, *api.ClientWithResponses, string) (string, error){"group": groupID, "virtual_machine": vmID} {
		name, ok := schedule[k]
		if !ok {
			continue
		}
		found, err := id(ctx, c, fmt.Sprint(name))
		if err != nil {
			return err
		}
		delete(schedule, k)
		schedule[k+"_id"] = found
	}
	return nil
}
