package backup

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Measured is how long a schedule's backups took. The server suggests with it
// and changes nothing by itself.
type Measured struct {
	Backups        int // that were looked at; 0 = there is nothing to tell
	Median         time.Duration
	Longest        time.Duration
	SuggestedHours int // the duration_hours that the longest would have needed
}

// What is measured: the newest measuredBackups of the last measuredDays.
const (
	measuredDays    = 31
	measuredBackups = 30
)

// Measured tells how long the schedule's good backups of the last 31 days
// took, at most its last 30. Errors: NotFound.
func (p *Planner) Measured(ctx context.Context, scheduleID string) (m Measured, err error) {
	err = p.Store.View(ctx, func(tx Tx) error {
		s, err := tx.Schedule(ctx, scheduleID)
		if err == nil {
			m, err = measured(ctx, tx, s)
		}
		return err
	})
	return m, err
}

func measured(ctx context.Context, tx Tx, s Schedule) (Measured, error) {
	loc, err := s.Recurrence.Location()
	if err != nil {
		return Measured{}, err
	}
	images, _, err := tx.Images(ctx, ImageFilter{ScheduleID: s.ID, Status: ImageGood, Copies: CopiesNone, CreatedAfter: tx.Now().AddDate(0, 0, -measuredDays), Page: Page{Limit: measuredBackups}})
	if err != nil {
		return Measured{}, err
	}
	return measure(images, loc), nil
}

func measure(images []Image, loc *time.Location) Measured {
	var m Measured
	var took []time.Duration
	for _, i := range images {
		d := i.EndedAt.Sub(i.StartedAt)
		if i.EndedAt.IsZero() || d < 0 {
			continue
		}
		if took = append(took, d); d >= m.Longest {
			m.Longest, m.SuggestedHours = d, hoursUsed(i.StartedAt.In(loc), i.EndedAt)
		}
	}
	if m.Backups = len(took); m.Backups > 0 {
		slices.Sort(took)
		m.Median = took[m.Backups/2]
	}
	return m
}

// hoursUsed is how many slots a backup was in, from the one it began in.
func hoursUsed(start, end time.Time) int {
	// Zones lie whole minutes beside UTC, so the slot is found on the local clock.
	slot := start.Add(-time.Duration(start.Minute())*time.Minute - time.Duration(start.Second())*time.Second - time.Duration(start.Nanosecond()))
	hours := int((end.Sub(slot) + time.Hour - 1) / time.Hour)
	return min(max(hours, 1), maxDurationHours)
}

// maxDurationHours is the greatest duration_hours.
const maxDurationHours = 24

// warning says that s books fewer hours than its backups use; "" = it does not.
func (m Measured) warning(s Schedule) string {
	if m.Backups == 0 || m.SuggestedHours <= s.DurationHours {
		return ""
	}
	which := fmt.Sprintf("The longest of the last %d backups", m.Backups)
	if m.Backups == 1 {
		which = "The last backup"
	}
	return fmt.Sprintf("%s took %s: duration_hours = %d books the hours that it uses (now %d).", which, lasting(m.Longest), m.SuggestedHours, s.DurationHours)
}

// lasting writes a duration as people do: "2 h 10 min".
func lasting(d time.Duration) string {
	d = d.Round(time.Minute)
	hours, minutes := int(d/time.Hour), int(d%time.Hour/time.Minute)
	switch {
	case hours == 0:
		return fmt.Sprintf("%d min", minutes)
	case minutes == 0:
		return fmt.Sprintf("%d h", hours)
	}
	return fmt.Sprintf("%d h %d min", hours, minutes)
}
