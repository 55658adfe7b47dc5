package provider

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// connection is what every resource and data source gets from the configured
// provider: the way to the server and what this run plans.
type connection struct {
	client   *api.ClientWithResponses
	endpoint string
	pending  bool // the configuration is not known yet: no server can be asked

	server    api.Server // as of the start of this run
	serverErr error      // why it is not known

	ledger *ledger
}

// settings are the provider's configuration and where its gaps are filled from.
type settings struct {
	model  providerModel
	getenv func(string) string
	agent  string
}

// open makes the client and looks at the server once. A server that cannot be
// reached is no error here: a plan of schedules may do without it.
func (c *connection) open(ctx context.Context, s settings, diags *diag.Diagnostics) {
	conf := s.client(diags)
	if diags.HasError() {
		return
	}
	client, err := api.New(conf)
	if err != nil {
		diags.AddAttributeError(path.Root("endpoint"), "Provider settings are not valid",
			sentence(err)+"\nWrite the endpoint as https://host:port and certificates as PEM.")
		return
	}
	c.client, c.endpoint = client, conf.Endpoint
	a, err := client.GetServerWithResponse(ctx)
	if err = api.Err(a, err); err != nil {
		c.serverErr = err
		if code := api.CodeOf(err); code == api.ErrorCodeUnauthenticated || code == api.ErrorCodeForbidden {
			refusal{conn: c, fallback: path.Root("token")}.add(diags, err)
		}
		return
	}
	if a.JSON200 == nil {
		c.serverErr = fmt.Errorf("%s is no Kura server: it answered %d to GET /v1/server", c.endpoint, a.StatusCode())
		return
	}
	c.server = *a.JSON200
	if major(c.server.APIVersion) != major(api.Version) {
		diags.AddAttributeError(path.Root("endpoint"), "Server speaks another API version", fmt.Sprintf(
			"The server %s is Kura %s with API version %s.\nThis provider needs API version %s.x.\nUse the version of the provider, or of the server, that goes with the other.",
			c.endpoint, c.server.Version, c.server.APIVersion, major(api.Version)))
	}
}

func major(version string) string {
	m, _, _ := strings.Cut(version, ".")
	return m
}

func (s settings) client(diags *diag.Diagnostics) api.Config {
	m := s.model
	conf := api.Config{
		Endpoint:  s.text(m.Endpoint, "KURA_ENDPOINT"),
		Token:     s.token(diags),
		UserAgent: s.agent,
		Insecure:  m.Insecure.ValueBool(),
	}
	if conf.Endpoint == "" {
		diags.AddAttributeError(path.Root("endpoint"), "Endpoint is missing",
			"The provider does not know where the Kura server is.\nSet endpoint = \"https://kura.example.com:8480\" in the provider block, or the variable KURA_ENDPOINT.")
	}
	if v := s.getenv("KURA_INSECURE"); m.Insecure.IsNull() && v != "" {
		on, err := strconv.ParseBool(v)
		if err != nil {
			diags.AddAttributeError(path.Root("insecure"), "KURA_INSECURE is not valid", fmt.Sprintf("KURA_INSECURE is true or false, got %q.", v))
		}
		conf.Insecure = on
	}
	conf.CACertificate = s.pem(m.CACertificate, "ca_certificate", diags)
	conf.ClientCertificate = s.pem(m.ClientCertificate, "client_certificate", diags)
	conf.ClientKey = s.pem(m.ClientKey, "client_key", diags)
	if v := s.text(m.RequestTimeout, "KURA_REQUEST_TIMEOUT"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			diags.AddAttributeError(path.Root("request_timeout"), "Duration is not valid", fmt.Sprintf("Write request_timeout as 30s or 2m, got %q.", v))
		}
		conf.Timeout = d
	}
	conf.MaxRetries = s.retries(diags)
	return conf
}

// retries returns the number as the client counts them: negative for none.
func (s settings) retries(diags *diag.Diagnostics) int {
	n := s.model.MaxRetries.ValueInt64()
	v := s.getenv("KURA_MAX_RETRIES")
	switch {
	case s.model.MaxRetries.IsNull() && v == "":
		return 0
	case s.model.MaxRetries.IsNull():
		var err error
		if n, err = strconv.ParseInt(v, 10, 32); err != nil || n < 0 {
			diags.AddAttributeError(path.Root("max_retries"), "KURA_MAX_RETRIES is not valid", fmt.Sprintf("KURA_MAX_RETRIES is a number from 0 on, got %q.", v))
		}
	}
	if n == 0 {
		return -1
	}
	return int(n)
}

func (s settings) text(v types.String, variable string) string {
	if !v.IsNull() {
		return v.ValueString()
	}
	return s.getenv(variable)
}

// token takes what the configuration says before what the environment says.
func (s settings) token(diags *diag.Diagnostics) string {
	if token := s.model.Token.ValueString(); token != "" {
		return token
	}
	file := s.model.TokenFile.ValueString()
	if file == "" {
		if token := s.getenv("KURA_TOKEN"); token != "" {
			return token
		}
		file = s.getenv("KURA_TOKEN_FILE")
	}
	if file == "" {
		diags.AddAttributeError(path.Root("token"), "Token is missing",
			"The Kura server answers no caller without a token.\nSet the variable KURA_TOKEN, or token_file in the provider block. The first start of a server writes an operator's token to operator.token in its data folder.")
		return ""
	}
	text, err := os.ReadFile(file)
	if err != nil {
		diags.AddAttributeError(path.Root("token_file"), "Token file cannot be read", sentence(err))
	}
	return strings.TrimSpace(string(text))
}

// pem returns PEM text, which is given as such or by the path of its file.
func (s settings) pem(v types.String, name string, diags *diag.Diagnostics) []byte {
	text := s.text(v, "KURA_"+strings.ToUpper(name))
	if text == "" || strings.Contains(text, "-----BEGIN ") {
		return []byte(text)
	}
	content, err := os.ReadFile(text)
	if err != nil {
		diags.AddAttributeError(path.Root(name), "Certificate cannot be read", sentence(err)+"\nGive the PEM text itself, or the path of a file that holds it.")
	}
	return content
}

// newKey returns a key that makes the repetition of one request harmless.
func newKey() string { return rand.Text() }

// resourceConnection is embedded by every resource.
type resourceConnection struct{ conn *connection }

func (r *resourceConnection) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	r.conn, _ = req.ProviderData.(*connection)
}

// reachable says whether the server can be asked while planning or refreshing.
// It cannot while the provider's own configuration is not known.
func (r *resourceConnection) reachable() bool { return r.conn != nil && !r.conn.pending }

// dataSourceConnection is embedded by every data source.
type dataSourceConnection struct{ conn *connection }

func (d *dataSourceConnection) Configure(_ context.Context, req datasource.ConfigureRequest, _ *datasource.ConfigureResponse) {
	d.conn, _ = req.ProviderData.(*connection)
}

// ready adds an error when there is no server to read from.
func (d *dataSourceConnection) ready(diags *diag.Diagnostics) bool {
	if d.conn == nil || d.conn.pending {
		diags.AddError("Provider is not configured yet",
			"The provider's endpoint or token comes from an object that does not exist yet, so nothing can be looked up.\nApply that object first, or give the endpoint as a value that is known.")
		return false
	}
	return true
}

// sentence makes a text for users of an error that is not written for them.
func sentence(err error) string {
	text := strings.TrimSuffix(err.Error(), ".")
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:] + "."
}
