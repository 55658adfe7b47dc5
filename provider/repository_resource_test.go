package provider_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
)

// TestRepositoryLivesAndIsImported makes a folder a repository, changes it in
// place, imports it by id and by name, and plans nothing after each step.
func TestRepositoryLivesAndIsImported(t *testing.T) {
	var id string
	dir := t.TempDir()
	config := func(name, body string) string {
		return fmt.Sprintf("resource \"kura_repository\" \"t\" {\n  name = %q\n  filesystem = { path = %q }\n%s\n}\n", name, filepath.Join(dir, "place"), body)
	}
	apply(t,
		resource.TestStep{
			Config: config("folder", ""), ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(
				keepID("kura_repository.t", &id),
				resource.TestCheckResourceAttr("kura_repository.t", "compression", "s2"),
				resource.TestCheckResourceAttr("kura_repository.t", "verify_days", "30"),
				resource.TestCheckResourceAttr("kura_repository.t", "default", "false"),
			),
		},
		resource.TestStep{
			Config: config("renamed", "compression = \"zstd-fastest\"\n verify_days = 7"), ConfigPlanChecks: emptyPlan,
			Check: keepID("kura_repository.t", &id),
		},
		resource.TestStep{ResourceName: "kura_repository.t", ImportState: true, ImportStateVerify: true},
		resource.TestStep{ResourceName: "kura_repository.t", ImportState: true, ImportStateId: "name/renamed", ImportStateVerify: true},
		resource.TestStep{
			Config:      fmt.Sprintf("resource \"kura_repository\" \"t\" {\n  name = \"renamed\"\n  filesystem = { path = %q }\n}\n", filepath.Join(dir, "empty")),
			ExpectError: words(`the folder is not there`),
		},
	)
}

// TestRepositoryIsAttachedAgain: what Terraform forgets stays where
// it lies, and is attached again with the password of its sheet.
func TestRepositoryIsAttachedAgain(t *testing.T) {
	place := filepath.Join(t.TempDir(), "place")
	config := func(more string) string {
		return fmt.Sprintf("resource \"kura_repository\" \"t\" {\n  name = \"passing\"\n  filesystem = { path = %q }\n%s\n}\n", place, more)
	}
	var password string
	apply(t, resource.TestStep{
		Config: config(""),
		Check: func(s *terraform.State) error {
			sheet, err := house.api.RecoverySheetWithResponse(t.Context(), idOf(s, "kura_repository.t"), api.RecoverySheet{})
			if err := api.Err(sheet, err); err != nil {
				return err
			}
			password = passwordIn(sheet.JSON200.Text)
			a, err := house.api.BackupVirtualMachineWithResponse(t.Context(), vmID(t, "vm05"), &api.BackupVirtualMachineParams{}, api.BackupOptions{RetentionDays: 1, Repository: "passing"})
			if err := api.Err(a, err); err != nil {
				return err
			}
			_, err = house.api.FollowJob(t.Context(), a.JSON202.Jobs[0].ID, nil)
			return err
		},
	}, resource.TestStep{
		Config: config(""), Destroy: true, ExpectError: words(`apply forget_images_on_destroy = true`),
	}, resource.TestStep{
		Config: config("forget_images_on_destroy = true"), ConfigPlanChecks: emptyPlan,
	})
	if password == "" {
		t.Fatal("the recovery sheet tells no password")
	}
	apply(t,
		resource.TestStep{Config: config(""), ExpectError: words(`To attach the one that lies there, give its password`)},
		resource.TestStep{
			Config: config("forget_images_on_destroy = true\n" + fmt.Sprintf("password_wo = %q\n password_wo_version = 1", password)), ConfigPlanChecks: emptyPlan,
			Check: resource.TestCheckNoResourceAttr("kura_repository.t", "password_wo"),
		},
	)
}

