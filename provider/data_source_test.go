package provider_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// TestImagesAreLookedUp finds images by filter, the newest, the nearest to a
// time on either side, and one by its id.
//
// seed:N41 seed:N49 seed:N52
func TestImagesAreLookedUp(t *testing.T) {
	first := backup(t, "vm01")
	second := backup(t, "vm01")
	between := first.PointInTime.Add(second.PointInTime.Sub(first.PointInTime) / 2).Format(time.RFC3339Nano)
	filter := fmt.Sprintf("virtual_machine_id = %q\ncreated_after = %q\n", first.VirtualMachine.ID, first.StartedAt.Add(-time.Millisecond).Format(time.RFC3339Nano))
	apply(t, resource.TestStep{
		Config: `
data "kura_backup_images" "all" {
` + filter + `
}

data "kura_backup_images" "one" {
` + filter + `
  limit = 1
}

data "kura_backup_images" "none" {
  labels = { nobody = "has this" }
}

data "kura_backup_image" "newest" {
` + filter + `
  most_recent = true
}

data "kura_backup_image" "before" {
` + filter + fmt.Sprintf("nearest_to = %q\n", between) + `
}

data "kura_backup_image" "after" {
` + filter + fmt.Sprintf("nearest_to = %q\n", between) + `
  direction  = "after"
}

data "kura_backup_image" "by_id" {
  id = "` + first.ID + `"
}
`,
		Check: resource.ComposeAggregateTestCheckFunc(
			resource.TestCheckResourceAttr("data.kura_backup_images.all", "images.#", "2"),
			resource.TestCheckResourceAttr("data.kura_backup_images.all", "images.0.id", second.ID),
			resource.TestCheckResourceAttr("data.kura_backup_images.all", "images.1.id", first.ID),
			resource.TestCheckResourceAttr("data.kura_backup_images.one", "images.#", "1"),
			resource.TestCheckResourceAttr("data.kura_backup_images.one", "images.0.id", second.ID),
			resource.TestCheckResourceAttr("data.kura_backup_images.none", "images.#", "0"),
			resource.TestCheckResourceAttr("data.kura_backup_image.newest", "id", second.ID),
			resource.TestCheckResourceAttr("data.kura_backup_image.before", "id", first.ID),
			resource.TestCheckResourceAttr("data.kura_backup_image.after", "id", second.ID),
			resource.TestCheckResourceAttr("data.kura_backup_image.by_id", "image.virtual_machine.name", "vm01"),
			resource.TestCheckResourceAttr("data.kura_backup_image.by_id", "image.status", "good"),
			resource.TestCheckResourceAttr("data.kura_backup_image.by_id", "image.started_at", first.StartedAt.Format(time.RFC3339)),
			resource.TestCheckResourceAttr("data.kura_backup_image.by_id", "image.ended_at", first.EndedAt.Format(time.RFC3339)),
			resource.TestCheckResourceAttr("data.kura_backup_image.by_id", "image.sizes.provisioned", fmt.Sprint(first.Sizes.Provisioned)),
			resource.TestCheckResourceAttr("data.kura_backup_image.by_id", "image.sizes.changed", fmt.Sprint(first.Sizes.Changed)),
			resource.TestCheckResourceAttr("data.kura_backup_image.by_id", "image.disks.0.changed", fmt.Sprint(first.Disks[0].Changed)),
			resource.TestCheckResourceAttr("data.kura_backup_image.by_id", "image.held", "false"),
			resource.TestCheckNoResourceAttr("data.kura_backup_image.by_id", "image.held_until"),
			resource.TestCheckNoResourceAttr("data.kura_backup_image.by_id", "image.storage_locked_until"),
			resource.TestCheckResourceAttr("data.kura_backup_image.by_id", "image.expires_at", first.StartedAt.Add(31*24*time.Hour).UTC().Format(time.RFC3339)),
		),
	})
}

