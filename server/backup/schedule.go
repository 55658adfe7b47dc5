package backup

import (
	"cmp"
	"slices"
	"time"
)

// Schedule says when and how a VM or a group is backed up.
type Schedule struct {
	Meta
	Name        string
	Description string
	Enabled     bool

	GroupID string // exactly one of GroupID and VMID is set
	VMID    string

	Recurrence      Recurrence
	WindowHours     int // consecutive slots over which the VMs may start, 1 to 24; default 1
	DurationHours   int // seats a VM takes from its start hour on, 1 to 24; default 1
	MaxDelayHours   int // how long after its window a job may still start, 0 to 168; default 6
	RetentionDays   int // from the start of the backup (seed N52); 0 = never expires (general profile)
	Extended        []ExtendedRetention
	ApplyToExisting bool // a change of retention reaches the images that are there
	Lock            bool
	Consistency     Consistency
	Disks           DiskChoice
	Unprotectable   UnprotectedPolicy
	RepositoryID    string // "" when asked for = the installation's default
	CopyTo          []CopyTarget
	Labels          map[string]string
	DeletionProtect bool
	Seats           int  // booked in each of its start hours, over the window
	UnbookedSeats   int  // that its group has grown by without finding room: these VMs start only while the hour has room
	StartTimeChosen bool // the server picked the slot
	EarliestHour    int  // of that pick, 0 to 23
	LatestHour      int  // of that pick, 0 to 23; default 23
}

// DefaultMaxDelayHours is how long after its window a job may still start.
const DefaultMaxDelayHours = 6

// RecurrenceKind is the type of a schedule (seed N22).
type RecurrenceKind string

// The kinds of recurrence.
const (
	OneTime RecurrenceKind = "one_time"
	Daily   RecurrenceKind = "daily"
	Weekly  RecurrenceKind = "weekly"
	Monthly RecurrenceKind = "monthly"
)

// Recurrence is a whole local hour on certain days of a time zone.
type Recurrence struct {
	Kind     RecurrenceKind
	TimeZone string // IANA
	Hour     int    // 0 to 23; -1 = the server picks

	Date      Date           // one_time: the day; daily: the first day (zero = at once)
	Weekdays  []time.Weekday // weekly; sorted from Sunday, no doubles
	MonthDays []int          // monthly: days 1 to 31, ascending, no doubles
	LastDay   bool           // monthly: the last day
	Nth       int            // monthly: 1 to 5, or Last; 0 = not used
	Weekday   time.Weekday   // with Nth
	ShortLast bool           // monthly with MonthDays: a day that the month lacks means its last day
}

// Last is the Nth of "the last Wednesday of each month".
const Last = -1

// ExtendedRetention keeps the images of some days longer.
type ExtendedRetention struct {
	Weekdays      []time.Weekday `json:"days_of_week,omitempty"`
	MonthDays     []int          `json:"days_of_month,omitempty"`
	LastDay       bool           `json:"last_day,omitempty"`
	Nth           int            `json:"week_of_month,omitempty"`
	Weekday       time.Weekday   `json:"day_of_week,omitempty"`
	RetentionDays int            `json:"retention_days"`
}

// Defaulted returns s with the defaults for what is not set. MaxDelayHours
// has none here, since 0 means never late: the border sets it.
func (s Schedule) Defaulted() Schedule {
	if s.WindowHours == 0 {
		s.WindowHours = 1
	}
	if s.DurationHours == 0 {
		s.DurationHours = 1
	}
	if s.Consistency == "" {
		s.Consistency = ConsistencyCrash
	}
	if s.Unprotectable == "" {
		s.Unprotectable = UnprotectedFail
	}
	r := &s.Recurrence
	r.Weekdays, r.MonthDays = ordered(r.Weekdays), ordered(r.MonthDays)
	return s
}

// ordered returns the values ascending and once each. It leaves v, which is the
// caller's, as it is.
func ordered[T cmp.Ordered](v []T) []T {
	return slices.Compact(slices.Sorted(slices.Values(v)))
}

// RecommendationKind says how a recommendation differs from what was asked for.
type RecommendationKind string

// The kinds, in the order in which they are given (seed N60).
const (
	SameDay  RecommendationKind = "same_day"  // another hour of the same days
	SameSlot RecommendationKind = "same_slot" // the same hour on other days
)

// Recommendation is a slot that can be booked instead of a full one.
type Recommendation struct {
	Kind       RecommendationKind
	Recurrence Recurrence // complete: it can be booked as it is
	FreeSeats  int        // left after this booking, in the fullest hour
}
