package handler_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"pgregory.net/rapid"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// The requests of an everyday run; KURA_API_REQUESTS asks for another number.
const apiRequests = 2000

// requestsPerRig is after how many requests there is a new server, so that its
// lists do not grow without end.
const requestsPerRig = 500

// Whatever is asked of any operation of the contract, the server answers in
// time, as the contract says, and never that something went wrong inside it;
// what it says to have made is there. A good part of the requests is such as
// the contract asks for.
func TestEveryRequestIsAnsweredAsTheContractSays(t *testing.T) {
	total := apiRequests
	if text := os.Getenv("KURA_API_REQUESTS"); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil {
			t.Fatalf("KURA_API_REQUESTS: %v", err)
		}
	}
	s := newStranger(t)
	defer func() { s.tell(t) }()
	for s.asked < total {
		rapid.Check(t, func(rt *rapid.T) {
			for range max(1, min(total, requestsPerRig*20)/100) {
				s.ask(rt)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// stranger is a caller who knows the contract and nothing else.
type stranger struct {
	t     *testing.T
	rig   *rig
	doc   *openapi3.T
	ops   []asking
	ids   map[string][]string
	asked int
	told  map[int]int // answers by status
	heard map[string]bool
}

// asking is an operation as it is asked for.
type asking struct {
	method, path string
	op           *openapi3.Operation
}

func newStranger(t *testing.T) *stranger {
	doc, err := api.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	s := &stranger{t: t, doc: doc, told: map[int]int{}, heard: map[string]bool{}}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		item := doc.Paths.Value(path)
		for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
			s.ops = append(s.ops, asking{method, path, item.Operations()[method]})
		}
	}
	s.renew()
	return s
}

// renew has a new server, with an object of each kind.
func (s *stranger) renew() {
	r := newRig(s.t, func(p *backup.Planner) {
		if s.asked/requestsPerRig%2 == 1 {
			p.Profile = backup.ProfileGeneral
		}
	})
	s.rig, s.ids = r, map[string][]string{"vcenters": {r.vcenter.ID}}
	for _, vm := range r.vms {
		s.ids["virtual-machines"] = append(s.ids["virtual-machines"], vm.ID)
		s.ids["backup-images"] = append(s.ids["backup-images"], r.image(vm, nil).ID)
	}
	list := into[api.RepositoryList](r, r.do(call{method: "GET", path: "/v1/repositories", role: auth.Viewer}), 200)
	s.ids["repositories"] = []string{list.Items[0].ID}
	for path, body := range map[string]string{
		"/v1/backup-groups":    `{"name":"first","virtual_machine_ids":["` + r.vms[0].ID + `"]}`,
		"/v1/backup-schedules": `{"name":"first","virtual_machine_id":"` + r.vms[1].ID + `","daily":{},"retention_days":1}`,
	} {
		s.learn(path, r.do(call{method: "POST", path: path, role: auth.Operator, body: body}).body)
	}
	run := r.do(call{method: "POST", path: "/v1/virtual-machines/" + r.vms[2].ID + ":backup", role: auth.Operator, body: `{"retention_days":1}`})
	made := into[api.Run](r, run, 202)
	s.ids["runs"], s.ids["jobs"] = []string{made.ID}, []string{made.Jobs[0].ID}
}

// ask makes one request and judges the answer.
func (s *stranger) ask(rt *rapid.T) {
	if s.asked++; s.asked%requestsPerRig == 0 {
		s.renew()
	}
	s.rig.log.reset()
	d := drawing{rt, rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), uint64(s.asked))), s.ids} //nolint:gosec // chance, not secrecy
	a := choose(d, s.ops...)
	q, body := s.request(d, a)
	resp, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		rt.Fatalf("%s: no answer: %v", q.URL, err)
	}
	defer resp.Body.Close()
	answer, err := readAnswer(resp)
	if err != nil {
		rt.Fatalf("%s: the answer broke off: %v", q.URL, err)
	}
	s.told[resp.StatusCode]++
	c := claim{t: rt, s: s, asking: a, q: q, body: body, resp: resp, answer: answer}
	if c.judge(); rt.Failed() {
		rt.Fatalf("%s %s\n%v\n%.2000s\n-> %d %v\n%.3000s\n%s", q.Method, q.URL, q.Header, body, resp.StatusCode, resp.Header, answer, s.rig.log)
	}
}

