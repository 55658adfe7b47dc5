package provider

import (
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func TestWarningsOfACheckStandAtWhatTheyAreAbout(t *testing.T) {
	const (
		months   = "No run in February 2027: the month lacks the day (day 31 of each month, 02:00-03:00 UTC)."
		measured = "The longest of the last 12 backups took 2 h 10 min; duration_hours = 3 books the hours it uses."
		lock     = "With lock = true only the server keeps the lock: repository default has no object lock."
		unable   = "1 disk cannot be backed up and will be missing from the images: Hard disk 2 of \"erp\" (it is independent)."
		unheard  = "The moon is full."
	)
	var diags diag.Diagnostics
	surprises([]string{measured, lock, months, unable, unheard}, &diags)
	for i, want := range []struct{ at, summary, text string }{
		{"monthly", "Some months have no run", months + "\nTo run in every month: "},
		{"duration_hours", "Backups take another time", measured},
		{"lock", "The storage does not enforce all of the lock", lock},
		{"unprotectable_disks", "Not all can be backed up", unable},
		{"start_time", "Schedule may surprise", unheard},
	} {
		if len(diags) != 5 {
			t.Fatalf("warnings are %v, want five", diags)
		}
		d, located := diags[i].(diag.DiagnosticWithPath)
		if !located || !d.Path().Equal(path.Root(want.at)) || d.Summary() != want.summary || !strings.HasPrefix(d.Detail(), want.text) || d.Severity() != diag.SeverityWarning {
			t.Errorf("warning %d is %v, want %q at %s", i, diags[i], want.text, want.at)
		}
	}
	diags = nil
	if surprises(nil, &diags); len(diags) > 0 {
		t.Errorf("without a warning there is %v", diags)
	}
}

func TestMachinesWithoutASeatAreWarnedOf(t *testing.T) {
	var diags diag.Diagnostics
	warnOfUnbooked(api.BackupSchedule{Name: "nightly", Seats: 4}, &diags)
	if len(diags) > 0 {
		t.Errorf("a schedule that has all its seats warns: %v", diags)
	}
	warnOfUnbooked(api.BackupSchedule{Name: "nightly", Seats: 4, UnbookedSeats: 2, Summary: "every day, 02:00-03:00 UTC"}, &diags)
	if len(diags) != 1 || diags[0].Severity() != diag.SeverityWarning || !strings.Contains(diags[0].Detail(), `The group of schedule "nightly" has grown: 2 of its machines found no room in its hours (every day, 02:00-03:00 UTC).`) {
		t.Errorf("two machines without a seat give %v", diags)
	}
}
