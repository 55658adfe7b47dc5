//go:build failpoints && linux

package server_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// placesOf names, for each work, the places at which servers die in it; one
// that several works come to stands with the one that is quickest, or where it
// does the most harm. "*" stands for the work's own kind of job.
var placesOf = map[string]string{
	"backup over nfc": `backup.claimed backup.cleared backup.intended backup.tracked snapshot.asked backup.snapshot_made image.pinned backup.disk_read
		backup.image_ready image.landing image.landed backup.image_committed backup.image_noted snapshot.removing backup.snapshot_removed
		backup.ending backup.ended update.committing update.committed sweep.swept`,
	"backup over hotadd":  `hotadd.intended hotadd.attached hotadd.detached backup.disk_read snapshot.removing`,
	"backup offline":      `offline.intended offline.shut_down offline.snapshot_made offline.snapshot_noted offline.powered_on backup.image_ready`,
	"backup of a group":   `freeze.claimed freeze.intended freeze.snapshots_made freeze.ending freeze.ended backup.claimed backup.snapshot_removed`,
	"restore to a new VM": `restore.claimed restore.intended import.made import.sent import.filled import.completed restore.done restore.noted restore.ending restore.ended`,
	"restore in place by disks": `swap.intended swap.released swap.disk_moved inplace.powering_off inplace.powered_off swap.swapped swap.cleared inplace.powered_on swap.undone
		import.made restore.done`,
	"restore in place by areas":        `level.intended inplace.powering_off inplace.powered_off level.snapshot_made level.disk_written level.finished level.dropped inplace.powered_on restore.done hotadd.attached level.undone`,
	"restore in place behind a backup": `restore.before_made restore.before_listed backup.image_committed inplace.powered_off`,
	"restore of a disk":                `disk.changed swap.disk_moved swap.released`,
	"copy":                             `copy.claimed copy.intended copy.disk_written copy.committed copy.noted copy.ending copy.ended image.landed`,
	"verification":                     `verify.claimed verify.reading verify.read verify.ending verify.ended`,
	"deletion":                         `delete.claimed delete.deleting delete.deleted delete.ending delete.ended`,
	"collection":                       `collect.claimed collect.marked collect.step_done collect.collected collect.ending collect.ended`,
	"catalogue":                        `catalogue.claimed catalogue.part_listed catalogue.ending catalogue.ended`,
	"inventory":                        `sync.claimed sync.ending sync.ended`,
	"bookings":                         `booking.committing booking.committed update.committing update.committed idempotency.done`,
	"debt":                             `sweep.powered_on offline.shut_down`,
	"locks":                            `lock.image_locked lock.claimed lock.extended lock.ending lock.ended`,
	"first start":                      `migration.step start.token_written start.repository_intended start.repository_made`,
}

func places(work string) []string { return strings.Fields(placesOf[work]) }

// jobKinds stand before the places that all jobs come to.
var jobKinds = strings.Fields("backup restore sync delete collect verify catalogue lock copy freeze")

// TestEveryPlaceIsOneAtWhichServersDie reads the places from the sources: one
// that no work of the torture comes to is no proof of anything.
func TestEveryPlaceIsOneAtWhichServersDie(t *testing.T) {
	var inSources []string
	hit := regexp.MustCompile(`failpoint\.Hit\((?:(string\([a-z.]+\.Kind\)) \+ )?"([a-z_.]+)"\)`)
	calls := regexp.MustCompile(`failpoint\.Hit\(`)
	for _, f := range sources(t) {
		if f.test {
			continue
		}
		found := hit.FindAllStringSubmatch(f.text, -1)
		if n := len(calls.FindAllString(f.text, -1)); n != len(found) {
			t.Errorf("%s has %d places, of which %d can be read: their names are literals", f.path, n, len(found))
		}
		for _, m := range found {
			if m[1] == "" {
				inSources = append(inSources, m[2])
				continue
			}
			for _, kind := range jobKinds {
				inSources = append(inSources, kind+m[2])
			}
		}
	}
	slices.Sort(inSources)
	var inWorks []string
	for work := range placesOf {
		inWorks = append(inWorks, places(work)...)
	}
	slices.Sort(inWorks)
	inWorks = slices.Compact(inWorks)
	for n, place := range inSources {
		if n > 0 && inSources[n-1] == place {
			t.Errorf("two places are called %s: a test would not know where it kills", place)
		}
		if !slices.Contains(inWorks, place) {
			t.Errorf("no work comes to the place %s", place)
		}
	}
	for _, place := range inWorks {
		if !slices.Contains(inSources, place) {
			t.Errorf("there is no place %s", place)
		}
	}
	if n := len(slices.Compact(inSources)); n < 60 {
		t.Errorf("%d places, want at least 60", n)
	}
	for _, w := range works() {
		if len(places(w.name)) == 0 {
			t.Errorf("the work %q comes to no place", w.name)
		}
	}
}
