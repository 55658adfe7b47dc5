package provider_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// schemas are those that terraform gets.
func schemas(t *testing.T) (*tfprotov6.GetProviderSchemaResponse, *tfprotov6.GetResourceIdentitySchemasResponse) {
	t.Helper()
	server, err := factories["kura"]()
	if err != nil {
		t.Fatal(err)
	}
	all, err := server.GetProviderSchema(t.Context(), &tfprotov6.GetProviderSchemaRequest{})
	if err != nil || len(all.Diagnostics) > 0 {
		t.Fatalf("schemas: %v %v", err, all.Diagnostics)
	}
	identities, err := server.GetResourceIdentitySchemas(t.Context(), &tfprotov6.GetResourceIdentitySchemasRequest{})
	if err != nil || len(identities.Diagnostics) > 0 {
		t.Fatalf("identities: %v %v", err, identities.Diagnostics)
	}
	return all, identities
}

// walk calls each with every attribute below.
func walk(where string, attributes []*tfprotov6.SchemaAttribute, each func(where string, a *tfprotov6.SchemaAttribute)) {
	for _, a := range attributes {
		here := where + "." + a.Name
		each(here, a)
		if a.NestedType != nil {
			walk(here, a.NestedType.Attributes, each)
		}
	}
}

func TestEveryAttributeSaysWhatItIs(t *testing.T) {
	all, _ := schemas(t)
	negative := regexp.MustCompile(`^(no|not|non|never|disable|disabled|skip|without|ignore|un|dont)_|^disabled$|_disabled$|_skipped$`)
	secret := regexp.MustCompile(`password|secret|_key$|^token$`)
	check := func(where string, s *tfprotov6.Schema) {
		if len(s.Block.BlockTypes) > 0 {
			t.Errorf("%s has blocks, want nested attributes", where)
		}
		walk(where, s.Block.Attributes, func(where string, a *tfprotov6.SchemaAttribute) {
			if a.Description == "" {
				t.Errorf("%s has no description", where)
			}
			if a.Type != nil && a.Type.Is(tftypes.Bool) && negative.MatchString(a.Name) {
				t.Errorf("%s is a negative boolean", where)
			}
			if a.Type != nil && a.Type.Is(tftypes.String) && secret.MatchString(a.Name) && !strings.HasPrefix(where, "provider.") && (!a.WriteOnly || !a.Sensitive) {
				t.Errorf("%s is a secret that gets into plan and state", where)
			}
			if a.WriteOnly && !strings.HasSuffix(a.Name, "_wo") {
				t.Errorf("%s is write-only, want a name that ends in _wo", where)
			}
		})
	}
	check("provider", all.Provider)
	for name, s := range all.ResourceSchemas {
		check(name, s)
		if s.Block.Description == "" {
			t.Errorf("%s has no description", name)
		}
		if !slices.ContainsFunc(s.Block.Attributes, func(a *tfprotov6.SchemaAttribute) bool { return a.Name == "timeouts" }) {
			t.Errorf("%s has no timeouts", name)
		}
	}
	for name, s := range all.DataSourceSchemas {
		check("data."+name, s)
		if s.Block.Description == "" {
			t.Errorf("data.%s has no description", name)
		}
	}
}

func TestEveryEphemeralResourceSaysWhatItIs(t *testing.T) {
	all, _ := schemas(t)
	if len(all.EphemeralResourceSchemas) == 0 {
		t.Fatal("the provider has no ephemeral resources")
	}
	for name, s := range all.EphemeralResourceSchemas {
		if s.Block.Description == "" {
			t.Errorf("ephemeral.%s has no description", name)
		}
		walk("ephemeral."+name, s.Block.Attributes, func(where string, a *tfprotov6.SchemaAttribute) {
			if a.Description == "" {
				t.Errorf("%s has no description", where)
			}
		})
		if _, err := os.Stat(filepath.Join("..", "examples", "ephemeral-resources", name, "ephemeral-resource.tf")); err != nil {
			t.Errorf("ephemeral.%s has no example", name)
		}
	}
}

