package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

func convert(all *tfprotov6.GetProviderSchemaResponse, identities *tfprotov6.GetResourceIdentitySchemasResponse) (schemas, error) {
	var c converter
	p := providerSchema{
		Provider:    c.schema(all.Provider),
		Resources:   c.schemas(all.ResourceSchemas),
		DataSources: c.schemas(all.DataSourceSchemas),
		Ephemeral:   c.schemas(all.EphemeralResourceSchemas),
		Lists:       c.schemas(all.ListResourceSchemas),
		Functions:   map[string]function{},
		Identities:  map[string]identitySchema{},
	}
	for name, f := range all.Functions {
		p.Functions[name] = c.function(f)
	}
	for name, s := range identities.IdentitySchemas {
		i := identitySchema{Version: s.Version, Attributes: map[string]identityAttribute{}}
		for _, a := range s.IdentityAttributes {
			i.Attributes[a.Name] = identityAttribute{
				Type: c.typeOf(a.Type), Description: a.Description, RequiredForImport: a.RequiredForImport, OptionalForImport: a.OptionalForImport,
			}
		}
		p.Identities[name] = i
	}
	return schemas{FormatVersion: "1.0", Providers: map[string]providerSchema{shortName: p}}, c.err
}

// converter turns the protocol's schemas into those of the terraform program.
type converter struct{ err error }

func (c *converter) schemas(in map[string]*tfprotov6.Schema) map[string]*schema {
	out := map[string]*schema{}
	for name, s := range in {
		out[name] = c.schema(s)
	}
	return out
}

func (c *converter) schema(s *tfprotov6.Schema) *schema {
	if s == nil {
		return nil
	}
	return &schema{Version: s.Version, Block: c.block(s.Block)}
}

func (c *converter) block(b *tfprotov6.SchemaBlock) block {
	out := block{Attributes: c.attributes(b.Attributes), Description: b.Description, DescriptionKind: kind(b.DescriptionKind), Deprecated: b.Deprecated}
	for _, n := range b.BlockTypes {
		if out.Blocks == nil {
			out.Blocks = map[string]nestedBlock{}
		}
		out.Blocks[n.TypeName] = nestedBlock{Nesting: strings.ToLower(n.Nesting.String()), Block: c.block(n.Block), MinItems: n.MinItems, MaxItems: n.MaxItems}
	}
	return out
}

func (c *converter) attributes(in []*tfprotov6.SchemaAttribute) map[string]attribute {
	out := map[string]attribute{}
	for _, a := range in {
		to := attribute{
			Description: a.Description, DescriptionKind: kind(a.DescriptionKind), Deprecated: a.Deprecated,
			Required: a.Required, Optional: a.Optional, Computed: a.Computed, Sensitive: a.Sensitive, WriteOnly: a.WriteOnly,
		}
		if n := a.NestedType; n != nil {
			to.NestedType = &nestedType{Attributes: c.attributes(n.Attributes), Nesting: strings.ToLower(n.Nesting.String())}
		} else {
			to.Type = c.typeOf(a.Type)
		}
		out[a.Name] = to
	}
	return out
}

func (c *converter) function(f *tfprotov6.Function) function {
	out := function{Description: f.Description, Summary: f.Summary, Deprecation: f.DeprecationMessage, Return: c.typeOf(f.Return.Type)}
	for _, p := range f.Parameters {
		out.Parameters = append(out.Parameters, c.parameter(p))
	}
	if f.VariadicParameter != nil {
		p := c.parameter(f.VariadicParameter)
		out.Variadic = &p
	}
	return out
}

func (c *converter) parameter(p *tfprotov6.FunctionParameter) parameter {
	return parameter{Name: p.Name, Description: p.Description, Nullable: p.AllowNullValue, Type: c.typeOf(p.Type)}
}

func kind(k tfprotov6.StringKind) string {
	if k == tfprotov6.StringKindMarkdown {
		return "markdown"
	}
	return "plain"
}

// typeOf writes a type as Terraform does: "string", ["set","string"], ...
func (c *converter) typeOf(t tftypes.Type) json.RawMessage {
	text, err := json.Marshal(shapeOf(t))
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("write type %s: %w", t, err)
	}
	return text
}

func shapeOf(t tftypes.Type) any {
	switch t := t.(type) {
	case tftypes.List:
		return []any{"list", shapeOf(t.ElementType)}
	case tftypes.Set:
		return []any{"set", shapeOf(t.ElementType)}
	case tftypes.Map:
		return []any{"map", shapeOf(t.ElementType)}
	case tftypes.Object:
		fields := map[string]any{}
		for name, of := range t.AttributeTypes {
			fields[name] = shapeOf(of)
		}
		return []any{"object", fields}
	case tftypes.Tuple:
		var of []any
		for _, e := range t.ElementTypes {
			of = append(of, shapeOf(e))
		}
		return []any{"tuple", of}
	}
	switch {
	case t.Is(tftypes.String):
		return "string"
	case t.Is(tftypes.Number):
		return "number"
	case t.Is(tftypes.Bool):
		return "bool"
	}
	return "dynamic"
}
