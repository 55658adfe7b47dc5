package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// Ids of the fake server's objects.
const (
	vcenterA  = "01JDZK3Q8X4T9V2M6B7N5C1RVC"
	vmA       = "01JDZK3Q8X4T9V2M6B7N5C1RVA"
	vmB       = "01JDZK3Q8X4T9V2M6B7N5C1RVB"
	groupA    = "01JDZK3Q8X4T9V2M6B7N5C1RGA"
	scheduleA = "01JDZK3Q8X4T9V2M6B7N5C1RSA"
	runA      = "01JDZK3Q8X4T9V2M6B7N5C1RRA"
	jobA      = "01JDZK3Q8X4T9V2M6B7N5C1RJA"
	jobB      = "01JDZK3Q8X4T9V2M6B7N5C1RJB"
	imageA    = "01JDZK3Q8X4T9V2M6B7N5C1RMA"
	imageB    = "01JDZK3Q8X4T9V2M6B7N5C1RMB"
	restoreA  = "01JDZK3Q8X4T9V2M6B7N5C1RTA"
	tokenA    = "01JDZK3Q8X4T9V2M6B7N5C1RKA"
	tokenB    = "01JDZK3Q8X4T9V2M6B7N5C1RKB"
)

// noon is when the tests of the command line take place.
var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// fake answers what it was told to. Whatever it is asked must be right by the
// contract, and so must be what it answers.
type fake struct {
	t   *testing.T
	url string

	mu      sync.Mutex // guards what follows
	replies map[string][]reply
	asked   []request
}

type reply struct {
	status int
	body   string
	etag   string
	cut    bool // no answer at all
}

type request struct {
	route  string // such as "GET /v1/vcenters?name=tokyo"; without the limit
	header http.Header
	body   string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, replies: map[string][]reply{}}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

// on sets what a route answers, one after the other; the last one stays.
func (f *fake) on(route string, replies ...reply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replies[route] = replies
}

func ok(body string) reply       { return reply{status: http.StatusOK, body: body} }
func accepted(body string) reply { return reply{status: http.StatusAccepted, body: body} }
func items(all ...string) reply  { return ok(`{"items":[` + strings.Join(all, ",") + `]}`) }

func problem(status int, code, title, detail string) reply {
	return reply{status: status, body: `{"type":"urn:kura:problem:` + code + `","title":"` + title + `","status":` + strconv.Itoa(status) +
		`,"detail":"` + detail + `","code":"` + code + `","request_id":"01JDZK3Q8X4T9V2M6B7N5C1R0Z"}`}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	query.Del("limit")
	route := r.Method + " " + r.URL.Path
	if len(query) > 0 {
		route += "?" + query.Encode()
	}
	text, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(text))
	f.mu.Lock()
	f.asked = append(f.asked, request{route, r.Header.Clone(), string(text)})
	answer, ok := f.next(route)
	f.mu.Unlock()
	switch {
	case !ok:
		f.t.Errorf("asked %s, which nobody expects", route)
		answer = problem(http.StatusNotFound, "not_found", "Not found", "Nobody expects this.")
	case answer.cut:
		panic(http.ErrAbortHandler)
	}
	f.check(r, answer)
	kind := "application/json"
	switch {
	case answer.status >= http.StatusBadRequest && strings.HasPrefix(answer.body, "<"):
		kind = "text/html"
	case answer.status >= http.StatusBadRequest:
		kind = "application/problem+json"
	case strings.HasSuffix(r.URL.Path, "/events"):
		kind = "text/event-stream"
	case strings.HasSuffix(r.URL.Path, ".ics"):
		kind = "text/calendar"
	case strings.HasSuffix(r.URL.Path, ".csv"):
		kind = "text/csv"
	}
	w.Header().Set("Content-Type", kind)
	if answer.etag != "" {
		w.Header().Set("ETag", answer.etag)
	}
	w.WriteHeader(answer.status)
	_, _ = io.WriteString(w, answer.body)
}

func (f *fake) next(route string) (reply, bool) {
	left := f.replies[route]
	if len(left) == 0 {
		return reply{}, false
	}
	if len(left) > 1 {
		f.replies[route] = left[1:]
	}
	return left[0], true
}

// contract finds the operation of a request.
var contract = sync.OnceValues(func() (routers.Router, error) {
	doc, err := api.GetSpec()
	if err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
})

// check holds a request, and the answer to it, against the contract.
func (f *fake) check(r *http.Request, answer reply) {
	router, err := contract()
	if err != nil {
		f.t.Error(err)
		return
	}
	asked := r.Clone(context.Background())
	asked.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	route, params, err := router.FindRoute(asked)
	if err != nil {
		f.t.Errorf("%s %s is not in the contract: %v", r.Method, r.URL, err)
		return
	}
	in := &openapi3filter.RequestValidationInput{Request: asked, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
		f.t.Errorf("%s %s breaks the contract: %v", r.Method, r.URL, err)
	}
	if answer.status >= http.StatusBadRequest || strings.HasSuffix(r.URL.Path, "/events") || strings.HasSuffix(r.URL.Path, ".ics") || strings.HasSuffix(r.URL.Path, ".csv") {
		return
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: answer.status, Header: http.Header{"Content-Type": {"application/json"}, "Etag": {`"1"`}, "Location": {"/"}}}
	if answer.body != "" {
		out.SetBodyBytes([]byte(answer.body))
	}
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		f.t.Errorf("the answer to %s %s breaks the contract: %v", r.Method, r.URL, err)
	}
}

// only returns the one request of that route.
func (f *fake) only(route string) request {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []request
	for _, r := range f.asked {
		if r.route == route {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		f.t.Fatalf("%s was asked %d times, want once; asked: %v", route, len(found), f.asked)
	}
	return found[0]
}

// result is what a command left behind.
type result struct {
	status      int
	out, errout string
}

// kura runs the command line against the fake server.
func (f *fake) kura(args ...string) result {
	f.t.Helper()
	return kura(f.t.Context(), map[string]string{"KURA_ENDPOINT": f.url, "KURA_TOKEN": "kura_secret"}, "", args...)
}

// kura runs the command line as main does, at noon and with little patience.
func kura(ctx context.Context, env map[string]string, stdin string, args ...string) result {
	var out, errout bytes.Buffer
	s := &session{stdin: strings.NewReader(stdin), stdout: &out, stderr: &errout, now: func() time.Time { return noon }, poll: time.Millisecond}
	status := s.run(ctx, args, func(name string) string { return env[name] })
	return result{status, out.String(), errout.String()}
}

// want compares what a command left behind; got and want are shown whole.
func (r result) want(t *testing.T, status int, out, errout string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status = %d, want %d", r.status, status)
	}
	if r.out != out {
		t.Errorf("stdout is\n%s\nwant\n%s", r.out, out)
	}
	if r.errout != errout {
		t.Errorf("stderr is\n%s\nwant\n%s", r.errout, errout)
	}
}
