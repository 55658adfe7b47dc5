package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

const (
	anItemSize = `"provisioned_bytes":42949672960,"read_bytes":4294967296,"changed_bytes":2147483648,"stored_bytes":1073741824,"savings":0.975`
	noUsage    = `{"images":0,"image_hours":0,"gib_hours":0,"provisioned_bytes":0,"read_bytes":0,"changed_bytes":0,"stored_bytes":0,"savings":0}`
)

func aUsage(by, items, total, vanished string) reply {
	return ok(`{"from":"2026-03-31T00:00:00Z","to":"2026-04-02T00:00:00Z","group_by":"` + by + `","items":[` + items + `],"total":` + total + `,"vanished":` + vanished + `}`)
}

// seed:N46
func TestUsageIsToldByVMWithTheVanishedOnes(t *testing.T) {
	f := newFake(t)
	one := func(more, hours, gib string) string {
		return `{` + more + `"images":1,"image_hours":` + hours + `,"gib_hours":` + gib + `,` + anItemSize + `}`
	}
	f.on("GET /v1/usage?from=2026-03-31T00%3A00%3A00Z&group_by=vm&to=2026-04-02T00%3A00%3A00Z", aUsage("vm",
		one(`"id":"`+vmA+`","name":"erp\u001b[2J","vanished":true,`, "25", "1000")+","+one(`"id":"`+vmB+`","name":"web",`, "24", "960.5"),
		`{"images":2,"image_hours":49,"gib_hours":1960.5,"provisioned_bytes":85899345920,"read_bytes":8589934592,"changed_bytes":4294967296,"stored_bytes":2147483648,"savings":0.975}`,
		one("", "25", "1000")))
	f.kura("usage", "--from", "2026-03-31", "--to", "2026-04-02").want(t, 0, `2026-03-31 00:00 UTC to 2026-04-02 00:00 UTC, in UTC hours.

VM                           IMAGES  HOURS  GIB HOURS  DISKS     READ     CHANGED  STORED   SAVED   ID
erp\x1b[2J (gone)            1       25     1000.0     40.0 GiB  4.0 GiB  2.0 GiB  1.0 GiB  97.5 %  `+vmA+`
web                          1       24     960.5      40.0 GiB  4.0 GiB  2.0 GiB  1.0 GiB  97.5 %  `+vmB+`
total                        2       49     1960.5     80.0 GiB  8.0 GiB  4.0 GiB  2.0 GiB  97.5 %  -
of it, of VMs that are gone  1       25     1000.0     40.0 GiB  4.0 GiB  2.0 GiB  1.0 GiB  97.5 %  -
`, "")
	r := f.kura("usage", "--from", "2026-03-31", "--to", "2026-04-02", "-o", "json")
	var got api.Usage
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got.Items) != 2 || got.Total.GiBHours != 1960.5 {
		t.Errorf("as JSON: %s (%v), want what the server tells", r.out, err)
	}
}

// seed:N85 seed:N86
func TestUsageByDayTellsWhenTheDaysOfUTCBeginInTokyo(t *testing.T) {
	f := newFake(t)
	day := func(start, local, end, hours, gib string) string {
		return `{"starts_at":"` + start + `","starts_at_local":"` + local + `","ends_at":"` + end + `","images":1,"image_hours":` + hours + `,"gib_hours":` + gib + `,` + anItemSize + `}`
	}
	items := day("2026-03-31T00:00:00Z", "2026-03-31T09:00:00+09:00", "2026-04-01T00:00:00Z", "9", "360") + "," +
		day("2026-04-01T00:00:00Z", "2026-04-01T09:00:00+09:00", "2026-04-02T00:00:00Z", "15", "600")
	f.on("GET /v1/usage?group_by=day&time_zone=Asia%2FTokyo", aUsage("day", items, `{"images":1,"image_hours":24,"gib_hours":960,`+anItemSize+`}`, noUsage))
	f.kura("usage", "--by", "day", "--time-zone", "Asia/Tokyo").want(t, 0, `2026-03-31 00:00 UTC to 2026-04-02 00:00 UTC, in UTC hours.

DAY (UTC)   IMAGES  HOURS  GIB HOURS  DISKS     READ     CHANGED  STORED   SAVED   LOCAL
2026-03-31  1       9      360.0      40.0 GiB  4.0 GiB  2.0 GiB  1.0 GiB  97.5 %  Tue 2026-03-31 09:00 +09:00
2026-04-01  1       15     600.0      40.0 GiB  4.0 GiB  2.0 GiB  1.0 GiB  97.5 %  Wed 2026-04-01 09:00 +09:00
total       1       24     960.0      40.0 GiB  4.0 GiB  2.0 GiB  1.0 GiB  97.5 %  -
`, "")
}

func TestUsageOfWhatHasNoNameSaysSo(t *testing.T) {
	for by, want := range map[string]string{"schedule": "(by hand) ", "group": "(no group) ", "repository": "default ", "month": "2026-03 "} {
		f := newFake(t)
		more := map[string]string{"repository": `"id":"` + groupA + `","name":"default",`, "month": `"starts_at":"2026-03-31T00:00:00Z","ends_at":"2026-04-01T00:00:00Z",`}[by]
		sum := `"images":1,"image_hours":9,"gib_hours":360,` + anItemSize + `}`
		f.on("GET /v1/usage?group_by="+by, aUsage(by, `{`+more+sum, `{`+sum, noUsage))
		if r := f.kura("usage", "--by", by); r.status != 0 || !strings.Contains(r.out, "\n"+want) {
			t.Errorf("usage by %s: %d\n%s\nwant a line of %q", by, r.status, r.out, want)
		}
	}
	f := newFake(t)
	f.on("GET /v1/usage?group_by=vm", aUsage("vm", "", noUsage, noUsage))
	f.kura("usage").want(t, 0, "2026-03-31 00:00 UTC to 2026-04-02 00:00 UTC, in UTC hours.\n\nNo images were there.\n", "")
}

func TestATableForSpreadsheetsIsOfUsageOnly(t *testing.T) {
	f := newFake(t)
	const text = "group_by,id,name\r\nmonth,,\r\n"
	f.on("GET /v1/usage.csv?from=2026-11-01T00%3A00%3A00Z&group_by=month", ok(text))
	f.kura("usage", "--from", "2026-11-01", "--by", "month", "-o", "csv").want(t, 0, text, "")
	if r := f.kura("vm", "list", "-o", "csv"); r.status != 2 || !strings.Contains(r.errout, "kura usage") {
		t.Errorf("-o csv of VMs: %d %q, want wrong use that names kura usage", r.status, r.errout)
	}
	for name, args := range map[string][]string{"from": {"usage", "--from", "November"}, "to": {"usage", "--to", "2026-13-01"}, "by": {"usage", "--by", "moon"}} {
		if r := f.kura(args...); r.status != 2 || !strings.Contains(r.errout, "--"+name) {
			t.Errorf("%v: %d %q, want wrong use of --%s", args, r.status, r.errout, name)
		}
	}
	f.on("GET /v1/usage?from=2020-01-01T00%3A00%3A00Z&group_by=vm", problem(422, "invalid", "Invalid", "Usage is kept for 13 months."))
	if r := f.kura("usage", "--from", "2020-01-01"); r.status != 1 || !strings.Contains(r.errout, "13 months") {
		t.Errorf("a refusal: %d %q, want status 1 and the reason", r.status, r.errout)
	}
}
