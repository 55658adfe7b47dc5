package backup

import "time"

// The account of usage tells for how long images were there: in UTC hours, both
// ends rounded outward, on the size of the disks (seed N85, N89). It is kept
// beside the images, since the hours of an image that is gone still count.

// usageMonths is for how many whole months before the running one the account
// is kept.
const usageMonths = 13

// UsageKept is the beginning of the account that is kept at that instant.
func UsageKept(now time.Time) time.Time { return monthOf(now).AddDate(0, -usageMonths, 0) }

func monthOf(t time.Time) time.Time {
	y, m, _ := t.UTC().Date()
	return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
}

// UsageEntry is one image in the account of usage. All times are whole UTC hours.
type UsageEntry struct {
	ImageID      string
	VMID         string
	VMName       string // when the image was made
	ScheduleID   string // of its maker, as the next; "" = made by hand
	GroupID      string
	RepositoryID string
	Sizes        Sizes
	Since        time.Time  // the first hour that counts
	Until        time.Time  // the first one that does not count any more
	Gaps         []HourSpan // between them; oldest first
}

// HourSpan is a span of whole UTC hours; To is the first one that is not in it.
type HourSpan struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// NewUsage begins the account of an image. ok is false for one that does not
// say when it was started.
func NewUsage(i Image, now time.Time) (e UsageEntry, ok bool) {
	if i.StartedAt.IsZero() {
		return UsageEntry{}, false
	}
	e = UsageEntry{
		ImageID: i.ID, VMID: i.VMID, VMName: i.VMName, ScheduleID: i.ScheduleID, GroupID: i.GroupID, RepositoryID: i.RepositoryID,
		Sizes: i.Sizes, Since: hourOf(i.StartedAt),
	}
	if i.CopyOf != "" { // it takes room from when it was made, not from when its original was
		e.Since = maxTime(e.Since, hourOf(i.EndedAt))
	}
	e.Until = maxTime(usageEnd(i), e.Since.Add(time.Hour))
	if i.Status == ImageExpired {
		e = e.Deleted(now)
	}
	return e, true
}

// Follow is the entry after its image has changed. What has been counted stays
// counted, and what has not been stays so: an image that waits past its date
// for a newer one is not counted meanwhile, even if it is then kept for longer.
func (e UsageEntry) Follow(i Image, now time.Time) UsageEntry {
	end := usageEnd(i)
	switch {
	case i.Status == ImageExpired: // asked to be deleted
		return e.Deleted(now)
	case end.Before(e.Until):
		e.Until = maxTime(end, e.Deleted(now).Until)
	case end.After(e.Until) && !e.Until.Before(hourOf(now)):
		e.Until = end
	case end.After(e.Until) && end.After(now):
		e.Gaps = append(e.Gaps[:len(e.Gaps):len(e.Gaps)], HourSpan{e.Until, hourOf(now)})
		e.Until = end
	}
	return e
}

// Deleted is the entry when its image is gone: the hour in which it goes is the
// last one that counts.
func (e UsageEntry) Deleted(now time.Time) UsageEntry {
	e.Until = maxTime(e.Since.Add(time.Hour), minTime(e.Until, hourUp(now)))
	return e
}

// usageEnd is when an image is counted no more by its date. A hold is a wish of
// the user's: its hours count.
func usageEnd(i Image) time.Time {
	if i.ExpiresAt.IsZero() || i.HeldUntil.Equal(forGood) {
		return time.Date(9999, time.December, 31, 23, 0, 0, 0, time.UTC)
	}
	return hourUp(maxTime(i.ExpiresAt, i.HeldUntil))
}

// Hours is how many of the hours between two whole hours count.
func (e UsageEntry) Hours(from, to time.Time) int64 {
	n := hoursIn(HourSpan{e.Since, e.Until}, from, to)
	for _, g := range e.Gaps {
		n -= hoursIn(g, from, to)
	}
	return n
}

func hoursIn(s HourSpan, from, to time.Time) int64 {
	from, to = maxTime(s.From, from), minTime(s.To, to)
	if !from.Before(to) {
		return 0
	}
	return int64(to.Sub(from) / time.Hour)
}

// hourOf is the UTC hour that t lies in, hourUp the first one that does not
// begin before it.
func hourOf(t time.Time) time.Time { return t.UTC().Truncate(time.Hour) }

func hourUp(t time.Time) time.Time {
	if h := hourOf(t); !h.Before(t) {
		return h
	}
	return hourOf(t).Add(time.Hour)
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Usage is what some images come to.
type Usage struct {
	Images int64
	Hours  int64 // of all images together
	Sizes  Sizes // of the images, however long they were there
	size   gibHours
}

// GiBHours is the sum, over the images, of the size of the disks times the hours.
func (u Usage) GiBHours() float64 { return float64(u.size.whole) + float64(u.size.rest)/(1<<30) }

// Savings is the part of the disks' size that did not have to be stored: 0.9
// says that a tenth was. It is below 0 where storing took more than the disks.
func (u Usage) Savings() float64 {
	if u.Sizes.Provisioned == 0 {
		return 0
	}
	return 1 - float64(u.Sizes.Stored)/float64(u.Sizes.Provisioned)
}

func (u *Usage) add(e UsageEntry, hours int64) {
	u.Images++
	u.Hours += hours
	u.Sizes.Provisioned += e.Sizes.Provisioned
	u.Sizes.Read += e.Sizes.Read
	u.Sizes.Changed += e.Sizes.Changed
	u.Sizes.Stored += e.Sizes.Stored
	u.size.add(e.Sizes.Provisioned, hours)
}

// gibHours is an exact sum of bytes times hours, which 64 bits do not hold for
// a year of a great installation.
type gibHours struct {
	whole int64 // GiB times hours
	rest  int64 // bytes times hours, less than one GiB
}

func (g *gibHours) add(bytes, hours int64) {
	g.rest += bytes % (1 << 30) * hours
	g.whole += bytes/(1<<30)*hours + g.rest/(1<<30)
	g.rest %= 1 << 30
}
