package provider

import (
	"context"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework-validators/boolvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/mapvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func (r *restoreResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	replace := []planmodifier.Object{objectplanmodifier.RequiresReplace()}
	resp.Schema = schema.Schema{
		MarkdownDescription: "An image put back: in place of the machine that it was made of, as a new machine, or as one disk. Apply starts the restore and waits for its end.\n\n" +
			"A restore runs once. It runs again only when `triggers`, the image or the target change; for a restore that overwrites something, " +
			"a changed image or target is refused at plan unless `triggers` change too, so that an image found by `most_recent` never overwrites a machine by itself.\n\n" +
			"A restore that fails leaves nothing in the state. One that is interrupted, or outlasts its timeout, goes on in the server; the next apply of the same configuration joins it. " +
			"Destroying a restore forgets it, and cancels it if it still runs; the restored machine stays, unless `delete_restored_vm_on_destroy` says otherwise.",
		Attributes: map[string]schema.Attribute{
			"id": idAttribute(),
			"image_id": schema.StringAttribute{
				Required: true, MarkdownDescription: "Id of the image, as `kura_backup_image` gives it.",
				Validators:    []validator.String{stringvalidator.LengthBetween(1, 128)},
				PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
			},
			"in_place": schema.SingleNestedAttribute{
				Optional: true, PlanModifiers: replace,
				MarkdownDescription: "Overwrites the machine that the image was made of. Exactly one of `in_place`, `new_vm` and `disk`.",
				Attributes: map[string]schema.Attribute{
					"power_off": switchAttribute(false, "Power the machine off first; otherwise a running one is refused."),
					"power_on":  switchAttribute(false, "Power it on afterwards."),
					"safety": choiceAttribute("quick", "What is kept of the machine that is overwritten: its former disks for 24 hours (`quick`), a full backup that is made first and kept for 31 days (`image`), or nothing (`none`).",
						string(api.SafetyQuick), string(api.SafetyImage), string(api.SafetyNone)),
				},
			},
			"new_vm": newVMAttribute(replace),
			"disk":   restoreDiskAttribute(replace),
			"triggers": schema.MapAttribute{
				Optional: true, ElementType: types.StringType,
				MarkdownDescription: "Any values. When one changes, the restore runs again.",
				Validators:          []validator.Map{mapvalidator.NoNullValues()},
				PlanModifiers:       []planmodifier.Map{mapplanmodifier.RequiresReplace()},
			},
			"description": descriptionAttribute(),
			"delete_restored_vm_on_destroy": schema.BoolAttribute{
				Optional: true, Computed: true, Default: booldefault.StaticBool(false),
				MarkdownDescription: "With `new_vm`: destroying the restore deletes the machine that it made, with its disks. One that runs, or that another machine has taken the place of, is refused. Default `false`.",
				Validators:          []validator.Bool{boolvalidator.AlsoRequires(path.MatchRoot("new_vm"))},
			},
			"timeouts": timeoutsAttribute(ctx, timeouts.Opts{
				Create: true, CreateDescription: "From the start of the apply to the end of the restore. Default `8h`.",
				Delete: true, DeleteDescription: "Default `5m`.",
			}),
		},
	}
	maps.Copy(resp.Schema.Attributes, restoreOutcome())
}

// restoreOutcome are the attributes that the restore's end gives.
func restoreOutcome() map[string]schema.Attribute {
	fixed := func(description string) schema.StringAttribute {
		return schema.StringAttribute{
			Computed: true, MarkdownDescription: description,
			PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
		}
	}
	return map[string]schema.Attribute{
		"status":       fixed("`succeeded`."),
		"started_at":   fixed("When it started, RFC 3339."),
		"completed_at": fixed("When it ended, RFC 3339."),
		"bytes_restored": schema.Int64Attribute{
			Computed: true, MarkdownDescription: "Bytes that were written.",
			PlanModifiers: []planmodifier.Int64{int64planmodifier.UseStateForUnknown()},
		},
		"restored_vm": schema.SingleNestedAttribute{
			Computed: true, MarkdownDescription: "The machine that was made or overwritten.",
			PlanModifiers: []planmodifier.Object{objectplanmodifier.UseStateForUnknown()},
			Attributes: map[string]schema.Attribute{
				"moid":          schema.StringAttribute{Computed: true, MarkdownDescription: "Managed object id, such as `vm-42`."},
				"instance_uuid": schema.StringAttribute{Computed: true, MarkdownDescription: "Instance UUID."},
				"bios_uuid":     schema.StringAttribute{Computed: true, MarkdownDescription: "BIOS UUID."},
				"name":          schema.StringAttribute{Computed: true, MarkdownDescription: "Name."},
			},
		},
	}
}

func newVMAttribute(replace []planmodifier.Object) schema.Attribute {
	opt := func(description string, valid ...validator.String) schema.StringAttribute {
		return schema.StringAttribute{
			Optional: true, MarkdownDescription: description,
			Validators: append(valid, stringvalidator.UTF8LengthBetween(1, 1024)),
		}
	}
	among := func(names ...string) validator.String {
		var others []path.Expression
		for _, n := range names {
			others = append(others, path.MatchRelative().AtParent().AtName(n))
		}
		return stringvalidator.ConflictsWith(others...)
	}
	return schema.SingleNestedAttribute{
		Optional: true, PlanModifiers: replace,
		MarkdownDescription: "Makes a new machine. What is left out is as in the image.",
		Attributes: map[string]schema.Attribute{
			"name": schema.StringAttribute{
				Required: true, MarkdownDescription: "Name of the new machine.", Validators: []validator.String{nameLength()},
			},
			"vcenter_id":     opt("Id of another vcenter to restore to."),
			"datacenter":     opt("Inventory path of the datacenter."),
			"folder":         opt("Inventory path of the folder."),
			"datastore":      opt("Name of the datastore, or of a datastore cluster, of which the freest is taken."),
			"storage_policy": opt("Name of the storage policy, which the machine and its disks get."),
			"cluster":        opt("Inventory path of the cluster. At most one of `cluster`, `host` and `resource_pool`.", among("host", "resource_pool")),
			"host":           opt("Name of the ESXi host.", among("cluster", "resource_pool")),
			"resource_pool":  opt("Inventory path of the resource pool.", among("cluster", "host")),
			"network_mappings": schema.MapAttribute{
				Optional: true, ElementType: types.StringType, MarkdownDescription: "Name of a network in the image to the name of the one to use.",
				Validators: []validator.Map{mapvalidator.SizeAtMost(64), mapvalidator.NoNullValues(), mapvalidator.ValueStringsAre(stringvalidator.UTF8LengthBetween(1, 1024))},
			},
			"power_on":          switchAttribute(false, "Power it on afterwards."),
			"preserve_identity": switchAttribute(false, "Keep UUIDs and MAC addresses of the image; otherwise new ones are made."),
			"as_template":       switchAttribute(false, "Make it a template."),
		},
	}
}

func restoreDiskAttribute(replace []planmodifier.Object) schema.Attribute {
	return schema.SingleNestedAttribute{
		Optional: true, PlanModifiers: replace,
		MarkdownDescription: "Puts one disk of the image back.",
		Attributes: map[string]schema.Attribute{
			"source_disk_key": schema.Int64Attribute{
				Optional: true, MarkdownDescription: "Key of the disk in the image. Exactly one of it and `source_disk_label`.",
				Validators: []validator.Int64{
					int64validator.Between(1, 1<<31-1),
					int64validator.ExactlyOneOf(path.MatchRelative().AtParent().AtName("source_disk_label")),
				},
			},
			"source_disk_label": schema.StringAttribute{
				Optional: true, MarkdownDescription: "Label of the disk in the image, such as `Hard disk 1`.",
				Validators: []validator.String{stringvalidator.UTF8LengthBetween(1, 256)},
			},
			"virtual_machine_id": schema.StringAttribute{
				Required: true, MarkdownDescription: "Id of the machine that gets the disk.", Validators: []validator.String{stringvalidator.LengthBetween(1, 128)},
			},
			"mode": schema.StringAttribute{
				Required: true, MarkdownDescription: "`replace` the disk of the same key, else of the same label, of a machine that is off; or `attach` it as one more disk, also while the machine runs.",
				Validators: []validator.String{stringvalidator.OneOf(string(api.DiskRestoreModeReplace), string(api.DiskRestoreModeAttach))},
			},
			"datastore": schema.StringAttribute{
				Optional: true, MarkdownDescription: "Name of the datastore, with `attach` only. By default where the machine lies.", Validators: []validator.String{stringvalidator.UTF8LengthBetween(1, 1024)},
			},
		},
	}
}
