package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/identityschema"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// identitySchema is the same for every resource: the server's id.
func identitySchema(noun string) identityschema.Schema {
	return identityschema.Schema{Attributes: map[string]identityschema.Attribute{
		"id": identityschema.StringAttribute{RequiredForImport: true, Description: "Id of the " + noun + "."},
	}}
}

// identify tells Terraform the object's identity. It comes before anything that
// may end the call: Terraform refuses answers without it.
func identify(ctx context.Context, to *tfsdk.ResourceIdentity, id types.String, diags *diag.Diagnostics) {
	if to != nil {
		diags.Append(to.SetAttribute(ctx, path.Root("id"), id)...)
	}
}

// byName begins an import id that is a name: name/gold.
const byName = "name/"

// importObject imports by id, by name/<name> where find is given, or by
// identity. find returns the ids of the objects of that name.
func importObject(ctx context.Context, c resourceConnection, noun string, find func(name string) ([]string, error), req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	name, named := strings.CutPrefix(req.ID, byName)
	switch {
	case named && find == nil:
		resp.Diagnostics.AddError("Import needs an id", fmt.Sprintf("A %s has no name, so it is imported by its id, got %q.", noun, req.ID))
		return
	case named && !c.reachable():
		resp.Diagnostics.AddError("Provider is not configured yet", "The provider's settings are not known yet, so no name can be looked up. Import by id.")
		return
	case named:
		ids, err := find(name)
		if err != nil {
			refusal{conn: c.conn, fallback: path.Root("name")}.add(&resp.Diagnostics, err)
			return
		}
		if len(ids) != 1 {
			resp.Diagnostics.AddError("No object of that name", fmt.Sprintf("The server has %d %ss named %q.\nImport by the name that the server shows (kura %s list), or by id.", len(ids), noun, name, noun))
			return
		}
		req.ID = ids[0]
	}
	resource.ImportStatePassthroughWithIdentity(ctx, path.Root("id"), path.Root("id"), req, resp)
}
