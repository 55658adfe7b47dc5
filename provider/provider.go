// Package provider is kura's face in Terraform: schedules, groups, restores,
// vcenters and look-ups of images as Terraform objects. It asks the server over
// its HTTP API and holds no rules of its own but those that keep a plan and its
// apply from surprising anyone; it never touches a vcenter, a repository or a
// database.
package provider

import (
	"context"
	"os"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral"
	"github.com/hashicorp/terraform-plugin-framework/function"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// Address is where Terraform looks the provider up.
const Address = "registry.terraform.io/kura-backup/kura"

// New returns what makes a provider of the given version.
func New(version string) func() provider.Provider {
	return func() provider.Provider {
		return &kura{version: version, getenv: os.Getenv}
	}
}

type kura struct {
	version string
	getenv  func(string) string
}

var (
	_ provider.ProviderWithFunctions          = (*kura)(nil)
	_ provider.ProviderWithEphemeralResources = (*kura)(nil)
)

type providerModel struct {
	Endpoint          types.String `tfsdk:"endpoint"`
	Token             types.String `tfsdk:"token"`
	TokenFile         types.String `tfsdk:"token_file"`
	CACertificate     types.String `tfsdk:"ca_certificate"`
	ClientCertificate types.String `tfsdk:"client_certificate"`
	ClientKey         types.String `tfsdk:"client_key"`
	Insecure          types.Bool   `tfsdk:"insecure"`
	RequestTimeout    types.String `tfsdk:"request_timeout"`
	MaxRetries        types.Int64  `tfsdk:"max_retries"`
}

func (p *kura) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName, resp.Version = "kura", p.version
}

func (p *kura) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "Image backup of VMware vSphere virtual machines as code. Every setting may also come from the environment.",
		Attributes: map[string]schema.Attribute{
			"endpoint": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Where the Kura server answers, such as `https://kura.example.com:8480`. Or `KURA_ENDPOINT`.",
				Validators:          []validator.String{stringvalidator.LengthAtLeast(1)},
			},
			"token": schema.StringAttribute{
				Optional: true, Sensitive: true,
				MarkdownDescription: "Token that the server knows. Its role decides what may be done: `backup` makes groups and schedules, `restorer` restores, `operator` also deletes and adds vcenters. Or `KURA_TOKEN`.",
				Validators:          []validator.String{stringvalidator.ConflictsWith(path.MatchRoot("token_file"))},
			},
			"token_file": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "File that holds the token, in place of `token`. Or `KURA_TOKEN_FILE`.",
			},
			"ca_certificate": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Authority of the server's certificate: PEM text, or the path of a PEM file. Without it the system's authorities are asked. Or `KURA_CA_CERTIFICATE`.",
			},
			"client_certificate": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Certificate that the provider shows to the server or to what stands before it: PEM text or a path. Goes with `client_key`. Or `KURA_CLIENT_CERTIFICATE`.",
			},
			"client_key": schema.StringAttribute{
				Optional: true, Sensitive: true,
				MarkdownDescription: "Key of `client_certificate`: PEM text or a path. Or `KURA_CLIENT_KEY`.",
			},
			"insecure": schema.BoolAttribute{
				Optional:            true,
				MarkdownDescription: "Accept any certificate of the server. Use it in a laboratory. Or `KURA_INSECURE`. Default `false`.",
			},
			"request_timeout": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "How long one request may wait for its answer, such as `30s` or `2m`. Or `KURA_REQUEST_TIMEOUT`. Default `60s`.",
				Validators:          []validator.String{duration{}},
			},
			"max_retries": schema.Int64Attribute{
				Optional:            true,
				MarkdownDescription: "How often a request is tried again while the server is busy or not there. Or `KURA_MAX_RETRIES`. Default `5`.",
				Validators:          []validator.Int64{int64validator.Between(0, 100)},
			},
		},
	}
}

func (p *kura) Configure(ctx context.Context, req provider.ConfigureRequest, resp *provider.ConfigureResponse) {
	var m providerModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	c := &connection{ledger: newLedger()}
	resp.ResourceData, resp.DataSourceData, resp.EphemeralResourceData = c, c, c
	if !req.Config.Raw.IsFullyKnown() {
		c.pending = true
		if req.ClientCapabilities.DeferralAllowed {
			resp.Deferred = &provider.Deferred{Reason: provider.DeferredReasonProviderConfigUnknown}
		}
		return
	}
	agent := "terraform-provider-kura/" + p.version + " terraform/" + req.TerraformVersion
	c.open(ctx, settings{model: m, getenv: p.getenv, agent: agent}, &resp.Diagnostics)
}

func (p *kura) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{
		func() resource.Resource { return &groupResource{} },
		func() resource.Resource { return &holdResource{} },
		func() resource.Resource { return &repositoryResource{} },
		func() resource.Resource { return &restoreResource{} },
		func() resource.Resource { return &scheduleResource{} },
		func() resource.Resource { return &vcenterResource{} },
	}
}

func (p *kura) DataSources(context.Context) []func() datasource.DataSource {
	return []func() datasource.DataSource{
		newGroupDataSource,
		newGroupsDataSource,
		newJobsDataSource,
		newRestoresDataSource,
		func() datasource.DataSource { return &protectionDataSource{} },
		newScheduleDataSource,
		newSchedulesDataSource,
		func() datasource.DataSource { return &imageDataSource{} },
		func() datasource.DataSource { return &imagesDataSource{} },
		func() datasource.DataSource { return &repositoryDataSource{} },
		func() datasource.DataSource { return &serverDataSource{} },
		func() datasource.DataSource { return &timeslotsDataSource{} },
		func() datasource.DataSource { return &usageDataSource{} },
		func() datasource.DataSource { return &virtualMachinesDataSource{} },
	}
}

func (p *kura) EphemeralResources(context.Context) []func() ephemeral.EphemeralResource {
	return []func() ephemeral.EphemeralResource{func() ephemeral.EphemeralResource { return &tokenEphemeral{} }}
}

func (p *kura) Functions(context.Context) []func() function.Function {
	return []func() function.Function{
		func() function.Function { return computeExpiry{} },
		func() function.Function { return describeSchedule{} },
		func() function.Function { return expandSchedule{} },
	}
}
