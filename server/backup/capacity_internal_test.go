package backup

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var monday = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func daily(hour, seats int) Booking {
	return Booking{Recurrence: Recurrence{Kind: Daily, TimeZone: "UTC", Hour: hour}, WindowHours: 1, DurationHours: 1, Seats: seats}
}

func admit(x *seatIndex, b Booking, v VCenter) error {
	return desks{{vcenter: v, seats: x, want: b}}.admit(b.Recurrence)
}

func full(t *testing.T, err error) *Error {
	t.Helper()
	e := AsError(err)
	if e == nil || e.Code != SlotFull {
		t.Fatalf("got %v, want slot_full", err)
	}
	return e
}

// seed:N60
func TestFullSlotRecommendsSameDayThenSameSlot(t *testing.T) {
	x, v := newSeats(newHorizon(monday), monday), VCenter{Name: "prod", SlotCapacity: 4}
	x.add(daily(2, 4), 1)
	x.add(daily(1, 4), 1)
	want := Booking{Recurrence: Recurrence{Kind: OneTime, TimeZone: "UTC", Hour: 2, Date: Date{2026, 12, 1}}, WindowHours: 1, DurationHours: 1, Seats: 2}
	e := full(t, admit(x, want, v))
	if len(e.Recommendations) != 1 {
		t.Fatalf("got %d recommendations, want 1: every day is full at 02:00", len(e.Recommendations))
	}
	if r := e.Recommendations[0]; r.Kind != SameDay || r.Recurrence.Hour != 3 || r.FreeSeats != 2 {
		t.Errorf("got %+v, want 03:00 with 2 seats left", r)
	}

	x = newSeats(newHorizon(monday), monday)
	once := want
	once.Seats = 3
	x.add(once, 1)
	e = full(t, admit(x, want, v))
	if len(e.Recommendations) != 2 {
		t.Fatalf("got %+v, want an hour and a date", e.Recommendations)
	}
	if r := e.Recommendations[0]; r.Kind != SameDay || r.Recurrence.Hour != 1 {
		t.Errorf("first: got %+v, want the tie to go to 01:00", r)
	}
	if r := e.Recommendations[1]; r.Kind != SameSlot || r.Recurrence.Date.String() != "2026-11-30" || r.Recurrence.Hour != 2 {
		t.Errorf("second: got %+v, want the day before at 02:00", r)
	}
	if !strings.Contains(e.Message, "3 of 4 seats") || e.Field != "start_time" {
		t.Errorf("message %q of field %q", e.Message, e.Field)
	}
}

func TestRecommendationsPerKindCanBeBooked(t *testing.T) {
	tests := map[string]struct {
		r    Recurrence
		want string
	}{
		"weekly moves its days":                                      {Recurrence{Kind: Weekly, Weekdays: []time.Weekday{time.Monday}}, "every Sunday"},
		"monthly moves its day":                                      {Recurrence{Kind: Monthly, MonthDays: []int{15}}, "day 14 of each month"},
		"nth weekday moves its weekday":                              {Recurrence{Kind: Monthly, Nth: 2, Weekday: time.Wednesday}, "second Tuesday of each month"},
		"last day goes to the 27th, for the 28th is February's last": {Recurrence{Kind: Monthly, LastDay: true}, "day 27 of each month"},
		"daily starts when there's room":                             {Recurrence{Kind: Daily}, "every day from 2026-12-25"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			x, v := newSeats(newHorizon(monday), monday), VCenter{Name: "prod", SlotCapacity: 1}
			tt.r.TimeZone, tt.r.Hour = "UTC", 2
			b := Booking{Recurrence: tt.r, WindowHours: 1, DurationHours: 1, Seats: 1}
			held := b
			if tt.r.Kind == Daily {
				held.Recurrence = Recurrence{Kind: OneTime, TimeZone: "UTC", Hour: 2, Date: Date{2026, 12, 24}}
			}
			x.add(held, 1)
			e := full(t, admit(x, b, v))
			last := e.Recommendations[len(e.Recommendations)-1]
			if got := last.Recurrence.days(); last.Kind != SameSlot || got != tt.want {
				t.Errorf("got %s %q, want %q", last.Kind, got, tt.want)
			}
			for _, r := range e.Recommendations {
				o := b
				o.Recurrence = r.Recurrence
				if left, ok := (desks{{vcenter: v, seats: x, want: o}}).fits(o.Recurrence); !ok || left != r.FreeSeats {
					t.Errorf("%+v: fits %v with %d left", r, ok, left)
				}
			}
		})
	}
}

