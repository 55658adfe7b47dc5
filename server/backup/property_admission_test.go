package backup_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// crossing are zones whose hours lie across UTC's, or come and go.
var crossing = []string{"UTC", "Asia/Tokyo", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Pacific/Chatham", "Africa/Cairo",
	"Africa/Casablanca", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Europe/Berlin"}

// court is a house whose planner is asked about random schedules, and a
// recount that knows the answers.
type court struct {
	*house
	groups []backup.Group // groups[i] has i+1 members
	names  int
}

const largest = 9

func newCourt(t *testing.T, capacity int) *court {
	c := &court{house: newHouse(t, capacity)}
	c.Profile = backup.ProfileGeneral
	vms := c.addVMs(c.vcenter.ID, largest)
	for i := range largest {
		c.groups = append(c.groups, c.addGroup(fmt.Sprint("of ", i+1), vms[:i+1]))
	}
	return c
}

// draw makes a schedule of numbers below the given ones, which come from
// chance or from a fuzzer. Hours lie close together, so that they meet.
func (c *court) draw(pick func(n int) int) (backup.Schedule, claim) {
	c.names++
	today := backup.DateOf(c.clock.Now())
	r := backup.Recurrence{TimeZone: crossing[pick(len(crossing))]}
	loc, _ := time.LoadLocation(r.TimeZone) // a name of the list above
	_, offset := c.clock.Now().In(loc).Zone()
	r.Hour = ((pick(6)+offset/3600)%24 + 24) % 24
	switch pick(6) {
	case 0:
		r.Kind, r.Date = backup.OneTime, today.AddDays(pick(410))
	case 1:
		r.Kind = backup.Daily
		if pick(2) == 0 {
			r.Date = today.AddDays(pick(380))
		}
	case 2:
		r.Kind = backup.Weekly
		for d := range 7 {
			if pick(3) == 0 || d == 6 && len(r.Weekdays) == 0 {
				r.Weekdays = append(r.Weekdays, time.Weekday(d))
			}
		}
	case 3:
		r.Kind, r.ShortLast = backup.Monthly, pick(2) == 0
		for d := pick(12) + 1; d <= 31; d += 1 + pick(31) {
			r.MonthDays = append(r.MonthDays, d)
		}
	case 4:
		r.Kind, r.Nth, r.Weekday = backup.Monthly, 1+pick(5), time.Weekday(pick(7))
		if pick(4) == 0 {
			r.Nth = backup.Last
		}
	case 5:
		r.Kind, r.LastDay = backup.Monthly, true
	}
	members := 1 + pick(4)
	s := backup.Schedule{Name: fmt.Sprint("s", c.names), Enabled: true, RetentionDays: 7, LatestHour: 23, Recurrence: r, WindowHours: 1, DurationHours: 1}
	switch pick(10) {
	case 0, 1, 2:
		s.WindowHours = 2 + pick(3)
	case 3, 4:
		s.DurationHours = 2 + pick(2)
	case 5:
		s.WindowHours, s.DurationHours, members = 1+pick(24), 1+pick(24), 1+pick(largest)
	}
	s.GroupID = c.groups[members-1].ID
	return s, claimOf(s, members)
}

// judge compares the planner's answer about one schedule, when the others of
// the recount are booked, with what the recount says. It tells whether s fits.
func (c *court) judge(count *recount, k claim, err error) (code backup.Code) {
	c.Helper()
	capacity := c.vcenter.SlotCapacity
	want := backup.Code("")
	switch {
	case count.closed(k.Recurrence):
		want = backup.SlotClosed
	case count.alone(k) > capacity:
		want = backup.ExceedsCapacity
	case !count.fits(k, capacity):
		want = backup.SlotFull
	}
	if got := backup.CodeOf(err); got != want {
		c.Fatalf("%s, window %d, duration %d, %d seats of %d at %s: got %q (%v), want %q; its fullest hour would hold %d",
			k.Describe(), k.window, k.duration, k.seats, capacity, count.now.Format(time.RFC3339), got, err, want, count.peak(k))
	}
	switch want {
	case backup.ExceedsCapacity:
		c.judgeWindow(count, k, backup.AsError(err))
	case backup.SlotFull:
		c.judgeRecommendations(count, k, backup.AsError(err))
	}
	return want
}

var windowNamed = regexp.MustCompile(`window_hours = (\d+)`)

// judgeWindow: the window that is named would do, and no shorter one.
func (c *court) judgeWindow(count *recount, k claim, e *backup.Error) {
	c.Helper()
	want := 0
	for w := k.window + 1; w <= 24 && want == 0; w++ {
		wider := k
		wider.window = w
		if count.alone(wider) <= c.vcenter.SlotCapacity {
			want = w
		}
	}
	got := 0
	if m := windowNamed.FindStringSubmatch(e.Message); m != nil {
		got, _ = strconv.Atoi(m[1]) // digits
	}
	if got != want {
		c.Fatalf("%s, window %d, duration %d, %d seats of %d: %q names a window of %d hours, want %d (0 = none would do)",
			k.Describe(), k.window, k.duration, k.seats, c.vcenter.SlotCapacity, e.Message, got, want)
	}
}

// judgeRecommendations: those that the rules ask for, in their order, and no
// nearer one would do (rule 5).
func (c *court) judgeRecommendations(count *recount, k claim, e *backup.Error) {
	c.Helper()
	var want []string
	for kind, candidates := range map[backup.RecommendationKind][]backup.Recurrence{backup.SameDay: hoursBeside(k.Recurrence), backup.SameSlot: count.daysBeside(k, c.vcenter.SlotCapacity)} {
		for _, r := range candidates {
			other := k
			other.Recurrence = r
			if !count.closed(r) && count.fits(other, c.vcenter.SlotCapacity) {
				want = append(want, fmt.Sprintf("%s: %s, %d left", kind, r.Describe(), c.vcenter.SlotCapacity-count.peak(other)))
				break
			}
		}
	}
	slices.Sort(want) // same_day comes before same_slot
	var got []string
	for _, r := range e.Recommendations {
		got = append(got, fmt.Sprintf("%s: %s, %d left", r.Kind, r.Recurrence.Describe(), r.FreeSeats))
	}
	if !slices.Equal(got, want) {
		c.Fatalf("%s, window %d, duration %d, %d seats of %d at %s is full: recommended\n%q, want\n%q",
			k.Describe(), k.window, k.duration, k.seats, c.vcenter.SlotCapacity, count.now.Format(time.RFC3339), got, want)
	}
}

// hoursBeside lists the other hours of r's days, nearest first, ties to the earlier.
func hoursBeside(r backup.Recurrence) (out []backup.Recurrence) {
	hours := make([]int, 0, 23)
	for h := range 24 {
		if h != r.Hour {
			hours = append(hours, h)
		}
	}
	distance := func(h int) int { return max(h-r.Hour, r.Hour-h) }
	slices.SortStableFunc(hours, func(a, b int) int { return distance(a) - distance(b) }) // stable: the earlier first
	for _, h := range hours {
		o := r
		o.Hour = h
		out = append(out, o)
	}
	return out
}

// daysBeside lists the recurrences of the same hour on other days, nearest
// first, ties to the earlier.
func (c *recount) daysBeside(k claim, capacity int) (out []backup.Recurrence) {
	r := k.Recurrence
	horizonEnd := backup.DateOf(c.now.Add(horizon).UTC())
	if r.Kind == backup.Daily { // a later start takes fewer seats, so the first that fits is found by halves
		first, last := 1, 401
		from := backup.DateOf(c.now)
		if from.Before(r.Date) {
			from = r.Date
		}
		for first < last {
			middle := (first + last) / 2
			later := k
			if later.Date = from.AddDays(middle - 1); c.fits(later, capacity) {
				last = middle
			} else {
				first = middle + 1
			}
		}
		k.Date = from.AddDays(first - 1)
		if len(c.coming(k)) > 0 { // it begins within the horizon
			out = append(out, k.Recurrence)
		}
		return out
	}
	for by := 1; by < 400; by++ {
		for _, sign := range []int{-1, 1} {
			if o, ok := beside(r, by*sign); ok && !(o.Kind == backup.OneTime && horizonEnd.Before(o.Date)) {
				out = append(out, o)
			}
		}
	}
	return out
}

// beside returns r with its days moved as a whole, where every month has them.
func beside(r backup.Recurrence, by int) (backup.Recurrence, bool) {
	switch {
	case r.Kind == backup.OneTime:
		r.Date = r.Date.AddDays(by)
		return r, true
	case r.Kind == backup.Weekly:
		var days []time.Weekday
		for _, d := range r.Weekdays {
			days = append(days, time.Weekday((int(d)+by+700)%7))
		}
		slices.Sort(days)
		r.Weekdays = days
		return r, by >= -3 && by <= 3
	case r.Nth != 0:
		r.Weekday += time.Weekday(by)
		return r, r.Weekday >= 0 && r.Weekday <= 6
	case r.LastDay:
		r.LastDay, r.MonthDays = false, []int{29 + by}
		return r, by < 0 && by >= -28
	}
	r.MonthDays = slices.Clone(r.MonthDays)
	for i := range r.MonthDays {
		r.MonthDays[i] += by
	}
	return r, slices.Min(r.MonthDays) >= 1 && slices.Max(r.MonthDays) <= 28
}

// TestAdmissionAgreesWithARecount: whatever is booked, the planner says yes
// exactly when a recount of every hour says that it fits, and a refusal
// recommends the nearest slots that do.
//
// seed:N60
func TestAdmissionAgreesWithARecount(t *testing.T) {
	codes := map[backup.Code]int{}
	for _, capacity := range []int{1, 4, 7} {
		c := newCourt(t, capacity)
		for round := range 6 {
			chance := rand.New(rand.NewPCG(uint64(capacity), uint64(round)))
			c.clock.pass(time.Duration(chance.IntN(40*24*60)) * time.Minute) // never into a seat that is held
			count := newRecount(t, c.clock.Now())
			var held []booked
			for i := range 30 {
				if i == 15 && capacity > 1 { // what is held stays, what is new must fit
					c.resize(capacity - round%3)
				}
				s, k := c.draw(chance.IntN)
				if len(held) > 2 && chance.IntN(4) == 0 { // a stored one becomes s
					i := chance.IntN(len(held))
					s.ID = held[i].id
					count.unbook(held[i].claim)
					code := c.judge(count, k, c.ask(&s))
					if codes["update "+code]++; code == "" {
						held[i].claim = k
					}
					count.book(held[i].claim)
					continue
				}
				code := c.judge(count, k, c.ask(&s))
				if codes[code]++; code == "" {
					held = append(held, booked{s.ID, k})
					count.book(k)
				}
			}
			c.agree(count)
			for _, b := range held {
				if err := c.DeleteSchedule(c.ctx, b.id); err != nil {
					t.Fatal(err)
				}
			}
			c.agree(newRecount(t, c.clock.Now()))
			c.resize(capacity)
		}
	}
	for code, least := range map[backup.Code]int{"": 20, backup.SlotFull: 20, backup.ExceedsCapacity: 20, "update ": 8, "update slot_full": 8} {
		if codes[code] < least {
			t.Errorf("%d answers %q of %v, want at least %d: too few to tell", codes[code], code, codes, least)
		}
	}
}

func (c *court) resize(capacity int) {
	c.Helper()
	c.vcenter.SlotCapacity, c.vcenter.Version = capacity, 0
	c.vcenter = must(c.UpdateVCenter(c.ctx, c.vcenter))(c.T)
}

// TestAnOmittedStartTimeAgreesWithARecount: the hour that is picked is the
// first of those whose fullest hour stays least full, and one that fits when
// any does.
//
// seed:N58
func TestAnOmittedStartTimeAgreesWithARecount(t *testing.T) {
	c := newCourt(t, 5)
	fitted, refused := 0, 0
	for round := range 6 {
		chance := rand.New(rand.NewPCG(11, uint64(round)))
		c.clock.pass(time.Duration(chance.IntN(40*24*60)) * time.Minute)
		count := newRecount(t, c.clock.Now())
		var held []string
		for range 12 {
			s, k := c.draw(chance.IntN)
			if stored, err := c.CreateSchedule(c.ctx, s); err == nil {
				held = append(held, stored.ID)
				count.book(k)
			}
		}
		for range 12 {
			s, k := c.draw(chance.IntN)
			s.EarliestHour = max(0, s.Recurrence.Hour-chance.IntN(3))
			s.LatestHour, s.Recurrence.Hour = min(23, s.EarliestHour+chance.IntN(4)), -1
			best, least := -1, 0
			for h := s.EarliestHour; h <= s.LatestHour; h++ {
				k.Hour = h
				if peak := count.peak(k); !count.closed(k.Recurrence) && (best < 0 || peak < least) {
					best, least = h, peak
				}
			}
			k.Hour = max(best, s.EarliestHour)
			picked, _, err := c.CheckSchedule(c.ctx, s, nil)
			if c.judge(count, k, err) != "" {
				refused++
				continue
			}
			if fitted++; picked.Recurrence.Hour != best || !picked.StartTimeChosen {
				t.Fatalf("%s, window %d, duration %d, %d seats, from %02d:00 to %02d:00: picked %02d:00, want %02d:00", k.Describe(), k.window, k.duration, k.seats,
					s.EarliestHour, s.LatestHour, picked.Recurrence.Hour, best)
			}
		}
		for _, id := range held {
			if err := c.DeleteSchedule(c.ctx, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if fitted < 10 || refused < 5 {
		t.Errorf("%d found an hour and %d did not: too few to tell", fitted, refused)
	}
}

// TestACheckAgreesWithARecountOfItsPlan: what the same plan deletes is free, what
// it changes has moved, and what it makes besides is taken.
func TestACheckAgreesWithARecountOfItsPlan(t *testing.T) {
	c := newCourt(t, 5)
	codes := map[backup.Code]int{}
	for round := range 4 {
		chance := rand.New(rand.NewPCG(12, uint64(round)))
		c.clock.pass(time.Duration(chance.IntN(40*24*60)) * time.Minute)
		count := newRecount(t, c.clock.Now())
		var held []booked
		for range 25 {
			s, k := c.draw(chance.IntN)
			if stored, err := c.CreateSchedule(c.ctx, s); err == nil {
				held = append(held, booked{stored.ID, k})
				count.book(k)
			}
		}
		before := maps.Clone(count.used)
		for range 20 {
			count.used = maps.Clone(before)
			chance.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
			others := []backup.Planned{{ID: held[0].id}, {ID: held[1].id}, {ID: held[2].id}}
			for _, b := range held[:3] {
				count.unbook(b.claim)
			}
			for i := range 3 { // one is deleted, two are changed, one is new
				s, k := c.draw(chance.IntN)
				if i < 2 {
					others[i].Schedule = &s
				} else {
					others = append(others, backup.Planned{Schedule: &s})
				}
				if !count.closed(k.Recurrence) && count.fits(k, c.vcenter.SlotCapacity) {
					count.book(k)
				}
			}
			s, k := c.draw(chance.IntN)
			_, _, err := c.CheckSchedule(c.ctx, s, others)
			codes[c.judge(count, k, err)]++
		}
		count.used = before
		c.agree(count) // nothing of the plans is left
		for _, b := range held {
			if err := c.DeleteSchedule(c.ctx, b.id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if codes[""] < 20 || codes[backup.SlotFull] < 8 {
		t.Errorf("answers %v: too few to tell", codes)
	}
}

type booked struct {
	id string
	claim
}

// ask stores s, new or changed, and fails unless a check says the same and
// each slot that is recommended instead can be had at once.
func (c *court) ask(s *backup.Schedule) error {
	c.Helper()
	_, _, checked := c.CheckSchedule(c.ctx, *s, nil)
	put := c.CreateSchedule
	if s.ID != "" {
		put = c.UpdateSchedule
	}
	stored, err := put(c.ctx, *s)
	if backup.CodeOf(checked) != backup.CodeOf(err) {
		c.Fatalf("%s: the check says %v, the booking %v", s.Recurrence.Describe(), checked, err)
	}
	if e := backup.AsError(err); e != nil {
		c.bookable(*s, e)
		return err
	}
	s.ID = stored.ID
	return nil
}

// bookable fails unless each recommendation can be had at once.
func (c *court) bookable(s backup.Schedule, e *backup.Error) {
	c.Helper()
	for _, r := range e.Recommendations {
		s.Recurrence = r.Recurrence
		if _, _, err := c.CheckSchedule(c.ctx, s, nil); err != nil {
			c.Fatalf("recommended %s: %v", r.Recurrence.Describe(), err)
		}
	}
}

// agree fails unless the vcenter's timeslots are those of the recount.
func (c *court) agree(count *recount) {
	c.Helper()
	slots, _, err := c.Timeslots(c.ctx, backup.TimeslotQuery{VCenterID: c.vcenter.ID, TimeZone: "UTC", From: count.now, To: count.now.Add(horizon)})
	if err != nil {
		c.Fatal(err)
	}
	if len(slots) < 9599 {
		c.Fatalf("%d timeslots in 400 days, want one for each hour", len(slots))
	}
	for _, s := range slots[:len(slots)-1] { // the last one ends after the horizon
		if want := count.used[s.Start.UTC()]; s.Used != want {
			c.Fatalf("%s holds %d seats, want %d", s.Start, s.Used, want)
		}
	}
}
