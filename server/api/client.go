package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config says how a client reaches its server.
type Config struct {
	Endpoint   string // such as https://kura.example.com:8480
	Token      string
	UserAgent  string        // default kura
	Timeout    time.Duration // until an answer begins, per try; default 60 s
	MaxRetries int           // after the first try; 0 = 5, negative = none

	CACertificate     []byte // PEM; nil = the system's authorities
	ClientCertificate []byte // PEM, with ClientKey
	ClientKey         []byte
	Insecure          bool // the server's certificate is not checked

	Transport http.RoundTripper // instead of one made of the fields above
}

// New returns a client. It does not connect. Parameters of a query or a header
// that have the zero value are not sent: zero means absent.
func New(c Config) (*ClientWithResponses, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("endpoint %q is no http or https URL", c.Endpoint)
	}
	if strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the token holds a space, a line break or another character that no token has")
	}
	next := c.Transport
	if next == nil {
		if next, err = c.transport(); err != nil {
			return nil, err
		}
	}
	retries := c.MaxRetries
	if retries == 0 {
		retries = 5
	}
	return NewClientWithResponses(strings.TrimSuffix(c.Endpoint, "/"),
		WithHTTPClient(&http.Client{Transport: &retrier{next: next, max: retries}}),
		WithRequestEditorFn(c.prepare))
}

func (c Config) transport() (*http.Transport, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure} //nolint:gosec // the user asked for it
	if len(c.CACertificate) > 0 {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(c.CACertificate) {
			return nil, errors.New("the CA certificate holds no PEM certificate")
		}
	}
	if len(c.ClientCertificate) > 0 || len(c.ClientKey) > 0 {
		pair, err := tls.X509KeyPair(c.ClientCertificate, c.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = conf
	t.DialContext = (&net.Dialer{Timeout: min(timeout, 15*time.Second), KeepAlive: 30 * time.Second}).DialContext
	t.ResponseHeaderTimeout = timeout // not the whole exchange: events take as long as their job
	return t, nil
}

// prepare puts the token into a request and takes out parameters that hold
// nothing: the generated code sends them all.
func (c Config) prepare(_ context.Context, r *http.Request) error {
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	agent := c.UserAgent
	if agent == "" {
		agent = "kura"
	}
	r.Header.Set("User-Agent", agent)
	for name, values := range r.Header {
		if len(values) == 1 && values[0] == "" {
			r.Header.Del(name)
		}
	}
	query := r.URL.Query()
	for name, values := range query {
		if len(values) == 1 && absent(name, values[0]) {
			query.Del(name)
		}
	}
	r.URL.RawQuery = query.Encode()
	return nil
}

// absent says whether a query's parameter has its zero value. A name may well
// be "0", so that numbers and switches are told by theirs.
func absent(name, value string) bool {
	switch name {
	case "limit", "count":
		return value == "0"
	case "active", "enabled", "include_gone", "unprotectable", "since_last_run", "who":
		return value == "false"
	case "from", "to", "created_after", "created_before":
		return value == time.Time{}.Format(time.RFC3339)
	}
	return value == ""
}
