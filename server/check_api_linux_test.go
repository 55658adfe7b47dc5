package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// written is what a client was told that the server had written.
type written struct {
	want map[string]any // what was asked for, as it was answered
	gone bool
}

// recorder is a transport that remembers what was acknowledged.
func (c *checker) recorder() http.RoundTripper {
	return &recorder{next: http.DefaultTransport.(*http.Transport).Clone(), c: c}
}

type recorder struct {
	next http.RoundTripper
	c    *checker
}

func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.Method == http.MethodGet {
		return r.next.RoundTrip(q)
	}
	var asked []byte
	if q.Body != nil {
		var err error
		if asked, err = io.ReadAll(q.Body); err != nil {
			return nil, err
		}
		q = q.Clone(q.Context())
		q.Body = io.NopCloser(bytes.NewReader(asked))
	}
	if q.Method != http.MethodPost {
		r.c.forget(q.URL.Path) // until the answer is here it may be either way
	}
	resp, err := r.next.RoundTrip(q)
	if err != nil || resp.StatusCode >= 300 {
		return resp, err
	}
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	r.c.acknowledged(q, resp, asked, answer)
	return resp, nil
}

func (c *checker) forget(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.written, path)
}

// acknowledged remembers a write. Of an object what was asked for counts, as
// far as the answer says it again: the rest changes by itself.
func (c *checker) acknowledged(q *http.Request, resp *http.Response, asked, answer []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.Method == http.MethodDelete {
		c.written[q.URL.Path] = &written{gone: true}
		return
	}
	at := q.URL.Path
	if q.Method == http.MethodPost {
		at = pathOf(resp.Header.Get("Location"))
	}
	var in, out map[string]any
	if at == "" || json.Unmarshal(answer, &out) != nil {
		return
	}
	if strings.Contains(at[strings.LastIndex(at, "/"):], ":") { // a deed, not a thing
		return
	}
	want := map[string]any{}
	if json.Unmarshal(asked, &in) == nil {
		for k := range in {
			if v, said := out[k]; said && !byItself(k) {
				want[k] = v
			}
		}
	}
	if id, ok := out["id"]; ok {
		want["id"] = id
	}
	c.written[at] = &written{want: want}
}

// byItself says whether a field changes without a write, so that who sends back
// what was answered has not asked for it.
func byItself(field string) bool {
	return strings.HasSuffix(field, "_at") || slices.Contains([]string{"sync_state", "sync_error", "warnings", "measured", "seats", "unbooked_seats"}, field)
}

// lookAtWritten asks every server for all that was acknowledged.
func (c *checker) lookAtWritten(ctx context.Context, say sayer) {
	c.mu.Lock()
	all := maps.Clone(c.written)
	c.mu.Unlock()
	servers := c.live()
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		for _, at := range slices.Sorted(maps.Keys(all)) {
			if strings.HasPrefix(at, "/v1/backup-images/") && all[at].gone {
				continue // it stays listed until its bytes are gone
			}
			if why := c.differs(ctx, servers[name], at, all[at]); why != "" {
				say(7, "The server %s acknowledged %s, and now %s.", name, at, why)
			}
		}
	}
}

// differs says how a thing is not what was acknowledged.
func (c *checker) differs(ctx context.Context, a *api.ClientWithResponses, at string, w *written) string {
	status, body, err := readPath(ctx, a, at)
	switch {
	case err != nil:
		return err.Error()
	case w.gone && status == http.StatusNotFound:
		return ""
	case w.gone:
		return fmt.Sprintf("what was deleted is there again (%d)", status)
	case status != http.StatusOK:
		return fmt.Sprintf("the answer is %d: %s", status, body)
	}
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		return err.Error()
	}
	for _, k := range slices.Sorted(maps.Keys(w.want)) {
		if !reflect.DeepEqual(got[k], w.want[k]) {
			return fmt.Sprintf("%s is %v, not %v", k, got[k], w.want[k])
		}
	}
	return ""
}

// readPath reads a path with the client's token and patience.
func readPath(ctx context.Context, a *api.ClientWithResponses, at string) (int, []byte, error) {
	plain, ok := a.ClientInterface.(*api.Client)
	if !ok {
		return 0, nil, fmt.Errorf("%T is no client of the API", a.ClientInterface)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(plain.Server, "/")+at, nil)
	if err != nil {
		return 0, nil, err
	}
	for _, edit := range plain.RequestEditors {
		if err := edit(ctx, q); err != nil {
			return 0, nil, err
		}
	}
	resp, err := plain.Client.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}