// TestRepositoryInABucketKeepsItsKeysOutOfTheState and sends them when their
// version changes alone.
func TestRepositoryInABucketKeepsItsKeysOutOfTheState(t *testing.T) {
	b := s3test.New(t, true)
	config := func(secret string, version int, more string) string {
		return fmt.Sprintf(`resource "kura_repository" "t" {
  name = "bucket"
  s3 = {
    endpoint = %q
    bucket = %q
    prefix = "kura/"
    ca_certificate = %q
    access_key_wo = %q
    secret_key_wo = %q
    secrets_wo_version = %d
    %s
  }
}
`, b.Settings["endpoint"], b.Name, b.Settings["ca_certificate"], s3test.User, secret, version, more)
	}
	var id string
	none := func(s *terraform.State) error {
		for name, value := range s.RootModule().Resources["kura_repository.t"].Primary.Attributes {
			if value == s3test.Pass || value == s3test.User {
				return fmt.Errorf("%s is in the state", name)
			}
		}
		return nil
	}
	apply(t,
		resource.TestStep{
			Config: config(s3test.Pass, 1, ""), ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(keepID("kura_repository.t", &id), none),
		},
		resource.TestStep{ // without a new version no other secret is sent
			Config: config("another", 1, `object_lock = { mode = "governance", days = 5 }`), ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(keepID("kura_repository.t", &id), none),
		},
		resource.TestStep{Config: config("another", 2, `object_lock = { mode = "governance", days = 5 }`), ExpectError: words(`check secret_access_key`)},
		resource.TestStep{Config: config(s3test.Pass, 3, `object_lock = { mode = "governance", days = 5 }`), ConfigPlanChecks: emptyPlan},
		resource.TestStep{
			ResourceName: "kura_repository.t", ImportState: true, ImportStateVerify: true,
			ImportStateVerifyIgnore: []string{"s3.secrets_wo_version"},
		},
		resource.TestStep{
			Config: fmt.Sprintf("resource \"kura_repository\" \"t\" {\n  name = \"bucket\"\n  filesystem = { path = %q }\n}\n", filepath.Join(t.TempDir(), "r")),
			ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{
				plancheck.ExpectResourceAction("kura_repository.t", plancheck.ResourceActionReplace),
			}},
		},
	)
}

// TestTheDefaultRepositoryChangesHands: one always is it.
func TestTheDefaultRepositoryChangesHands(t *testing.T) {
	dir := t.TempDir()
	config := func(more string) string {
		return fmt.Sprintf("resource \"kura_repository\" \"t\" {\n  name = \"heir\"\n  filesystem = { path = %q }\n%s\n}\n", filepath.Join(dir, "place"), more)
	}
	first := standard(t)
	apply(t,
		resource.TestStep{
			Config: config("default = true"), ConfigPlanChecks: emptyPlan,
			Check: resource.TestCheckResourceAttr("kura_repository.t", "default", "true"),
		},
		resource.TestStep{Config: config("default = false"), ExpectError: words(`One repository always is the default`)},
		resource.TestStep{
			PreConfig: func() {
				a, err := house.api.UpdateRepositoryWithResponse(t.Context(), first.ID, &api.UpdateRepositoryParams{}, api.RepositoryChange{Default: new(true)})
				ok(t, a, err)
			},
			Config: config(""), ConfigPlanChecks: emptyPlan,
			Check: resource.TestCheckResourceAttr("kura_repository.t", "default", "false"),
		},
	)
}

// standard is the repository that schedules take when they name none.
func standard(t *testing.T) api.Repository {
	t.Helper()
	page, err := house.api.ListRepositoriesWithResponse(t.Context(), &api.ListRepositoriesParams{})
	ok(t, page, err)
	for _, r := range page.JSON200.Items {
		if r.Default {
			return r
		}
	}
	t.Fatal("no repository is the default")
	return api.Repository{}
}

// passwordIn reads a recovery sheet.
func passwordIn(sheet string) string {
	_, rest, _ := strings.Cut(sheet, "\npassword: ")
	password, _, _ := strings.Cut(rest, "\n")
	return password
}