func TestScheduleThatNeverFitsNamesTheWindow(t *testing.T) {
	x, v := newSeats(newHorizon(monday), monday), VCenter{Name: "prod", SlotCapacity: 4}
	e := AsError(admit(x, daily(2, 10), v))
	if e == nil || e.Code != ExceedsCapacity || !strings.Contains(e.Message, "window_hours = 3") {
		t.Errorf("10 VMs in 4 seats: got %v, want a window of 3 hours", e)
	}
	e = AsError(admit(x, daily(2, 97), v))
	if e == nil || e.Code != ExceedsCapacity || !strings.Contains(e.Message, "Split the group") {
		t.Errorf("97 VMs in 4 seats: got %v, want no window", e)
	}
}

func TestSlotAcrossTwoUTCHoursTakesBoth(t *testing.T) {
	x := newSeats(newHorizon(monday), monday)
	b := daily(2, 3)
	b.Recurrence.TimeZone = "Asia/Kolkata" // +5:30: 02:00 is 20:30 UTC
	x.add(b, 1)
	for _, tt := range []struct{ hour, want int32 }{{19, 0}, {20, 3}, {21, 3}, {22, 0}} {
		i := x.horizon.minute(time.Date(2026, 11, 24, int(tt.hour), 0, 0, 0, time.UTC)) / 60
		if got := x.used[i]; got != tt.want {
			t.Errorf("%02d:00 UTC holds %d seats, want %d", tt.hour, got, tt.want)
		}
	}
}

func TestWindowSpreadsAndDurationHolds(t *testing.T) {
	x := newSeats(newHorizon(monday), monday)
	b := daily(2, 5)
	b.WindowHours, b.DurationHours = 2, 2
	x.add(b, 1)
	for _, tt := range []struct{ hour, want int32 }{{1, 0}, {2, 2}, {3, 5}, {4, 3}, {5, 0}} {
		i := x.horizon.minute(time.Date(2026, 11, 25, int(tt.hour), 0, 0, 0, time.UTC)) / 60
		if got := x.used[i]; got != tt.want {
			t.Errorf("%02d:00 holds %d seats, want %d", tt.hour, got, tt.want)
		}
	}
}

// TestGivingBackLeavesNothing books and gives back at random: the index must
// end as a fresh one.
func TestGivingBackLeavesNothing(t *testing.T) {
	x := newSeats(newHorizon(monday), monday)
	var held []Booking
	for range 300 {
		if len(held) > 0 && rand.IntN(3) == 0 {
			k := rand.IntN(len(held))
			x.add(held[k], -1)
			held = append(held[:k], held[k+1:]...)
			continue
		}
		b := daily(rand.IntN(24), 1+rand.IntN(5))
		b.Recurrence.TimeZone = []string{"UTC", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago"}[rand.IntN(4)]
		b.WindowHours, b.DurationHours = 1+rand.IntN(6), 1+rand.IntN(6)
		x.add(b, 1)
		held = append(held, b)
	}
	for _, b := range held {
		x.add(b, -1)
	}
	for i, n := range x.used {
		if n != 0 {
			t.Fatalf("hour %d holds %d seats after all were given back", i, n)
		}
	}
}

// seed:N59
func TestLastFiveMinutesOfASlotAreClosed(t *testing.T) {
	r := Recurrence{Kind: OneTime, TimeZone: "Asia/Tokyo", Hour: 13, Date: Date{2026, 11, 23}}
	at := func(minute, sec int) time.Time { return time.Date(2026, 11, 23, 4, minute, sec, 0, time.UTC) } // 13:mm in Tokyo
	if err := r.timely(at(54, 59)); err != nil {
		t.Errorf("13:54:59: got %v, want no refusal", err)
	}
	e := AsError(r.timely(at(55, 0)))
	if e == nil || e.Code != SlotClosed || e.Field != "start_time" || !strings.Contains(e.Message, "closed at 2026-11-23 13:55 +09:00") || !strings.Contains(e.Message, "2026-11-23 14:00") {
		t.Errorf("13:55:00: got %v, want closed at 13:55 and 14:00 as the next", e)
	}
	e = AsError(r.timely(at(0, 0).AddDate(0, 0, 1)))
	if e == nil || e.Field != "one_time.date" {
		t.Errorf("a day later: got %v, want a refusal of the date", e)
	}
}

func BenchmarkAdmission(b *testing.B) {
	x, v := newSeats(newHorizon(monday), monday), VCenter{Name: "prod", SlotCapacity: 1000}
	for b.Loop() {
		k := daily(2, 1)
		if err := admit(x, k, v); err != nil {
			b.Fatal(err)
		}
	}
}
