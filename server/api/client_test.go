package api_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func client(t *testing.T, c api.Config) *api.ClientWithResponses {
	t.Helper()
	out, err := api.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// answers serves the answers in turn, the last one for ever, and counts.
func answers(t *testing.T, list ...http.HandlerFunc) (url string, count *atomic.Int32) {
	t.Helper()
	count = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(count.Add(1))
		list[min(n, len(list))-1](w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, count
}

func problem(status int, code api.ErrorCode) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(api.Problem{Status: status, Code: code, Title: "t", Detail: "d", RequestID: "r"})
	}
}

func group(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", `"7"`)
	var g api.BackupGroup
	_ = json.NewDecoder(r.Body).Decode(&g)
	if r.Method == http.MethodPost {
		w.WriteHeader(http.StatusCreated)
	}
	_ = json.NewEncoder(w).Encode(g)
}

func TestARequestIsTriedAgainWhereThatIsHarmless(t *testing.T) {
	ctx := context.Background()
	cut := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}
	body := api.BackupGroup{Name: "g"}
	get := func(c *api.ClientWithResponses) error {
		a, err := c.GetBackupGroupWithResponse(ctx, "x")
		return api.Err(a, err)
	}
	post := func(key string) func(*api.ClientWithResponses) error {
		return func(c *api.ClientWithResponses) error {
			a, err := c.CreateBackupGroupWithResponse(ctx, &api.CreateBackupGroupParams{IdempotencyKey: key}, body)
			if err == nil && a.JSON201 != nil && a.JSON201.Name != "g" {
				t.Errorf("the body of the last try was %+v, want it whole", a.JSON201)
			}
			return api.Err(a, err)
		}
	}
	for name, c := range map[string]struct {
		answers []http.HandlerFunc
		call    func(*api.ClientWithResponses) error
		tries   int32
		code    api.ErrorCode // of the error; "" = none
		broken  bool          // no answer at all
	}{
		"good at once":                      {[]http.HandlerFunc{group}, get, 1, "", false},
		"unavailable, then good":            {[]http.HandlerFunc{problem(503, "unavailable"), group}, get, 2, "", false},
		"rate limited, then good":           {[]http.HandlerFunc{problem(429, "rate_limited"), problem(429, "rate_limited"), group}, post(""), 3, "", false},
		"unavailable for ever":              {[]http.HandlerFunc{problem(503, "unavailable")}, get, 4, "unavailable", false},
		"refused":                           {[]http.HandlerFunc{problem(409, "slot_full"), group}, post(""), 1, "slot_full", false},
		"internal":                          {[]http.HandlerFunc{problem(500, "internal"), group}, get, 1, "internal", false},
		"a cut GET":                         {[]http.HandlerFunc{cut, group}, get, 2, "", false},
		"a cut POST that may be repeated":   {[]http.HandlerFunc{cut, group}, post("key"), 2, "", false},
		"a cut POST that must not be":       {[]http.HandlerFunc{cut, group}, post(""), 1, "", true},
		"a proxy's page instead of problem": {[]http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) }}, get, 1, "unavailable", false},
	} {
		t.Run(name, func(t *testing.T) {
			url, count := answers(t, c.answers...)
			err := c.call(client(t, api.Config{Endpoint: url, MaxRetries: 3}))
			if got := api.CodeOf(err); got != c.code || (err != nil) != (c.code != "" || c.broken) || api.Unreachable(err) != c.broken {
				t.Errorf("error = %v (code %q, unreachable %t), want code %q, unreachable %t", err, got, api.Unreachable(err), c.code, c.broken)
			}
			if n := count.Load(); n != c.tries {
				t.Errorf("%d tries, want %d", n, c.tries)
			}
		})
	}
}

func TestAServerThatStartsLateIsWaitedFor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(group), ReadHeaderTimeout: time.Second}
	defer s.Close()
	tries := 0
	dial := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if tries++; tries == 2 {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return nil, err
			}
			go func() { _ = s.Serve(l) }()
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	c := client(t, api.Config{Endpoint: "http://" + address, Transport: dial})
	a, err := c.CreateBackupGroupWithResponse(context.Background(), nil, api.BackupGroup{Name: "g"})
	if err := api.Err(a, err); err != nil || tries != 2 {
		t.Errorf("after %d dials: %v, want the second one to do", tries, err)
	}
	c = client(t, api.Config{Endpoint: "http://127.0.0.1:1", MaxRetries: -1})
	if _, err := c.GetServerWithResponse(context.Background()); !api.Unreachable(err) {
		t.Errorf("nobody listens: %v, want unreachable", err)
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	url, count := answers(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
		cancel()
	})
	if _, err := client(t, api.Config{Endpoint: url}).GetServerWithResponse(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want canceled", err)
	}
	if n := count.Load(); n != 1 {
		t.Errorf("%d tries, want 1", n)
	}
}

