package backup_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:N23 seed:N31 seed:N32 seed:N33 seed:N34 seed:A21 seed:A42 seed:A43
func TestRetentionChoices(t *testing.T) {
	tests := map[string]struct {
		profile backup.RetentionProfile
		kind    backup.RecurrenceKind
		good    []int
		bad     []int
	}{
		"one_time":     {backup.ProfileStandard, backup.OneTime, []int{1, 31, 366}, []int{-1, 0, 2, 30, 365, 367}},
		"daily":        {backup.ProfileStandard, backup.Daily, []int{1, 2, 3, 4, 5, 6, 7, 8}, []int{0, 9, 31}},
		"weekly":       {backup.ProfileStandard, backup.Weekly, []int{7, 14, 21, 28, 35, 42, 49, 56}, []int{1, 8, 63}},
		"monthly":      {backup.ProfileStandard, backup.Monthly, []int{31, 62, 93, 124, 155, 186, 217, 248}, []int{30, 279}},
		"general":      {backup.ProfileGeneral, backup.Daily, []int{0, 1, 9, 65536}, []int{-1, 65537}},
		"general spot": {backup.ProfileGeneral, backup.OneTime, []int{0, 2, 400}, []int{-5}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, d := range tt.good {
				if err := tt.profile.Check("retention_days", tt.kind, d); err != nil {
					t.Errorf("%d days: got %v, want none", d, err)
				}
			}
			for _, d := range tt.bad {
				err := tt.profile.Check("retention_days", tt.kind, d)
				if e := backup.AsError(err); e == nil || e.Code != backup.Invalid || e.Field != "retention_days" {
					t.Errorf("%d days: got %v, want invalid retention_days", d, err)
				}
			}
		})
	}
	err := backup.ProfileStandard.Check("retention_days", backup.OneTime, 30)
	if err == nil || !strings.Contains(err.Error(), "1, 31 or 366") {
		t.Errorf("the refusal does not name the choices: %v", err)
	}
}

// seed:N52
func TestRetentionRunsFromTheStart(t *testing.T) {
	start := time.Date(2026, 3, 28, 23, 30, 0, 0, time.UTC)
	if got, want := backup.ExpiresAt(start, 2), start.Add(48*time.Hour); !got.Equal(want) {
		t.Errorf("ExpiresAt = %s, want %s", got, want)
	}
	if got := backup.ExpiresAt(start, 0); !got.IsZero() {
		t.Errorf("0 days: got %s, want never", got)
	}
}

func TestExtendedRetentionTakesTheLongest(t *testing.T) {
	s := backup.Schedule{RetentionDays: 7, Extended: []backup.ExtendedRetention{
		{Weekdays: []time.Weekday{time.Sunday}, RetentionDays: 28},
		{LastDay: true, RetentionDays: 248},
	}}
	for date, want := range map[string]int{"2026-11-27": 7, "2026-11-29": 28, "2026-11-30": 248, "2027-01-31": 248} {
		if got := s.RetentionOn(day(t, date)); got != want {
			t.Errorf("%s: got %d days, want %d", date, got, want)
		}
	}
}