func TestEveryWriteOnlySecretHasAVersionBesideIt(t *testing.T) {
	all, _ := schemas(t)
	for name, s := range all.ResourceSchemas {
		for _, a := range s.Block.Attributes {
			if a.WriteOnly && !slices.ContainsFunc(s.Block.Attributes, func(b *tfprotov6.SchemaAttribute) bool { return b.Name == a.Name+"_version" }) {
				t.Errorf("%s.%s has no %s_version, so a changed secret is never sent", name, a.Name, a.Name)
			}
		}
	}
}

func TestEveryResourceHasIdentityImportAndExamples(t *testing.T) {
	all, identities := schemas(t)
	server, err := factories["kura"]()
	if err != nil {
		t.Fatal(err)
	}
	for name := range all.ResourceSchemas {
		id := identities.IdentitySchemas[name]
		if id == nil || len(id.IdentityAttributes) == 0 {
			t.Errorf("%s has no identity", name)
			continue
		}
		for _, a := range id.IdentityAttributes {
			if a.Description == "" {
				t.Errorf("identity %s.%s has no description", name, a.Name)
			}
		}
		// By id, and by identity, which the terraform program of these tests cannot do yet.
		for how, req := range map[string]*tfprotov6.ImportResourceStateRequest{
			"id":       {TypeName: name, ID: "some-id"},
			"identity": {TypeName: name, Identity: identityData(t, id, "some-id")},
		} {
			resp, err := server.ImportResourceState(t.Context(), req)
			if err != nil || len(resp.Diagnostics) > 0 || len(resp.ImportedResources) != 1 {
				t.Errorf("%s is not imported by %s: %v %+v", name, how, err, resp)
				continue
			}
			state, err := resp.ImportedResources[0].State.Unmarshal(all.ResourceSchemas[name].ValueType())
			if err != nil {
				t.Fatal(err)
			}
			var attributes map[string]tftypes.Value
			var got string
			if err := state.As(&attributes); err != nil {
				t.Fatal(err)
			}
			if err := attributes["id"].As(&got); err != nil || got != "some-id" {
				t.Errorf("%s imported by %s has id %q, %v", name, how, got, err)
			}
		}
		for _, file := range []string{"resource.tf", "import.sh", "import-by-string-id.tf", "import-by-identity.tf"} {
			if _, err := os.Stat(filepath.Join("..", "examples", "resources", name, file)); err != nil {
				t.Errorf("%s has no example %s", name, file)
			}
		}
	}
	for name := range all.DataSourceSchemas {
		if _, err := os.Stat(filepath.Join("..", "examples", "data-sources", name, "data-source.tf")); err != nil {
			t.Errorf("data.%s has no example", name)
		}
	}
}

func identityData(t *testing.T, s *tfprotov6.ResourceIdentitySchema, id string) *tfprotov6.ResourceIdentityData {
	t.Helper()
	v, err := tfprotov6.NewDynamicValue(s.ValueType(), tftypes.NewValue(s.ValueType(), map[string]tftypes.Value{"id": tftypes.NewValue(tftypes.String, id)}))
	if err != nil {
		t.Fatal(err)
	}
	return &tfprotov6.ResourceIdentityData{IdentityData: &v}
}

func TestEveryFunctionSaysWhatItDoes(t *testing.T) {
	all, _ := schemas(t)
	if len(all.Functions) == 0 {
		t.Fatal("the provider has no functions")
	}
	for name, f := range all.Functions {
		if f.Summary == "" || f.Description == "" {
			t.Errorf("function %s has no summary or no description", name)
		}
		for _, p := range f.Parameters {
			if p.Name == "" || p.Description == "" {
				t.Errorf("parameter %q of function %s has no name or no description", p.Name, name)
			}
		}
		if _, err := os.Stat(filepath.Join("..", "examples", "functions", name, "function.tf")); err != nil {
			t.Errorf("function %s has no example", name)
		}
	}
}
