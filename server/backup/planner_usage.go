package backup

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// UsageBy is what usage is told for.
type UsageBy string

// The ways to divide it. Days and months are those of UTC.
const (
	UsageByVM         UsageBy = "vm"
	UsageBySchedule   UsageBy = "schedule"
	UsageByGroup      UsageBy = "group"
	UsageByRepository UsageBy = "repository"
	UsageByDay        UsageBy = "day"
	UsageByMonth      UsageBy = "month"
)

// UsageQuery asks for the usage of a time.
type UsageQuery struct {
	From time.Time // rounded down to the hour; zero = the beginning of the running month, in UTC
	To   time.Time // rounded up to the hour; zero = now
	By   UsageBy   // "" = by VM
}

// UsageReport is the usage of a time. Hours to come are not in it.
type UsageReport struct {
	From     time.Time
	To       time.Time
	By       UsageBy
	Items    []UsageItem // most usage first; days and months in their order
	Total    Usage       // of all, each image once
	Vanished Usage       // the part of it that is of VMs which have left their vcenter (seed N46)
}

// UsageItem is the usage of one VM, schedule, group, repository, day or month.
type UsageItem struct {
	ID       string    // "" = of none: made by hand, or without a group
	Name     string    // "" = it has none any more
	From     time.Time // of a day or month, as far as it was asked for
	To       time.Time
	Vanished bool // a VM that has left its vcenter
	Usage
}

// Usage tells how long images were there and how large they are. An image that
// several schedules share is its maker's. Errors: Invalid.
func (p *Planner) Usage(ctx context.Context, q UsageQuery) (UsageReport, error) {
	var c usageCount
	err := p.Store.View(ctx, func(tx Tx) error {
		q, err := q.completed(tx.Now())
		if err != nil {
			return err
		}
		c = newUsageCount(q)
		if err := c.name(ctx, tx); err != nil {
			return err
		}
		return tx.EachUsage(ctx, c.report.From, c.report.To, c.add)
	})
	return c.result(), err
}

// completed checks what is asked for and brings it onto whole hours that are not to come.
func (q UsageQuery) completed(now time.Time) (UsageQuery, error) {
	kept := UsageKept(now)
	q.By = cmp.Or(q.By, UsageByVM)
	if q.From.IsZero() {
		q.From = monthOf(now)
	}
	running := hourOf(now).Add(time.Hour)
	if q.To.IsZero() {
		q.To = maxTime(running, hourOf(q.From).Add(time.Hour))
	}
	switch {
	case !slices.Contains([]UsageBy{UsageByVM, UsageBySchedule, UsageByGroup, UsageByRepository, UsageByDay, UsageByMonth}, q.By):
		return q, Errorf(Invalid, "group_by", "group_by must be vm, schedule, group, repository, day or month, got %q.", q.By)
	case q.From.Before(kept):
		return q, Errorf(Invalid, "from", "Usage is kept for %d months: from must be %s or later, got %s.", usageMonths, kept.Format(time.RFC3339), q.From.UTC().Format(time.RFC3339))
	case !q.From.Before(q.To):
		return q, Errorf(Invalid, "to", "to must be after from (%s), got %s.", q.From.UTC().Format(time.RFC3339), q.To.UTC().Format(time.RFC3339))
	}
	q.From = hourOf(q.From)
	q.To = maxTime(q.From, minTime(hourUp(q.To), running))
	return q, nil
}

// usageCount adds entries up.
type usageCount struct {
	report UsageReport
	known  map[string]*UsageItem // by id
	spans  []UsageItem           // the days or months, instead
	names  map[string]string     // by id, of what there is
	gone   map[string]bool       // VMs
}

func newUsageCount(q UsageQuery) usageCount {
	c := usageCount{report: UsageReport{From: q.From, To: q.To, By: q.By}, known: map[string]*UsageItem{}, names: map[string]string{}, gone: map[string]bool{}}
	if q.By != UsageByDay && q.By != UsageByMonth {
		return c
	}
	for from := q.From; from.Before(q.To); {
		y, m, d := from.Date()
		next := time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)
		if q.By == UsageByMonth {
			next = time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
		}
		next = minTime(next, q.To)
		c.spans = append(c.spans, UsageItem{From: from, To: next})
		from = next
	}
	return c
}

// name learns the names and which VMs have vanished.
func (c *usageCount) name(ctx context.Context, tx Tx) error {
	vms, _, err := tx.Machines(ctx, MachineFilter{IncludeGone: true})
	if err != nil {
		return err
	}
	for _, vm := range vms {
		c.gone[vm.ID] = vm.Gone()
		if c.report.By == UsageByVM {
			c.names[vm.ID] = vm.Name
		}
	}
	switch c.report.By {
	case UsageBySchedule:
		all, _, err := tx.Schedules(ctx, ScheduleFilter{})
		for _, s := range all {
			c.names[s.ID] = s.Name
		}
		return err
	case UsageByGroup:
		return everyPage(func(p Page) (string, error) {
			all, next, err := tx.Groups(ctx, p)
			for _, g := range all {
				c.names[g.ID] = g.Name
			}
			return next, err
		})
	case UsageByRepository:
		return everyPage(func(p Page) (string, error) {
			all, next, err := tx.Repositories(ctx, p)
			for _, r := range all {
				c.names[r.ID] = r.Name
			}
			return next, err
		})
	}
	return nil
}

func everyPage(read func(Page) (next string, err error)) error {
	for p := (Page{Limit: 1000}); ; {
		next, err := read(p)
		if err != nil || next == "" {
			return err
		}
		p.Cursor = next
	}
}

// add counts one image.
func (c *usageCount) add(e UsageEntry) error {
	hours := e.Hours(c.report.From, c.report.To)
	if hours == 0 {
		return nil
	}
	c.report.Total.add(e, hours)
	if c.gone[e.VMID] {
		c.report.Vanished.add(e, hours)
	}
	switch c.report.By {
	case UsageByVM:
		c.item(e.VMID, e.VMName).add(e, hours)
	case UsageBySchedule:
		c.item(e.ScheduleID, "").add(e, hours)
	case UsageByGroup:
		c.item(e.GroupID, "").add(e, hours)
	case UsageByRepository:
		c.item(e.RepositoryID, "").add(e, hours)
	default:
		c.spread(e)
	}
	return nil
}

// item is what usage of the id is added to. otherwise is its name where it is
// in the catalogue no more.
func (c *usageCount) item(id, otherwise string) *UsageItem {
	i := c.known[id]
	if i == nil {
		i = &UsageItem{ID: id, Name: cmp.Or(c.names[id], otherwise), Vanished: c.report.By == UsageByVM && c.gone[id]}
		c.known[id] = i
	}
	return i
}

// spread adds an image to each day or month that it was there on.
func (c *usageCount) spread(e UsageEntry) {
	first, _ := slices.BinarySearchFunc(c.spans, e.Since, func(s UsageItem, since time.Time) int {
		if s.To.After(since) {
			return 1
		}
		return -1
	})
	for n := first; n < len(c.spans) && c.spans[n].From.Before(e.Until); n++ {
		if hours := e.Hours(c.spans[n].From, c.spans[n].To); hours > 0 {
			c.spans[n].add(e, hours)
		}
	}
}

func (c *usageCount) result() UsageReport {
	c.report.Items = c.spans
	for _, i := range c.known {
		c.report.Items = append(c.report.Items, *i)
	}
	if c.spans == nil {
		slices.SortFunc(c.report.Items, func(a, b UsageItem) int {
			return cmp.Or(cmp.Compare(b.GiBHours(), a.GiBHours()), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
		})
	}
	return c.report
}
