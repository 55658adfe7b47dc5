package provider_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// TestHoldKeepsAnImageAndIsImported: a hold is changed in place, so that the
// image is never without it, and its end gives the image back.
func TestHoldKeepsAnImageAndIsImported(t *testing.T) {
	image := backup(t, "vm04")
	config := func(more string) string {
		return fmt.Sprintf("resource \"kura_image_hold\" \"t\" {\n  image_id = %q\n%s\n}\n", image.ID, more)
	}
	held := func(want bool) resource.TestCheckFunc {
		return func(*terraform.State) error {
			i, err := house.api.GetBackupImageWithResponse(t.Context(), image.ID)
			if err := api.Err(i, err); err != nil {
				return err
			}
			if i.JSON200.Held != want {
				return fmt.Errorf("held = %t, want %t", i.JSON200.Held, want)
			}
			return nil
		}
	}
	var id string
	const address = "kura_image_hold.t"
	apply(t,
		resource.TestStep{
			Config: config(`until = "2031-01-01T09:00:00+09:00"`), ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(keepID(address, &id), held(true), resource.TestCheckResourceAttr(address, "created_by", "operator")),
		},
		resource.TestStep{
			Config: config(`reason = "audit"`), ConfigPlanChecks: emptyPlan,
			Check: resource.ComposeAggregateTestCheckFunc(keepID(address, &id), held(true), resource.TestCheckNoResourceAttr(address, "until")),
		},
		resource.TestStep{ResourceName: address, ImportState: true, ImportStateVerify: true},
		resource.TestStep{ResourceName: address, ImportState: true, ImportStateId: "nothing", ExpectError: words(`A hold is imported by IMAGE_ID/HOLD_ID`)},
		resource.TestStep{Config: config(`until = "2001-01-01T00:00:00Z"`), ExpectError: words(`A hold must end in the future`)},
		resource.TestStep{
			PreConfig: func() {
				_, hold, _ := strings.Cut(id, "/")
				a, err := house.api.ReleaseImageHoldWithResponse(t.Context(), image.ID, hold)
				ok(t, a, err)
				id = ""
			},
			Config: config(`reason = "audit"`), ConfigPlanChecks: emptyPlan, Check: held(true), // made anew
		},
		resource.TestStep{Config: `locals {}`, Check: held(false)},
	)
}
