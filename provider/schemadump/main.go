// Schemadump prints the provider's schemas as "terraform providers schema -json"
// does, from this process and without a terraform program, whose version would
// decide what is in it. The documentation is made of it. It reads no
// configuration and asks no server.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"

	"github.com/kura-backup/terraform-provider-kura/provider"
)

func main() {
	if err := dump(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The generator of the documentation looks for the provider by its short name.
const shortName = "kura"

type schemas struct {
	FormatVersion string                    `json:"format_version"`
	Providers     map[string]providerSchema `json:"provider_schemas"`
}

type providerSchema struct {
	Provider    *schema                   `json:"provider,omitempty"`
	Resources   map[string]*schema        `json:"resource_schemas,omitempty"`
	DataSources map[string]*schema        `json:"data_source_schemas,omitempty"`
	Ephemeral   map[string]*schema        `json:"ephemeral_resource_schemas,omitempty"`
	Lists       map[string]*schema        `json:"list_resource_schemas,omitempty"`
	Functions   map[string]function       `json:"functions,omitempty"`
	Identities  map[string]identitySchema `json:"resource_identity_schemas,omitempty"`
}

type function struct {
	Description string          `json:"description,omitempty"`
	Summary     string          `json:"summary,omitempty"`
	Deprecation string          `json:"deprecation_message,omitempty"`
	Return      json.RawMessage `json:"return_type"`
	Parameters  []parameter     `json:"parameters,omitempty"`
	Variadic    *parameter      `json:"variadic_parameter,omitempty"`
}

type parameter struct {
	Name        string          `json:"name,omitempty"`
	Description string          `json:"description,omitempty"`
	Nullable    bool            `json:"is_nullable,omitempty"`
	Type        json.RawMessage `json:"type"`
}

type schema struct {
	Version int64 `json:"version"`
	Block   block `json:"block"`
}

type block struct {
	Attributes      map[string]attribute   `json:"attributes,omitempty"`
	Blocks          map[string]nestedBlock `json:"block_types,omitempty"`
	Description     string                 `json:"description,omitempty"`
	DescriptionKind string                 `json:"description_kind,omitempty"`
	Deprecated      bool                   `json:"deprecated,omitempty"`
}

type nestedBlock struct {
	Nesting  string `json:"nesting_mode"`
	Block    block  `json:"block"`
	MinItems int64  `json:"min_items,omitempty"`
	MaxItems int64  `json:"max_items,omitempty"`
}

type attribute struct {
	Type            json.RawMessage `json:"type,omitempty"`
	NestedType      *nestedType     `json:"nested_type,omitempty"`
	Description     string          `json:"description,omitempty"`
	DescriptionKind string          `json:"description_kind,omitempty"`
	Deprecated      bool            `json:"deprecated,omitempty"`
	Required        bool            `json:"required,omitempty"`
	Optional        bool            `json:"optional,omitempty"`
	Computed        bool            `json:"computed,omitempty"`
	Sensitive       bool            `json:"sensitive,omitempty"`
	WriteOnly       bool            `json:"write_only,omitempty"`
}

type nestedType struct {
	Attributes map[string]attribute `json:"attributes"`
	Nesting    string               `json:"nesting_mode"`
}

type identitySchema struct {
	Version    int64                        `json:"version"`
	Attributes map[string]identityAttribute `json:"attributes"`
}

type identityAttribute struct {
	Type              json.RawMessage `json:"type"`
	Description       string          `json:"description,omitempty"`
	RequiredForImport bool            `json:"required_for_import,omitempty"`
	OptionalForImport bool            `json:"optional_for_import,omitempty"`
}

// dump writes the schemas of the provider in this process to w.
func dump(ctx context.Context, w io.Writer) error {
	server, err := providerserver.NewProtocol6WithError(provider.New("dump")())()
	if err != nil {
		return fmt.Errorf("start the provider: %w", err)
	}
	all, err := server.GetProviderSchema(ctx, &tfprotov6.GetProviderSchemaRequest{})
	if err != nil {
		return fmt.Errorf("get the schemas: %w", err)
	}
	identities, err := server.GetResourceIdentitySchemas(ctx, &tfprotov6.GetResourceIdentitySchemasRequest{})
	if err != nil {
		return fmt.Errorf("get the identity schemas: %w", err)
	}
	if err := errors.Join(faults(all.Diagnostics), faults(identities.Diagnostics)); err != nil {
		return err
	}
	out, err := convert(all, identities)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

func faults(diags []*tfprotov6.Diagnostic) error {
	var all []error
	for _, d := range diags {
		all = append(all, fmt.Errorf("%s: %s", d.Summary, d.Detail))
	}
	return errors.Join(all...)
}