// TestALookUpOfOneImageSaysWhatToDo covers the look-ups that find none or many.
func TestALookUpOfOneImageSaysWhatToDo(t *testing.T) {
	backup(t, "vm01")
	image := backup(t, "vm01")
	for name, c := range map[string]struct{ body, want string }{
		"none": {`virtual_machine_name = "nobody"`, `Looked for images with virtual_machine_name = "nobody", and found none.`},
		"none, and what to do": {
			`virtual_machine_name = "nobody"`, `Widen the filters, or make a backup: kura vm backup NAME --wait`,
		},
		"none so early":        {fmt.Sprintf("virtual_machine_id = %q\nnearest_to = \"2020-01-01T00:00:00Z\"", image.VirtualMachine.ID), `No image was found`},
		"many":                 {`repository = "default"`, `Looked for images with repository = "default", and found more than one.`},
		"an id that is not":    {`id = "01JDZK3Q8X4T9V2M6B7N5C1R0E"`, `It may have expired. List what is there: kura image list`},
		"an id and a filter":   {"id = \"x\"\nrepository = \"default\"", `[id,repository]`},
		"a direction alone":    {"direction = \"after\"", `must be specified when "direction" is specified`},
		"a time that is none":  {"nearest_to = \"yesterday\"", `RFC3339`},
		"two ways to pick one": {"most_recent = true\nnearest_to = \"2027-01-01T00:00:00Z\"", `cannot be specified when`},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, resource.TestStep{Config: "data \"kura_backup_image\" \"t\" {\n" + c.body + "\n}\n", ExpectError: words(c.want)})
		})
	}
}

// TestVirtualMachinesAreLookedUp finds machines by each filter.
//
// seed:W2 seed:W15 seed:W22 seed:W27
func TestVirtualMachinesAreLookedUp(t *testing.T) {
	vm, err := house.api.GetVirtualMachineWithResponse(t.Context(), vmID(t, "vm03"))
	ok(t, vm, err)
	look := func(name, body string) string {
		return fmt.Sprintf("data \"kura_virtual_machines\" %q {\n  vcenter_id = %q\n%s\n}\n", name, house.vcenter.ID, body)
	}
	const at = "data.kura_virtual_machines."
	apply(t, resource.TestStep{
		Config: look("name", `name = "vm03"`) + look("regex", `name_regex = "^vm0[12]$"`) + look("nobody", `name_regex = "^$"`) +
			look("tag", `tags = [{ category = "backup", name = "gold" }]
				name_regex = "^vm0[0-9]$"`) +
			look("folder", fmt.Sprintf("folder = %q\nname = \"vm03\"", vm.JSON200.Folder)) + look("elsewhere", `folder = "/nowhere"`),
		Check: resource.ComposeAggregateTestCheckFunc(
			resource.TestCheckResourceAttr(at+"name", "ids.#", "1"),
			resource.TestCheckResourceAttr(at+"name", "ids.0", vm.JSON200.ID),
			resource.TestCheckResourceAttr(at+"name", "virtual_machines.0.moid", vm.JSON200.MOID),
			resource.TestCheckResourceAttrSet(at+"name", "virtual_machines.0.inventory_synced_at"),
			resource.TestCheckResourceAttr(at+"name", "virtual_machines.0.disks.0.capacity", fmt.Sprint(4<<20)),
			resource.TestCheckResourceAttr(at+"regex", "ids.#", "2"),
			resource.TestCheckResourceAttr(at+"nobody", "ids.#", "0"),
			resource.TestCheckResourceAttr(at+"tag", "ids.#", "2"),
			resource.TestCheckResourceAttr(at+"folder", "ids.#", "1"),
			resource.TestCheckResourceAttr(at+"elsewhere", "ids.#", "0"),
		),
	})
}

