package handler

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	ics "github.com/arran4/golang-ical"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// What a calendar holds when nothing else is asked for, and how far it reaches.
const (
	defaultEvents    = 366
	calendarDays     = 400
	calendarsProgram = "-//Kura//Kura//EN"
)

// ExportOccurrences implements the operation.
func (h *handler) ExportOccurrences(ctx context.Context, q api.ExportOccurrencesRequestObject) (api.ExportOccurrencesResponseObject, error) {
	var s backup.Schedule
	var target string
	err := h.Store.View(ctx, func(tx backup.Tx) (err error) {
		if s, err = tx.Schedule(ctx, q.ID); err != nil {
			return err
		}
		target, err = targetName(ctx, tx, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	from, err := h.occurrencesFrom(q.Params.From)
	if err != nil {
		return nil, err
	}
	n := cmp.Or(q.Params.Count, defaultEvents)
	var due []backup.Occurrence
	if s.Enabled {
		for o := range s.Recurrence.Between(from, from.AddDate(0, 0, calendarDays)) {
			if len(due) == n {
				break
			}
			due = append(due, o)
		}
	}
	text := calendarOf(s, target, due).Serialize(ics.WithNewLineWindows)
	return api.ExportOccurrences200TextCalendarResponse{Body: strings.NewReader(text), ContentLength: int64(len(text))}, nil
}

// targetName says in words what s backs up.
func targetName(ctx context.Context, tx backup.Tx, s backup.Schedule) (string, error) {
	if s.GroupID != "" {
		g, err := tx.Group(ctx, s.GroupID)
		return "group " + g.Name, err
	}
	vm, err := tx.Machine(ctx, s.VMID)
	return "VM " + vm.Name, err
}

// calendarOf makes the events. They are in UTC: an instant says exactly what
// happens in an hour that is skipped or doubled, whatever zone data the reader has.
func calendarOf(s backup.Schedule, target string, due []backup.Occurrence) *ics.Calendar {
	c := ics.NewCalendar()
	c.SetProductId(calendarsProgram)
	c.SetXWRCalName(oneLine(s.Name))
	summary := oneLine(s.Name + ": backup of " + target)
	length := time.Duration(s.WindowHours+s.DurationHours-1) * time.Hour
	for _, o := range due {
		e := c.AddEvent(s.ID + "-" + o.Start.UTC().Format("20060102T150405Z") + "@kura")
		e.SetDtStampTime(s.UpdatedAt)
		e.SetSequence(int(s.Version))
		e.SetStartAt(o.Start)
		e.SetEndAt(o.Start.Add(length))
		e.SetSummary(summary)
		e.SetDescription(eventText(s, o))
		e.SetTimeTransparency(ics.TransparencyTransparent) // it keeps nobody busy
	}
	return c
}

// eventText says the schedule in sentences, one a line.
func eventText(s backup.Schedule, o backup.Occurrence) string {
	lines := []string{sentence(s.Recurrence.Describe())}
	if _, note := clockOut(o); note != "" {
		lines = append(lines, note)
	}
	lines = append(lines, fmt.Sprintf("The backups start within %s; each VM holds a seat for %s.", plural(s.WindowHours, "hour"), plural(s.DurationHours, "hour")))
	lines = append(lines, retentionText(s))
	if d := strings.TrimSpace(s.Description); d != "" {
		lines = append(lines, oneLine(d))
	}
	return strings.Join(lines, "\n")
}

func retentionText(s backup.Schedule) string {
	if s.RetentionDays == 0 {
		return "Its images never expire."
	}
	text := fmt.Sprintf("Its images are kept for %s", plural(s.RetentionDays, "day"))
	longest := 0
	for _, e := range s.Extended {
		if e.RetentionDays == 0 {
			return text + ", those of some days for ever."
		}
		longest = max(longest, e.RetentionDays)
	}
	if longest > s.RetentionDays {
		text += fmt.Sprintf(", those of some days for up to %s", plural(longest, "day"))
	}
	return text + "."
}

// sentence makes one of a phrase.
func sentence(phrase string) string {
	for i, r := range phrase {
		return string(unicode.ToUpper(r)) + phrase[i+len(string(r)):] + "."
	}
	return ""
}

// oneLine takes out what cannot stand in a calendar's text: a name of vSphere
// may hold anything.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