func TestOnlyWhatIsSetIsSent(t *testing.T) {
	var got *http.Request
	url, _ := answers(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"items":[]}`)
	})
	c := client(t, api.Config{Endpoint: url + "/", Token: "kura_x", UserAgent: "test/1"})
	ctx := context.Background()
	for name, call := range map[string]struct {
		do    func() error
		query string
	}{
		"nothing": {func() error { _, err := c.ListJobsWithResponse(ctx, &api.ListJobsParams{}); return err }, ""},
		"a name 0": {func() error {
			_, err := c.ListVCentersWithResponse(ctx, &api.ListVCentersParams{Name: "0"})
			return err
		}, "name=0"},
		"some": {func() error {
			_, err := c.ListJobsWithResponse(ctx, &api.ListJobsParams{Active: true, Limit: 5, State: api.JobStateRunning})
			return err
		}, "active=true&limit=5&state=running"},
		"tags with commas": {func() error {
			_, err := c.ListVirtualMachinesWithResponse(ctx, &api.ListVirtualMachinesParams{Tag: []string{"a:b,c", "d:e"}})
			return err
		}, "tag=a%3Ab%2Cc&tag=d%3Ae"},
		"a time": {func() error {
			_, err := c.ListBackupImagesWithResponse(ctx, &api.ListBackupImagesParams{CreatedAfter: time.Date(2026, 12, 1, 2, 0, 0, 0, time.FixedZone("", 9*3600))})
			return err
		}, "created_after=2026-12-01T02%3A00%3A00%2B09%3A00"},
	} {
		if err := call.do(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got.URL.RawQuery != call.query {
			t.Errorf("%s: query %q, want %q", name, got.URL.RawQuery, call.query)
		}
		if got.Header.Get("Authorization") != "Bearer kura_x" || got.Header.Get("User-Agent") != "test/1" {
			t.Errorf("%s: headers %v, want token and agent", name, got.Header)
		}
	}
	if _, err := c.RunBackupScheduleWithResponse(ctx, "x", &api.RunBackupScheduleParams{}); err != nil {
		t.Fatal(err)
	}
	if _, sent := got.Header["Idempotency-Key"]; sent {
		t.Error("an empty Idempotency-Key was sent")
	}
}

func TestTheCertificateIsCheckedAsConfigured(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{}`)
	}))
	s.Config.ErrorLog = nil
	defer s.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, c := range map[string]struct {
		config api.Config
		good   bool
	}{
		"unknown authority": {api.Config{}, false},
		"its authority":     {api.Config{CACertificate: ca}, true},
		"not checked":       {api.Config{Insecure: true}, true},
	} {
		c.config.Endpoint, c.config.MaxRetries = s.URL, -1
		_, err := client(t, c.config).GetServerWithResponse(context.Background())
		if (err == nil) != c.good {
			t.Errorf("%s: %v, want good = %t", name, err, c.good)
		}
	}
	for name, c := range map[string]api.Config{
		"no scheme":           {Endpoint: "kura.example.com"},
		"another scheme":      {Endpoint: "ftp://kura.example.com"},
		"no PEM":              {Endpoint: s.URL, CACertificate: []byte("x")},
		"a key without a pem": {Endpoint: s.URL, ClientKey: []byte("x")},
	} {
		if _, err := api.New(c); err == nil {
			t.Errorf("%s: New gave no error", name)
		}
	}
}

func TestAJobIsFollowedOverABrokenStream(t *testing.T) {
	event := func(w io.Writer, state api.JobState) {
		text, _ := json.Marshal(api.Job{ID: "J", State: state}) // plain values: cannot fail
		_, _ = io.WriteString(w, ": beat\n\nevent: job\ndata: "+string(text)+"\n\n")
	}
	stream := func(states ...api.JobState) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for _, s := range states {
				event(w, s)
			}
		}
	}
	url, _ := answers(t, stream(api.JobStateQueued, api.JobStateRunning), stream(api.JobStateRunning), stream(api.JobStateRunning, api.JobStateSucceeded))
	var seen []string
	last, err := client(t, api.Config{Endpoint: url}).FollowJob(context.Background(), "J", func(j api.Job) { seen = append(seen, string(j.State)) })
	if err != nil || last.State != api.JobStateSucceeded {
		t.Fatalf("last = %s, %v, want succeeded", last.State, err)
	}
	if want := "queued running running running succeeded"; strings.Join(seen, " ") != want {
		t.Errorf("seen %s, want %s", seen, want)
	}
	url, _ = answers(t, problem(404, "not_found"))
	if _, err := client(t, api.Config{Endpoint: url}).FollowJob(context.Background(), "J", nil); api.CodeOf(err) != api.ErrorCodeNotFound {
		t.Errorf("a job that is not there: %v, want not_found", err)
	}
}

func TestAllGoesThroughThePagesAndStopsAtAFault(t *testing.T) {
	pages := map[string][]int{"": {1, 2}, "b": {}, "c": {3}}
	next := map[string]string{"": "b", "b": "c"}
	var got []int
	for n, err := range api.All(func(cursor string) ([]int, string, error) { return pages[cursor], next[cursor], nil }) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	if diff := cmp.Diff([]int{1, 2, 3}, got); diff != "" {
		t.Errorf("items (-want +got):\n%s", diff)
	}
	fault := errors.New("fault")
	calls := 0
	for _, err := range api.All(func(string) ([]int, string, error) { calls++; return nil, "x", fault }) {
		if !errors.Is(err, fault) {
			t.Errorf("err = %v, want the fault", err)
		}
	}
	if calls != 1 {
		t.Errorf("%d pages asked for after a fault, want none", calls-1)
	}
}
