package provider_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// TestATokenLivesAsLongAsTheRun: a program of the run may use it, it is in no
// state, and it is revoked at the end.
func TestATokenLivesAsLongAsTheRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "token")
	p := newProgram(t, fmt.Sprintf(`
ephemeral "kura_access_token" "t" {
  role     = "viewer"
  name     = "for the run"
  lifetime = "10m"
}
resource "terraform_data" "t" {
  provisioner "local-exec" {
    command     = "printf %%s \"$TOKEN\" > %s && curl --fail --silent --output /dev/null -H \"Authorization: Bearer $TOKEN\" %s/v1/vcenters"
    environment = { TOKEN = ephemeral.kura_access_token.t.token }
  }
}
`, out, house.url))
	p.ok("apply", "-auto-approve", "-no-color")
	token, err := os.ReadFile(out)
	if err != nil || !strings.HasPrefix(string(token), "kura_") {
		t.Fatalf("the run got the token %q: %v", token, err)
	}
	state := p.ok("show", "-json")
	if strings.Contains(state, string(token)) {
		t.Error("the token is in the state")
	}
	c, err := api.New(api.Config{Endpoint: house.url, Token: string(token)})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := c.ListVCentersWithResponse(t.Context(), nil); err != nil || a.StatusCode() != http.StatusUnauthorized {
		t.Errorf("after the run the token is answered %d, %v, want 401", a.StatusCode(), err)
	}
	list, err := house.api.ListTokensWithResponse(t.Context(), &api.ListTokensParams{Limit: 1000})
	ok(t, list, err)
	n := 0
	for _, listed := range list.JSON200.Items {
		if strings.HasPrefix(listed.Name, "for the run-") {
			if n++; listed.RevokedAt.IsZero() || listed.Role != api.RoleViewer {
				t.Errorf("token %s of role %s was not revoked", listed.Name, listed.Role)
			}
		}
	}
	if n == 0 {
		t.Error("the server lists no token of the run")
	}
}

func TestATokenOfTooShortALifeIsRefused(t *testing.T) {
	p := newProgram(t, `
ephemeral "kura_access_token" "t" {
  role     = "viewer"
  lifetime = "5s"
}
`)
	if out, err := p.run("plan", "-no-color", "-input=false"); err == nil || !words("A token lives for a minute at least").MatchString(out) {
		t.Errorf("plan: %v\n%s", err, out)
	}
}
