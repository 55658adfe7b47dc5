package provider_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

var site sync.Mutex // held while the second site is looked for or made

// secondSite is the name of a second repository of the shared server.
func secondSite(t *testing.T) string {
	t.Helper()
	site.Lock()
	defer site.Unlock()
	const name = "second site"
	a, err := house.api.ListRepositoriesWithResponse(t.Context(), &api.ListRepositoriesParams{Name: name})
	ok(t, a, err)
	if len(a.JSON200.Items) == 0 {
		path := filepath.Join(os.Getenv("KURA_TEST_DIR"), "second-site")
		c, err := house.api.CreateRepositoryWithResponse(t.Context(), &api.CreateRepositoryParams{}, api.Repository{Name: name, Kind: "filesystem", Settings: map[string]string{"path": path}})
		ok(t, c, err)
	}
	return name
}

// TestScheduleHasItsImagesCopied runs a schedule that Terraform made, and finds
// the copy where it says.
//
// seed:A27
func TestScheduleHasItsImagesCopied(t *testing.T) {
	const at = "kura_backup_schedule.t"
	second := secondSite(t)
	body := func(copies string) string {
		return schedule("t", fmt.Sprintf("virtual_machine_id = %q\ndaily = {}\nretention_days = 1\n%s", vmID(t, "vm02"), copies))
	}
	apply(t,
		resource.TestStep{Config: body(""), ConfigPlanChecks: emptyPlan, Check: resource.TestCheckNoResourceAttr(at, "copy_to.#")},
		resource.TestStep{
			Config: body(fmt.Sprintf("copy_to = [{ repository = %q, retention_days = 8 }]", second)), ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(
				resource.TestCheckTypeSetElemNestedAttrs(at, "copy_to.*", map[string]string{"repository": second, "retention_days": "8"}),
				resource.TestCheckResourceAttrWith(at, "id", func(id string) error { return copied(t, id, second) }),
			),
		},
		resource.TestStep{ResourceName: at, ImportState: true, ImportStateVerify: true},
		resource.TestStep{Config: body(""), ConfigPlanChecks: emptyPlan, Check: resource.TestCheckNoResourceAttr(at, "copy_to.#")},
	)
}

// copied runs the schedule and fails unless its image gets a copy.
func copied(t *testing.T, scheduleID, repository string) error {
	a, err := house.api.RunBackupScheduleWithResponse(t.Context(), scheduleID, &api.RunBackupScheduleParams{})
	ok(t, a, err)
	job, err := house.api.FollowJob(t.Context(), a.JSON202.Jobs[0].ID, nil)
	if err != nil {
		return err
	}
	if job.State != api.JobStateSucceeded {
		return fmt.Errorf("backup ended %s: %+v", job.State, job.Error)
	}
	copies, err := house.api.ListImageCopiesWithResponse(t.Context(), job.ImageID)
	ok(t, copies, err)
	if n := len(copies.JSON200.Items); n != 1 || copies.JSON200.Items[0].Repository != repository {
		return fmt.Errorf("%d copies %+v, want one in %s", n, copies.JSON200.Items, repository)
	}
	done, err := house.api.FollowJob(t.Context(), copies.JSON200.Items[0].JobID, nil)
	if err == nil && done.State != api.JobStateSucceeded {
		err = fmt.Errorf("copy ended %s: %+v", done.State, done.Error)
	}
	return err
}

// TestACopyThatCannotBeIsRefusedAtPlan shows what no apply is needed for.
func TestACopyThatCannotBeIsRefusedAtPlan(t *testing.T) {
	second := secondSite(t)
	a, err := house.api.ListRepositoriesWithResponse(t.Context(), &api.ListRepositoriesParams{Name: second})
	ok(t, a, err)
	for name, c := range map[string]struct{ copies, want string }{
		"its own":           {`[{ repository = "default", retention_days = 1 }]`, `where the schedule's images are made`},
		"its own, named":    {"[{ repository = \"default\", retention_days = 1 }]\nrepository = \"default\"", `The images are made in the repository "default".`},
		"one twice":         {fmt.Sprintf("[{ repository = %[1]q, retention_days = 1 }, { repository = %[1]q, retention_days = 2 }]", second), `copy_to names the repository "second site" twice.`},
		"one that is not":   {`[{ repository = "attic", retention_days = 1 }]`, `There is no repository named "attic"`},
		"an id":             {fmt.Sprintf("[{ repository = %q, retention_days = 1 }]", a.JSON200.Items[0].ID), `Set repository = "second site".`},
		"for too many days": {fmt.Sprintf("[{ repository = %q, retention_days = 31 }]", second), `keeps its images for`},
		"none":              {`[]`, `at least 1 elements`},
	} {
		t.Run(name, func(t *testing.T) {
			apply(t, resource.TestStep{
				Config:      schedule("t", fmt.Sprintf("virtual_machine_id = %q\ndaily = {}\nretention_days = 1\ncopy_to = %s\n", vmID(t, "vm01"), c.copies)),
				PlanOnly:    true,
				ExpectError: words(c.want),
			})
		})
	}
}
