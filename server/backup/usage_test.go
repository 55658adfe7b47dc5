package backup_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// entry is the account of an image of one GiB that was started then.
func entry(t *testing.T, started string, days int) (backup.Image, backup.UsageEntry) {
	t.Helper()
	i := backup.Image{ID: "i", Status: backup.ImageGood, StartedAt: at(t, started), Sizes: backup.Sizes{Provisioned: 1 << 30}}
	i.ExpiresAt = backup.ExpiresAt(i.StartedAt, days)
	e, ok := backup.NewUsage(i, i.StartedAt)
	if !ok {
		t.Fatalf("image of %s has no account", started)
	}
	return i, e
}

// Worked examples: seed:N85 seed:N86 seed:N89
func TestHoursAreThoseOfUTCAndBothEndsAreRoundedOutward(t *testing.T) {
	const all = "2020-01-01T00:00:00Z/2100-01-01T00:00:00Z"
	for name, c := range map[string]struct {
		started string
		days    int
		within  string // from/to
		want    int64
	}{
		"24 h from 00:10 are 25 hours":                  {"2026-04-01T00:10:00Z", 1, all, 25},
		"one second into the hour, too":                 {"2026-04-01T00:00:01Z", 1, all, 25},
		"24 h from 00:00 are 24 hours":                  {"2026-04-01T00:00:00Z", 1, all, 24},
		"31 days from half past":                        {"2026-01-31T23:30:00Z", 31, all, 31*24 + 1},
		"1 April in Tokyo":                              {"2026-04-01T00:00:00+09:00", 1, all, 24},
		"1 April in Tokyo, its hours of 31 March":       {"2026-04-01T00:00:00+09:00", 1, "2026-03-31T00:00:00Z/2026-04-01T00:00:00Z", 9},
		"1 April in Tokyo, its hours of 1 April":        {"2026-04-01T00:00:00+09:00", 1, "2026-04-01T00:00:00Z/2026-04-02T00:00:00Z", 15},
		"Kolkata begins half an hour beside UTC":        {"2026-04-01T02:00:00+05:30", 1, all, 25},
		"the last hour of a month":                      {"2026-01-31T23:59:59Z", 1, "2026-01-01T00:00:00Z/2026-02-01T00:00:00Z", 1},
		"the rest of it in the next":                    {"2026-01-31T23:59:59Z", 1, "2026-02-01T00:00:00Z/2026-03-01T00:00:00Z", 24},
		"a day of 23 hours in Berlin counts 24":         {"2027-03-28T00:00:00+01:00", 1, all, 24},
		"that day in Berlin from midnight to midnight":  {"2027-03-28T00:00:00+01:00", 1, "2027-03-27T23:00:00Z/2027-03-28T22:00:00Z", 23},
		"a day of 25 hours in Berlin counts 24":         {"2027-10-31T00:00:00+02:00", 1, all, 24},
		"that day in Berlin, its 25 hours":              {"2027-10-30T00:00:00+02:00", 7, "2027-10-30T22:00:00Z/2027-10-31T23:00:00Z", 25},
		"29 February":                                   {"2028-02-28T12:00:00Z", 2, "2028-02-29T00:00:00Z/2028-03-01T00:00:00Z", 24},
		"never ends: as far as one looks":               {"2026-04-01T00:10:00Z", 0, "2026-04-01T00:00:00Z/2027-04-01T00:00:00Z", 365 * 24},
		"not begun yet":                                 {"2026-04-01T00:00:00Z", 1, "2026-03-01T00:00:00Z/2026-04-01T00:00:00Z", 0},
		"over":                                          {"2026-04-01T00:00:00Z", 1, "2026-04-02T00:00:00Z/2026-05-01T00:00:00Z", 0},
		"the longest retention there is, in its middle": {"2026-04-01T00:00:00Z", 65536, "2090-01-01T00:00:00Z/2090-01-02T00:00:00Z", 24},
	} {
		t.Run(name, func(t *testing.T) {
			_, e := entry(t, c.started, c.days)
			from, to := at(t, c.within[:20]), at(t, c.within[21:])
			if got := e.Hours(from, to); got != c.want {
				t.Errorf("Hours(%s) of %d days from %s = %d, want %d", c.within, c.days, c.started, got, c.want)
			}
		})
	}
}

