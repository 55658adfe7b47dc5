package provider_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// plugin is a provider as terraform talks to it, without terraform: for what
// the program of these tests does not do, or not on demand.
type plugin struct {
	*testing.T
	server tfprotov6.ProviderServer
	all    *tfprotov6.GetProviderSchemaResponse
}

func newPlugin(t *testing.T, endpoint any) *plugin {
	t.Helper()
	server, err := factories["kura"]()
	if err != nil {
		t.Fatal(err)
	}
	p := &plugin{T: t, server: server}
	p.all, _ = schemas(t)
	if resp := p.configure(endpoint); len(resp.Diagnostics) > 0 {
		t.Fatalf("configure: %+v", resp.Diagnostics[0])
	}
	return p
}

func (p *plugin) configure(endpoint any) *tfprotov6.ConfigureProviderResponse {
	p.Helper()
	config := p.value(p.all.Provider, map[string]any{"endpoint": endpoint})
	resp, err := p.server.ConfigureProvider(p.Context(), &tfprotov6.ConfigureProviderRequest{TerraformVersion: "9.9.9", Config: config})
	if err != nil {
		p.Fatal(err)
	}
	return resp
}

// value makes an object of the schema; what is not named is null.
func (p *plugin) value(s *tfprotov6.Schema, set map[string]any) *tfprotov6.DynamicValue {
	p.Helper()
	object, ok := s.ValueType().(tftypes.Object)
	if !ok {
		p.Fatalf("schema of type %s", s.ValueType())
	}
	values := map[string]tftypes.Value{}
	for name, of := range object.AttributeTypes {
		values[name] = tftypes.NewValue(of, set[name])
	}
	v, err := tfprotov6.NewDynamicValue(object, tftypes.NewValue(object, values))
	if err != nil {
		p.Fatal(err)
	}
	return &v
}

func (p *plugin) read(name string, set map[string]any) (*tfprotov6.ReadResourceResponse, tftypes.Value) {
	p.Helper()
	s := p.all.ResourceSchemas[name]
	resp, err := p.server.ReadResource(p.Context(), &tfprotov6.ReadResourceRequest{TypeName: name, CurrentState: p.value(s, set)})
	if err != nil || len(resp.Diagnostics) > 0 {
		p.Fatalf("read %s: %v %+v", name, err, resp.Diagnostics)
	}
	v, err := resp.NewState.Unmarshal(s.ValueType())
	if err != nil {
		p.Fatal(err)
	}
	return resp, v
}

// TestWhatIsGoneIsReadWithItsIdentity reads objects that do not exist, as a
// terraform that sends no identity does. Only a restore keeps its state.
func TestWhatIsGoneIsReadWithItsIdentity(t *testing.T) {
	p := newPlugin(t, nil)
	for name := range p.all.ResourceSchemas {
		id := "01JDZK3Q8X4T9V2M6B7N5C1R0A"
		if name == "kura_image_hold" {
			id = "01JDZK3Q8X4T9V2M6B7N5C1R0E/" + id
		}
		resp, v := p.read(name, map[string]any{"id": id, "name": "x", "image_id": "i"}) // those it has
		if keep := name == "kura_restore"; v.IsNull() == keep {
			t.Errorf("%s that is gone has state %s, want it kept: %t", name, v, keep)
		}
		if resp.NewIdentity == nil || resp.NewIdentity.IdentityData == nil {
			t.Errorf("%s that is gone has no identity", name)
		}
	}
}

// TestAnEndpointThatIsNotKnownYetAsksNobody reads and plans with a provider
// whose endpoint another resource will give.
func TestAnEndpointThatIsNotKnownYetAsksNobody(t *testing.T) {
	p := newPlugin(t, tftypes.UnknownValue)
	for name, s := range p.all.ResourceSchemas {
		known := map[string]any{"id": "01JDZK3Q8X4T9V2M6B7N5C1R0A", "name": "x"}
		if _, v := p.read(name, known); v.IsNull() {
			t.Errorf("%s left the state though nobody was asked", name)
		}
		state := p.value(s, known)
		resp, err := p.server.PlanResourceChange(t.Context(), &tfprotov6.PlanResourceChangeRequest{TypeName: name, PriorState: state, ProposedNewState: state, Config: state})
		if err != nil || len(resp.Diagnostics) > 0 {
			t.Errorf("plan of %s: %v %+v", name, err, resp.Diagnostics)
		}
	}
	resp, err := p.server.ReadDataSource(t.Context(), &tfprotov6.ReadDataSourceRequest{TypeName: "kura_server", Config: p.value(p.all.DataSourceSchemas["kura_server"], nil)})
	if err != nil || len(resp.Diagnostics) != 1 || resp.Diagnostics[0].Summary != "Provider is not configured yet" {
		t.Errorf("a look-up says %v %+v, want that the provider is not configured", err, resp.Diagnostics)
	}
	imported, err := p.server.ImportResourceState(t.Context(), &tfprotov6.ImportResourceStateRequest{TypeName: "kura_backup_group", ID: "name/gold"})
	if err != nil || len(imported.Diagnostics) != 1 || imported.Diagnostics[0].Summary != "Provider is not configured yet" {
		t.Errorf("an import by name says %v %+v, want that the provider is not configured", err, imported.Diagnostics)
	}
}

// TestTheServerLearnsWhoAsksAndAnotherAPIVersionIsRefused looks at the first
// request of a provider.
//
// seed:W25
func TestTheServerLearnsWhoAsksAndAnotherAPIVersionIsRefused(t *testing.T) {
	var agent, authorization string
	version := api.Version
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent, authorization = r.Header.Get("User-Agent"), r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(api.Server{Version: "7.0.0", APIVersion: version})
	}))
	defer fake.Close()
	p := newPlugin(t, fake.URL)
	if agent != "terraform-provider-kura/test terraform/9.9.9" || authorization != "Bearer "+house.token {
		t.Errorf("the server is asked by %q with %q", agent, authorization)
	}
	version = "2.1"
	resp := p.configure(fake.URL)
	if len(resp.Diagnostics) != 1 || !strings.Contains(resp.Diagnostics[0].Detail, "is Kura 7.0.0 with API version 2.1.\nThis provider needs API version 1.x.") {
		t.Errorf("another API version gives %+v", resp.Diagnostics)
	}
}