// TestServerAndRepositoryAreLookedUp reads what the server is.
//
// seed:N31 seed:N32 seed:N33 seed:N34
func TestServerAndRepositoryAreLookedUp(t *testing.T) {
	apply(t,
		resource.TestStep{
			Config: "data \"kura_server\" \"t\" {}\ndata \"kura_repository\" \"t\" {\n  name = \"default\"\n}\ndata \"kura_repository\" \"id\" {\n  id = data.kura_repository.t.id\n}\n",
			Check: resource.ComposeAggregateTestCheckFunc(
				resource.TestCheckResourceAttr("data.kura_server.t", "version", "1.2.3"),
				resource.TestCheckResourceAttr("data.kura_server.t", "api_version", api.Version),
				resource.TestCheckResourceAttr("data.kura_server.t", "retention_choices.daily.#", "8"),
				resource.TestCheckResourceAttr("data.kura_server.t", "retention_choices.one_time.2", "366"),
				resource.TestCheckResourceAttr("data.kura_repository.t", "kind", "filesystem"),
				resource.TestCheckResourceAttr("data.kura_repository.id", "name", "default"),
				resource.TestCheckResourceAttr("data.kura_repository.id", "default", "true"),
			),
		},
		resource.TestStep{
			Config:      "data \"kura_repository\" \"t\" {\n  name = \"attic\"\n}\n",
			ExpectError: words(`The server has no repository named "attic".`),
		},
	)
}

// TestProviderSettingsAreChecked shows what a wrong provider block says.
func TestProviderSettingsAreChecked(t *testing.T) {
	const read = "data \"kura_server\" \"t\" {}\n"
	for name, c := range map[string]struct {
		body, want string
		env        map[string]string
	}{
		"no endpoint":              {``, `Set endpoint = "https://kura.example.com:8480" in the provider block, or the variable KURA_ENDPOINT.`, map[string]string{"KURA_ENDPOINT": ""}},
		"no token":                 {``, `Set the variable KURA_TOKEN, or token_file in the provider block.`, map[string]string{"KURA_TOKEN": ""}},
		"a wrong token":            {`token = "kura_wrong"`, `Code unauthenticated`, nil},
		"an endpoint of no scheme": {`endpoint = "kura.example.com"`, `Write the endpoint as https://host:port`, nil},
		"a file that is not":       {`token_file = "missing.token"`, `Token file cannot be read`, nil},
		"two tokens":               {"token = \"a\"\ntoken_file = \"b\"", `cannot be specified when`, nil},
		"a timeout of no unit":     {`request_timeout = "30"`, `A duration is written as 30s, 2m or 1h30m, got "30".`, nil},
		"a variable of no number":  {``, `KURA_MAX_RETRIES is a number from 0 on, got "many".`, map[string]string{"KURA_MAX_RETRIES": "many"}},
		"a variable of no switch":  {``, `KURA_INSECURE is true or false, got "perhaps".`, map[string]string{"KURA_INSECURE": "perhaps"}},
		"a certificate of no PEM":  {`ca_certificate = "missing.pem"`, `Certificate cannot be read`, nil},
		"nobody listening":         {"endpoint = \"http://127.0.0.1:1\"\nmax_retries = 0", `Kura server not reachable`, nil},
		"some other server":        {fmt.Sprintf("endpoint = %q\ninsecure = true\nmax_retries = 0", strings.TrimSuffix(house.lab.Endpoint(), "/sdk")), `no kura server`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			apply(t, resource.TestStep{Config: "provider \"kura\" {\n" + c.body + "\n}\n" + read, ExpectError: words(c.want)})
		})
	}
}

// TestAServerThatIsAwayStopsRestoresAndOnlyWarnsSchedules plans both without a
// server.
func TestAServerThatIsAwayStopsRestoresAndOnlyWarnsSchedules(t *testing.T) {
	const away = "provider \"kura\" {\n  endpoint    = \"http://127.0.0.1:1\"\n  max_retries = 0\n}\n"
	plan := planWarnings(t, away+schedule("t", "group_id = \"g\"\ndaily = {}\nretention_days = 1"))
	if !words(`Schedule is not checked`).MatchString(plan) || !words(`The server checks it at apply.`).MatchString(plan) {
		t.Errorf("the plan of a schedule without a server says:\n%s", plan)
	}
	apply(t, resource.TestStep{Config: away + restore("i", `new_vm = { name = "x" }`), PlanOnly: true, ExpectError: words(`Kura server not reachable`)})
}
