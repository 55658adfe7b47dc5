package backup

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Planner is where every change of what is wanted goes through: it applies the
// rules within one transaction of the store. Store is required. It must not be
// copied.
type Planner struct {
	Store        Store
	VSphere      VSphere          // asked once when a vcenter is added or its access changes; nil = not asked
	Profile      RetentionProfile // "" = standard
	SlotCapacity int              // of a vcenter that names none; 0 = 10
	Repositories RepositoryMaker  // needed where repositories are made
	Installation string           // this one's id
	AgeRecipient string           // to whom recovery sheets are encrypted where nobody is named; "" = to nobody
	Wake         func()           // called after new jobs were committed; nil = nothing
	Databases    *DatabaseKeeper  // copies the database into repositories; nil = nobody does

	// For the doctor; see Diagnose.
	Surveyor    Surveyor        // nil = there is no doctor here
	Gauge       RepositoryGauge // nil = repositories are not measured
	Remover     Remover         // nil = no restored VM is deleted here
	MachineUUID string          // SMBIOS UUID of this machine; "" = not known
	Slots       int             // jobs that the servers run at a time; 0 = 8

	// For the pre-flight of restores; see CheckRestore.
	Images        Repositories  // opens repositories; nil = a restore is checked against the inventory only
	Reach         []string      // labels of what this server reaches; nil = everything
	PreflightTime time.Duration // how long repository and vcenter are asked; 0 = 20 s

	seats      seatBook
	dispatched atomic.Int64 // Unix milliseconds of the last Dispatch; 0 = there was none
}

func (p *Planner) profile() RetentionProfile {
	if p.Profile == "" {
		return ProfileStandard
	}
	return p.Profile
}

func (p *Planner) wake() {
	if p.Wake != nil {
		p.Wake()
	}
}

// CreateSchedule books the seats of s and stores it. Errors: Invalid, NotFound
// (group, VM or repository), Conflict (name), SlotFull, SlotClosed,
// ExceedsCapacity.
func (p *Planner) CreateSchedule(ctx context.Context, s Schedule) (Schedule, error) {
	var done Schedule
	err := p.update(ctx, func(tx *planTx) error {
		c := s
		if err := p.insertSchedule(ctx, tx, &c); err != nil {
			return err
		}
		done = c
		return nil
	})
	if err != nil {
		return Schedule{}, fmt.Errorf("create schedule %q: %w", s.Name, err)
	}
	return done, nil
}

func (p *Planner) insertSchedule(ctx context.Context, tx *planTx, s *Schedule) error {
	seats, err := p.book(ctx, tx, s, nil)
	if err != nil {
		return err
	}
	if err := tx.InsertSchedule(ctx, s, seats); err != nil {
		return err
	}
	return tx.SetDueMark(ctx, s.ID, tx.Now().Add(-bookable))
}

// UpdateSchedule gives the seats of the stored schedule back, books those of s
// and stores it. s.Version 0 means whatever is stored. Errors: as of
// CreateSchedule, and Stale.
func (p *Planner) UpdateSchedule(ctx context.Context, s Schedule) (Schedule, error) {
	var done Schedule
	err := p.update(ctx, func(tx *planTx) error {
		c := s
		if err := p.updateSchedule(ctx, tx, &c); err != nil {
			return err
		}
		done = c
		return nil
	})
	if err != nil {
		return Schedule{}, fmt.Errorf("update schedule %q: %w", s.Name, err)
	}
	return done, nil
}

func (p *Planner) updateSchedule(ctx context.Context, tx *planTx, s *Schedule) error {
	old, err := tx.Schedule(ctx, s.ID)
	if err != nil {
		return err
	}
	if s.Version == 0 {
		s.Version = old.Version
	}
	s.Project, s.CreatedAt = old.Project, old.CreatedAt
	seats, err := p.book(ctx, tx, s, &old)
	if err != nil {
		return err
	}
	if err := tx.UpdateSchedule(ctx, s, seats); err != nil {
		return err
	}
	if s.ApplyToExisting {
		if err := retain(ctx, tx, *s); err != nil {
			return err
		}
	}
	if old.Enabled && !s.Enabled {
		if _, err := tx.WithdrawJobs(ctx, s.ID, "The schedule was disabled before this began."); err != nil {
			return err
		}
	}
	if old.Enabled && sameDays(old.Recurrence, s.Recurrence) {
		return nil
	}
	// What was due while it was disabled, or by the old calendar, is not made up for.
	return tx.SetDueMark(ctx, s.ID, tx.Now().Add(-bookable))
}

func sameDays(a, b Recurrence) bool {
	return a.Describe() == b.Describe()
}

// DeleteSchedule removes a schedule and gives its seats back. Its images stay
// (seed A51, A59). Errors: NotFound, InUse (deletion protection).
func (p *Planner) DeleteSchedule(ctx context.Context, id string) error {
	return p.Store.Update(ctx, func(tx Tx) error {
		s, err := tx.Schedule(ctx, id)
		if err != nil {
			return err
		}
		if s.DeletionProtect {
			return Errorf(InUse, "deletion_protection", "Schedule %q is protected from deletion. Set deletion_protection = false first.", s.Name)
		}
		if _, err := tx.WithdrawJobs(ctx, id, "The schedule was deleted before this began."); err != nil {
			return err
		}
		return tx.DeleteSchedule(ctx, id)
	})
}
