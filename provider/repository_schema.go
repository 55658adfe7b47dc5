package provider

import (
	"context"
	"regexp"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
)

func (r *repositoryResource) Schema(ctx context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "Where images are kept: a new repository, made in an empty place with a random key, or one that is there, attached with its password.\n\n" +
			"Keep its recovery sheet (`kura repository recovery-sheet`): without that sheet the images are lost with the server's database. " +
			"Destroying it forgets the registration and touches nothing in the storage.",
		Attributes: map[string]schema.Attribute{
			"id":         idAttribute(),
			"name":       nameAttribute("repository"),
			"filesystem": storageAttribute("A folder of the server, or one that it has mounted.", map[string]schema.Attribute{"path": storageText(true, "Absolute path.")}),
			"s3":         s3Attribute(),
			"sftp":       sftpAttribute(),
			"webdav":     webDAVAttribute(),
			"password_wo": schema.StringAttribute{
				Optional: true, Sensitive: true, WriteOnly: true,
				MarkdownDescription: "Password of a repository that is there and is to be attached; its recovery sheet has it. Without it a new repository is made.",
				Validators:          []validator.String{stringvalidator.UTF8LengthBetween(1, 1024)},
			},
			"password_wo_version": schema.Int64Attribute{
				Optional: true, MarkdownDescription: "Any number. When it changes, the repository is forgotten and attached anew with `password_wo`.",
				PlanModifiers: []planmodifier.Int64{int64planmodifier.RequiresReplace()},
			},
			"compression": choiceAttribute("s2", "How it compresses what is written from then on: `s2` is fast, `zstd-fastest` a little smaller.", "s2", "zstd-fastest", "none"),
			"verify_days": numberAttribute(30, "Each image is read whole within so many days.", int64validator.Between(1, 365)),
			"default": schema.BoolAttribute{
				Optional: true, Computed: true, MarkdownDescription: "`true`: schedules that name no repository take this one. One repository always is the default; another one becomes it by its own `true`.",
				PlanModifiers: []planmodifier.Bool{boolplanmodifier.UseStateForUnknown()},
			},
			"read_only":                switchAttribute(false, "Images are looked up and restored, and none is written."),
			"forget_images_on_destroy": switchAttribute(false, "Destroying it takes its images out of the catalogue as well; their data stay in the storage. Without it, destroying is refused while it has images."),
			"created_at":               createdAtAttribute(),
			"timeouts":                 timeoutsAttribute(ctx, changeTimeouts),
		},
	}
}

func s3Attribute() schema.Attribute {
	return storageAttribute("A bucket of S3 or of a storage that speaks it.", map[string]schema.Attribute{
		"endpoint":           storageText(true, "Host, or host:port, such as `s3.eu-central-1.amazonaws.com`."),
		"bucket":             storageText(true, "Name of the bucket, which must exist."),
		"prefix":             storageText(false, "Before the names of all objects; ends with a slash, such as `kura/`."),
		"region":             storageText(false, "Region of the bucket, where the storage wants one."),
		"ca_certificate":     storageText(false, "Authority of the endpoint's certificate, PEM; beside the system's own."),
		"tls":                switchAttribute(true, "Speak over TLS."),
		"access_key_wo":      storageSecret("Id of the access key"),
		"secret_key_wo":      storageSecret("The secret access key"),
		"secrets_wo_version": secretsVersion(),
		"object_lock": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "The storage itself refuses to delete what images need; extended daily. The bucket must have been made with object lock. A change holds for what is written from then on.",
			Attributes: map[string]schema.Attribute{
				"mode": schema.StringAttribute{
					Required: true, MarkdownDescription: "`governance`, which its administrators can lift, or `compliance`, which nobody can.",
					Validators: []validator.String{stringvalidator.OneOf("governance", "compliance")},
				},
				"days": schema.Int64Attribute{
					Required: true, MarkdownDescription: "For how many days from each extension on, 2 to 36500.",
					Validators: []validator.Int64{int64validator.Between(2, 36500)},
				},
			},
		},
	})
}

func sftpAttribute() schema.Attribute {
	return storageAttribute("A folder on a host that is reached over SSH.", map[string]schema.Attribute{
		"host":               storageText(true, "Name or address of the host."),
		"port":               numberAttribute(22, "Port of its SSH server.", int64validator.Between(1, 65535)),
		"user":               storageText(true, "User who logs in."),
		"path":               storageText(true, "Absolute path of the folder."),
		"known_hosts":        storageText(true, "The host's keys, as `ssh-keyscan` prints them."),
		"private_key_wo":     storageSecret("That user's private key, without a passphrase"),
		"secrets_wo_version": secretsVersion(),
	})
}

func webDAVAttribute() schema.Attribute {
	return storageAttribute("A folder of a WebDAV server.", map[string]schema.Attribute{
		"url": schema.StringAttribute{
			Required: true, MarkdownDescription: "Address of the folder, without a user.",
			Validators: []validator.String{stringvalidator.RegexMatches(regexp.MustCompile(`^https?://[^@?#\s]+$`), "must be http:// or https:// with a host and a path, without user and query")},
		},
		"username":           storageText(false, "User who logs in."),
		"ca_certificate":     storageText(false, "Authority of the server's certificate, PEM."),
		"http_password_wo":   storageSecret("That user's password"),
		"secrets_wo_version": secretsVersion(),
	})
}

// storageAttribute is one kind of storage. Another kind is another repository.
func storageAttribute(description string, attributes map[string]schema.Attribute) schema.Attribute {
	kind := func(_ context.Context, req planmodifier.ObjectRequest, resp *objectplanmodifier.RequiresReplaceIfFuncResponse) {
		resp.RequiresReplace = req.StateValue.IsNull() != req.PlanValue.IsNull()
	}
	return schema.SingleNestedAttribute{
		Optional: true, MarkdownDescription: description + " When its settings change, the same repository must lie at the new place.", Attributes: attributes,
		PlanModifiers: []planmodifier.Object{objectplanmodifier.RequiresReplaceIf(kind, "another kind of storage", "another kind of storage")},
	}
}

func storageText(required bool, description string) schema.Attribute {
	return schema.StringAttribute{
		Required: required, Optional: !required, MarkdownDescription: description,
		Validators: []validator.String{stringvalidator.UTF8LengthBetween(1, 65536)},
	}
}

func storageSecret(description string) schema.Attribute {
	return schema.StringAttribute{
		Optional: true, Sensitive: true, WriteOnly: true,
		MarkdownDescription: description + ", or where the server finds it: `env:NAME` (`NAME` begins with `KURA_REPOSITORY_` or `AWS_`) or `file:PATH`. Never in plan or state; sent when the repository is made and when `secrets_wo_version` changes.",
		Validators:          []validator.String{stringvalidator.UTF8LengthBetween(1, 65536)},
	}
}

func secretsVersion() schema.Attribute {
	return schema.Int64Attribute{
		Optional: true, MarkdownDescription: "Any number. When it changes, the secrets beside it are sent again.",
		Validators: []validator.Int64{int64validator.AtLeast(0)},
	}
}