// readAnswer reads all of an answer, of a stream of events the first one.
func readAnswer(resp *http.Response) ([]byte, error) {
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		return io.ReadAll(resp.Body)
	}
	var all []byte
	for in := bufio.NewReader(resp.Body); ; {
		line, err := in.ReadBytes('\n')
		all = append(all, line...)
		if errors.Is(err, io.EOF) || err == nil && len(line) == 1 {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

// answerWithin is how long an answer may take on a machine that is busy.
const answerWithin = 30 * time.Second

func (s *stranger) request(d drawing, a asking) (*http.Request, string) {
	query := url.Values{}
	header := http.Header{"Authorization": {"Bearer " + s.rig.tokens[auth.Operator]}}
	item := s.doc.Paths.Value(a.path)
	for _, p := range slices.Concat(a.op.Parameters, item.Parameters) {
		switch {
		case p.Value.In == "query" && (p.Value.Required || d.chance(12)):
			query[p.Value.Name] = d.parameter(p.Value)
		case p.Value.In == "header" && d.chance(15):
			v := choose(d, "k1", "k2", `"1"`, `"2"`, "*", `W/"1"`, "\xff\xfe", strings.Repeat("k", 256), "")
			header[http.CanonicalHeaderKey(p.Value.Name)] = []string{v, v}[:1+d.upTo(7)/7]
		}
	}
	if d.chance(3) {
		query.Add(choose(d, "vm", "limit", "", "Name"), choose(d, strange...))
	}
	target := s.rig.url + d.path(a.path)
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	text := ""
	if a.op.RequestBody != nil {
		text = d.body(a.op.RequestBody.Value.Content["application/json"].Schema.Value)
	} else if d.chance(3) {
		text = "{}"
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	d.t.Cleanup(cancel)
	q, err := http.NewRequestWithContext(ctx, a.method, target, strings.NewReader(text))
	if err != nil {
		d.t.Fatal(err)
	}
	if text != "" {
		header.Set("Content-Type", "application/json")
		if d.chance(4) {
			header.Set("Content-Type", choose(d, "", "text/plain", "APPLICATION/JSON", "application/json; charset=utf-16", "application/json;;", "application/x-yaml", "multipart/form-data; boundary=x", "*/*", "application/merge-patch+json"))
		}
		if d.chance(5) {
			q.ContentLength = -1 // in chunks
		}
	}
	q.Header = header
	return q, text
}

func (d drawing) parameter(p *openapi3.Parameter) []string {
	if d.chance(4) {
		return []string{choose(d, strange...), choose(d, strange...)}[:1+d.upTo(1)]
	}
	var all []string
	switch v := d.value(p.Schema.Value, p.Name).(type) {
	case []any:
		for _, item := range v {
			all = append(all, item.(string))
		}
	case string:
		all = []string{v}
	default:
		text, err := json.Marshal(v)
		if err != nil {
			d.t.Fatal(err)
		}
		all = []string{string(text)}
	}
	return all
}

// learn notes the id of an object that was made.
func (s *stranger) learn(path string, body []byte) {
	var o struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(body, &o) != nil || o.ID == "" {
		return
	}
	kind, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	if strings.HasSuffix(path, "/holds") {
		kind = "holds"
	}
	all := append(s.ids[kind], o.ID)
	s.ids[kind] = all[max(0, len(all)-8):]
}

// tell fails a test whose requests were too much of one kind to show anything.
func (s *stranger) tell(t *testing.T) {
	t.Logf("%d requests: %v", s.asked, s.told)
	good := s.told[200] + s.told[201] + s.told[202] + s.told[204]
	if t.Failed() || s.asked < apiRequests {
		return
	}
	if good*5 < s.asked || s.told[201] == 0 || s.told[400]*10 < s.asked || len(s.heard) < len(s.ops)*3/4 {
		t.Errorf("%d of %d requests were good ones, of %d operations out of %d; want a fifth, of three quarters of them", good, s.asked, len(s.heard), len(s.ops))
	}
}

// claim is an answer that is held against the contract.
type claim struct {
	asking
	t      *rapid.T
	s      *stranger
	q      *http.Request
	body   string
	resp   *http.Response
	answer []byte
}

func (c claim) judge() {
	if c.resp.StatusCode < 400 {
		c.s.heard[c.op.OperationID] = true
		if c.resp.StatusCode == http.StatusCreated {
			c.s.learn(c.path, c.answer)
			c.kept()
		}
	} else {
		c.refused()
	}
	router, err := gorillamux.NewRouter(c.s.doc)
	if err != nil {
		c.t.Fatal(err)
	}
	asked := &http.Request{Method: c.method, URL: &url.URL{Path: strings.NewReplacer("{id}", "x", "{hold_id}", "y").Replace(c.path)}}
	route, params, err := router.FindRoute(asked)
	if err != nil {
		c.t.Fatal(err)
	}
	in := &openapi3filter.RequestValidationInput{Request: asked, PathParams: params, Route: route}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: c.resp.StatusCode, Header: c.resp.Header, Body: io.NopCloser(bytes.NewReader(c.answer)),
		Options: &openapi3filter.Options{ExcludeResponseBody: !strings.Contains(c.resp.Header.Get("Content-Type"), "json")}}
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		c.t.Errorf("the answer breaks the contract: %v", err)
	}
}

// neighbours are the failures of what is not the server itself.
var neighbours = []api.ErrorCode{api.ErrorCodeVcenterUnreachable, api.ErrorCodeRepositoryUnreachable, api.ErrorCodeUnavailable, api.ErrorCodeNoSpace}

// refused sees that a refusal can be acted on.
func (c claim) refused() {
	var p api.Problem
	if err := json.Unmarshal(c.answer, &p); err != nil || c.resp.Header.Get("Content-Type") != "application/problem+json" {
		c.t.Errorf("no problem: %v", err)
		return
	}
	if p.Status != c.resp.StatusCode || p.Title == "" || p.RequestID == "" || !strings.HasSuffix(p.Detail, ".") {
		c.t.Errorf("a problem without a sentence, a title or an id")
	}
	if p.Status >= 500 && !slices.Contains(neighbours, p.Code) {
		c.t.Errorf("the server failed")
	}
	sound := isObject(c.body)
	if p.Code == api.ErrorCodeInvalid && p.Field == "" && sound && p.Status == http.StatusBadRequest && c.op.RequestBody != nil {
		c.t.Errorf("the field at fault is not named")
	}
}

// answered are properties that differ from one answer to the next, or from what was sent.
var answered = []string{"warnings", "measured", "text", "password", "repository", "settings", "time_zone", "copy_to"}

// kept sees that what was made can be read, and is what was sent.
func (c claim) kept() {
	place := c.resp.Header.Get("Location")
	if place == "" {
		return
	}
	a := c.s.rig.do(call{method: "GET", path: place, role: auth.Viewer})
	var sent, made, read map[string]any
	if a.status != 200 || json.Unmarshal(a.body, &read) != nil || json.Unmarshal(c.answer, &made) != nil || json.Unmarshal([]byte(c.body), &sent) != nil {
		c.t.Errorf("GET %s: %d %s", place, a.status, a.body)
		return
	}
	for name, v := range made {
		if !slices.Contains(answered, name) && !reflect.DeepEqual(v, read[name]) {
			c.t.Errorf("%s is %v when made, %v when read", name, v, read[name])
		}
	}
	schema := c.op.RequestBody.Value.Content["application/json"].Schema.Value
	for name, v := range sent {
		p := schema.Properties[name].Value
		switch v.(type) {
		case string, bool, float64:
		default:
			continue
		}
		empty := reflect.ValueOf(v).IsZero() && read[name] == nil
		if !p.ReadOnly && !p.WriteOnly && !empty && !slices.Contains(answered, name) && !reflect.DeepEqual(v, read[name]) {
			c.t.Errorf("%s was sent as %v and is read as %v", name, v, read[name])
		}
	}
}