func TestWhatWasCountedStaysCounted(t *testing.T) {
	type step struct {
		at      string // when the image is changed
		expires string // "" = never
		deleted bool
	}
	for name, c := range map[string]struct {
		steps []step
		want  int64
	}{
		"nothing happens":                      {nil, 10 * 24},
		"deleted on the third day, at 10:20":   {[]step{{at: "2026-04-03T10:20:00Z", deleted: true}}, 2*24 + 11},
		"deleted, and asked for again":         {[]step{{at: "2026-04-03T10:20:00Z", deleted: true}, {at: "2026-04-04T00:00:00Z", deleted: true}}, 2*24 + 11},
		"deleted on the hour":                  {[]step{{at: "2026-04-03T10:00:00Z", deleted: true}}, 2*24 + 10},
		"deleted in its first minute":          {[]step{{at: "2026-04-01T00:00:00Z", deleted: true}}, 1},
		"deleted long after its date":          {[]step{{at: "2026-05-01T00:00:00Z", deleted: true}}, 10 * 24}, // it had waited for a newer one
		"kept for less":                        {[]step{{at: "2026-04-03T10:20:00Z", expires: "2026-04-06T00:00:00Z"}}, 5 * 24},
		"kept for less than it is old":         {[]step{{at: "2026-04-03T10:20:00Z", expires: "2026-04-02T00:00:00Z"}}, 2*24 + 11},
		"kept for less, when its date is past": {[]step{{at: "2026-04-20T10:20:00Z", expires: "2026-04-02T00:00:00Z"}}, 10 * 24},
		"kept for longer":                      {[]step{{at: "2026-04-03T10:20:00Z", expires: "2026-04-21T00:00:00Z"}}, 20 * 24},
		"kept for ever, then deleted":          {[]step{{at: "2026-04-03T10:20:00Z"}, {at: "2026-04-20T23:00:01Z", deleted: true}}, 20 * 24},
		"kept for longer when it had waited":   {[]step{{at: "2026-04-13T10:20:00Z", expires: "2026-04-16T00:00:00Z"}}, 10*24 + 2*24 + 14},
		"so twice": {[]step{{at: "2026-04-13T10:20:00Z", expires: "2026-04-14T00:00:00Z"}, {at: "2026-04-16T23:59:00Z", expires: "2026-04-18T00:00:00Z"}},
			10*24 + 14 + 1 + 24},
		"kept for longer, and still in the past":   {[]step{{at: "2026-04-20T10:20:00Z", expires: "2026-04-16T00:00:00Z"}}, 10 * 24},
		"less and again more within the hour":      {[]step{{at: "2026-04-03T10:20:00Z", expires: "2026-04-02T00:00:00Z"}, {at: "2026-04-03T10:50:00Z", expires: "2026-04-11T00:00:00Z"}}, 10 * 24},
		"changed in what does not concern its end": {[]step{{at: "2026-04-03T10:20:00Z", expires: "2026-04-11T00:00:00Z"}}, 10 * 24},
	} {
		t.Run(name, func(t *testing.T) {
			i, e := entry(t, "2026-04-01T00:00:00Z", 10)
			for _, s := range c.steps {
				if s.deleted {
					i.Status = backup.ImageExpired
				} else if i.ExpiresAt = (time.Time{}); s.expires != "" {
					i.ExpiresAt = at(t, s.expires)
				}
				e = e.Follow(i, at(t, s.at))
			}
			if got := e.Hours(at(t, "2026-01-01T00:00:00Z"), at(t, "2027-01-01T00:00:00Z")); got != c.want {
				t.Errorf("%d hours, want %d: %+v", got, c.want, e)
			}
		})
	}
}

// The recount looks at each hour by itself, as the image stood when it ran.
func TestTheHoursOfRandomImagesAreThoseOfARecount(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	begin := time.Date(2026, 2, 20, 0, 0, 0, 0, time.UTC)
	const length = 24 * 60
	somewhere := func() time.Time { return begin.Add(time.Duration(dice.Int64N(int64(length * time.Hour)))) }
	for range 300 {
		i := backup.Image{ID: "i", Status: backup.ImageGood, StartedAt: somewhere()}
		i.ExpiresAt = backup.ExpiresAt(i.StartedAt, dice.IntN(20))
		e, _ := backup.NewUsage(i, i.StartedAt)
		counted := map[int64]bool{} // hours since the epoch
		now := i.StartedAt
		for change := range 4 {
			next := now.Add(time.Duration(dice.Int64N(int64(200 * time.Hour))))
			if change == 3 {
				next = begin.Add(2 * length * time.Hour)
			}
			for t := now; t.Before(next); t = t.Truncate(time.Hour).Add(time.Hour) {
				if i.Status == backup.ImageGood && (i.ExpiresAt.IsZero() || t.Before(i.ExpiresAt)) {
					counted[t.Unix()/3600] = true
				}
			}
			if now = next; change == 3 {
				break
			}
			if i.ExpiresAt = (time.Time{}); dice.IntN(5) > 0 {
				i.ExpiresAt = somewhere().Add(length / 4 * time.Hour)
			}
			if dice.IntN(6) == 0 {
				i.Status = backup.ImageExpired
			}
			e = e.Follow(i, now)
		}
		from, to := somewhere().Truncate(time.Hour), somewhere().Truncate(time.Hour)
		var want int64
		for h := from; h.Before(to); h = h.Add(time.Hour) {
			if counted[h.Unix()/3600] {
				want++
			}
		}
		if got := e.Hours(from, to); got != want {
			t.Fatalf("Hours(%s, %s) = %d, want %d of image %+v, account %+v", from, to, got, want, i, e)
		}
	}
}

func TestACopyCountsFromWhenItWasMade(t *testing.T) {
	i, original := entry(t, "2026-04-01T00:10:00Z", 7)
	i.ID, i.CopyOf, i.EndedAt = "c", "i", at(t, "2026-04-03T05:20:00Z")
	e, _ := backup.NewUsage(i, i.EndedAt)
	if want := at(t, "2026-04-03T05:00:00Z"); !e.Since.Equal(want) || !e.Until.Equal(original.Until) {
		t.Errorf("the copy counts from %v to %v, want from %v to the original's end %v", e.Since, e.Until, want, original.Until)
	}
}
