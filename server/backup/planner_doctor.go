package backup

import (
	"context"
	"fmt"
	"time"
)

// DoctorOptions say how the doctor looks. The zero value looks at all.
type DoctorOptions struct {
	Window time.Duration // that a night should fit in; default 8 h
	Rate   int64         // bytes per second to reckon with; 0 = what was measured
	// SkipRepositories leaves the repositories unwritten: their speed is not measured.
	SkipRepositories bool
}

// Validate returns an [Invalid] error for the first bad option.
func (o DoctorOptions) Validate() error {
	if o.Window < 0 || o.Window > 7*24*time.Hour {
		return Errorf(Invalid, "window_seconds", "The window is up to seven days, got %s.", o.Window)
	}
	if o.Rate < 0 {
		return Errorf(Invalid, "bytes_per_second", "bytes_per_second must be 0, for what was measured, or more, got %d.", o.Rate)
	}
	return nil
}

// Diagnose looks a vcenter over, with what is protected of it and where that is
// kept, and says what will not work, why it matters and what to do. It changes
// nothing. Errors: NotFound, Invalid, Unavailable (this server cannot look).
func (p *Planner) Diagnose(ctx context.Context, id string, o DoctorOptions) (Diagnosis, error) {
	if err := o.Validate(); err != nil {
		return Diagnosis{}, err
	}
	var c chart
	if err := p.Store.View(ctx, func(tx Tx) error { return c.read(ctx, tx, id) }); err != nil {
		return Diagnosis{}, fmt.Errorf("diagnose vcenter %s: %w", id, err)
	}
	if p.Surveyor == nil {
		return Diagnosis{}, Errorf(Unavailable, "", "This server does not reach vcenters: ask one that does.")
	}
	survey := p.Surveyor.Survey(ctx, c.vcenter)
	if err := ctx.Err(); err != nil {
		return Diagnosis{}, err
	}
	d := Diagnosis{VCenterID: id, At: c.now}
	var f findings
	f.examineVCenter(c.vcenter, survey, c.now)
	if survey.Problem == nil {
		f.examineHosts(survey)
		f.examineDatastores(c.vcenter, survey)
		f.examineVMs(survey, p.Installation)
		d.Sizing = size(sizingInput{vcenter: c.vcenter, vms: survey.VMs, history: c.history, ids: c.ids, booked: c.booked, window: o.Window, rate: o.Rate, slots: p.Slots})
		f.examineSizing(d.Sizing)
	}
	p.examineRepositories(ctx, &f, c, survey, o)
	d.Findings = f.sorted()
	return d, ctx.Err()
}

// chart is what the store knows of a vcenter.
type chart struct {
	now          time.Time
	vcenter      VCenter
	ids          map[string]string        // VM ids by moid
	history      map[string][]Image       // newest first, by VM id
	booked       map[string]time.Duration // by VM id
	repositories []RepositoryRecord
	upkeep       map[string]Upkeep // by repository id
}

// historyImages is how many images of a vcenter are looked at for the rates of
// its VMs, paceImages how many of each.
const (
	historyImages = 20000
	paceImages    = 7
	historyDays   = 31
)

func (c *chart) read(ctx context.Context, tx Tx, id string) (err error) {
	*c = chart{now: tx.Now(), ids: map[string]string{}, history: map[string][]Image{}, upkeep: map[string]Upkeep{}}
	if c.vcenter, err = tx.VCenter(ctx, id); err != nil {
		return err
	}
	vms, _, err := tx.Machines(ctx, MachineFilter{VCenterID: id})
	if err != nil {
		return err
	}
	for _, vm := range vms {
		c.ids[vm.MOID] = vm.ID
	}
	if err := c.readHistory(ctx, tx); err != nil {
		return err
	}
	if c.booked, err = bookedHours(ctx, tx); err != nil {
		return err
	}
	if c.repositories, _, err = tx.Repositories(ctx, Page{Limit: 1000}); err != nil {
		return err
	}
	for _, r := range c.repositories {
		if c.upkeep[r.ID], err = tx.Upkeep(ctx, r.ID); err != nil {
			return err
		}
	}
	return nil
}

func (c *chart) readHistory(ctx context.Context, tx Tx) error {
	f := ImageFilter{VCenterID: c.vcenter.ID, Copies: CopiesNone, CreatedAfter: c.now.AddDate(0, 0, -historyDays), Page: Page{Limit: 1000}}
	for seen := 0; seen < historyImages; {
		images, next, err := tx.Images(ctx, f)
		if err != nil {
			return err
		}
		for _, i := range images {
			if of := c.history[i.VMID]; len(of) < paceImages && (i.Status == ImageGood || i.Status == ImagePartial) {
				c.history[i.VMID] = append(of, i)
			}
		}
		seen += len(images)
		if f.Cursor = next; next == "" {
			return nil
		}
	}
	return nil
}

// bookedHours tells, of the VMs that enabled schedules cover, for how long the
// most generous one books them.
func bookedHours(ctx context.Context, tx Tx) (map[string]time.Duration, error) {
	schedules, _, err := tx.Schedules(ctx, ScheduleFilter{EnabledOnly: true})
	if err != nil {
		return nil, err
	}
	hours, inventory := map[string]time.Duration{}, inventories{}
	book := func(id string, s Schedule) {
		hours[id] = max(hours[id], time.Duration(s.DurationHours)*time.Hour)
	}
	for _, s := range schedules {
		if s.GroupID == "" {
			book(s.VMID, s)
			continue
		}
		g, err := tx.Group(ctx, s.GroupID)
		if err != nil {
			return nil, err
		}
		vms, err := inventory.members(ctx, tx, g)
		if err != nil {
			return nil, err
		}
		for _, vm := range vms {
			book(vm.ID, s)
		}
	}
	return hours, nil
}

// examineRepositories judges the repositories that this installation writes to.
func (p *Planner) examineRepositories(ctx context.Context, f *findings, c chart, s Survey, o DoctorOptions) {
	if p.Gauge == nil {
		return
	}
	for _, r := range c.repositories {
		if r.ReadOnly || r.Foreign(p.Installation) {
			continue
		}
		n := int64(gaugeSize)
		if o.SkipRepositories {
			n = 0
		}
		g, err := p.Gauge.Gauge(ctx, r, n)
		f.examineRepository(r, c.upkeep[r.ID], g, err)
		if err == nil && s.Problem == nil {
			f.examinePlace(r, g.Lies, s, p.MachineUUID)
		}
	}
}
