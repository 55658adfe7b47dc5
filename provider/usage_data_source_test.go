package provider_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
)

// TestUsageTellsWhatImagesComeTo makes an image and finds it by VM, by day and
// in the total. Other tests make images, too, some of machines that have vanished.
func TestUsageTellsWhatImagesComeTo(t *testing.T) { // seed:N51
	image := backup(t, "vm05")
	look := func(name, body string) string { return fmt.Sprintf("data \"kura_usage\" %q {\n%s\n}\n", name, body) }
	from := image.StartedAt.UTC().Truncate(time.Hour)
	hour := fmt.Sprintf("from = %q\nto = %q", from.Format(time.RFC3339), from.Add(time.Hour).Format(time.RFC3339))
	gib := strconv.FormatFloat(float64(image.Sizes.Provisioned)/(1<<30), 'f', -1, 64)
	config := look("vms", hour) + look("days", hour+"\ngroup_by = \"day\"") + look("schedules", hour+"\ngroup_by = \"schedule\"") + look("usual", "") + `
output "mine" {
  value = one([for i in data.kura_usage.vms.items : i.images >= 1 && i.image_hours == i.images && i.gib_hours == i.images * ` + gib + ` if i.id == "` + image.VirtualMachine.ID + `"])
}
output "by_hand" {
  value = one([for i in data.kura_usage.schedules.items : i if i.id == null]).images >= 1
}
output "sum" {
  value = sum(data.kura_usage.vms.items[*].gib_hours) == data.kura_usage.vms.total.gib_hours
}
output "vanished" {
  value = sum([for i in data.kura_usage.vms.items : i.vanished ? i.images : 0]) == data.kura_usage.vms.vanished.images
}
output "saved" {
  value = data.kura_usage.vms.total.savings <= 1
}
`
	at := func(name string, pairs ...string) (checks []resource.TestCheckFunc) {
		for i := 0; i < len(pairs); i += 2 {
			checks = append(checks, resource.TestCheckResourceAttr("data.kura_usage."+name, pairs[i], pairs[i+1]))
		}
		return checks
	}
	checks := at("vms", "group_by", "vm", "starts_at", from.Format(time.RFC3339), "ends_at", from.Add(time.Hour).Format(time.RFC3339))
	checks = append(checks, at("days", "group_by", "day", "items.#", "1", "items.0.starts_at", from.Format(time.RFC3339), "items.0.ends_at", from.Add(time.Hour).Format(time.RFC3339))...)
	checks = append(checks, at("usual", "group_by", "vm", "starts_at", from.AddDate(0, 0, 1-from.Day()).Truncate(24*time.Hour).Format(time.RFC3339))...)
	checks = append(checks, resource.TestCheckNoResourceAttr("data.kura_usage.days", "items.0.id"),
		resource.TestCheckOutput("by_hand", "true"), resource.TestCheckOutput("sum", "true"), resource.TestCheckOutput("saved", "true"), resource.TestCheckOutput("vanished", "true"),
		resource.TestCheckOutput("mine", "true"))
	apply(t, resource.TestStep{Config: config, Check: resource.ComposeAggregateTestCheckFunc(checks...)})
}

// TestUsageThatCannotBeToldIsRefused shows whose fault it is.
func TestUsageThatCannotBeToldIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"no such grouping":      {`group_by = "colour"`, `value must be one of`},
		"a time that is none":   {`from = "yesterday"`, `RFC3339`},
		"before the account":    {`from = "2020-01-01T00:00:00Z"`, `Usage is kept for 13 months`},
		"an end that is before": {fmt.Sprintf("from = %q\nto = \"2020-01-01T00:00:00Z\"", time.Now().UTC().Format(time.RFC3339)), `to must be after from`},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, resource.TestStep{Config: "data \"kura_usage\" \"u\" {\n" + c.body + "\n}\n", ExpectError: words(c.want)})
		})
	}
}
