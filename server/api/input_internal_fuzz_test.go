package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// anyAnswer answers every request with the same.
type anyAnswer struct {
	status int
	kind   string
	body   []byte
}

func (a anyAnswer) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: a.status, Header: http.Header{"Content-Type": {a.kind}, "Retry-After": {string(a.body)}}, Body: io.NopCloser(bytes.NewReader(a.body)), Request: r}, nil
}

// FuzzAnswers: whatever answers, a caller gets an object, or an error that says
// something; none makes it fail.
func FuzzAnswers(f *testing.F) {
	f.Add(200, "application/json", []byte(`{"version":"1","time":"x"}`))
	f.Add(200, "text/html", []byte(`<html>`))
	f.Add(409, "application/problem+json", []byte(`{"code":"slot_full","status":409,"recommendations":[{"kind":"same_day"},null]}`))
	f.Add(200, "text/event-stream", []byte("event: job\ndata: {\"id\":\"j\",\"state\":\"succeeded\"}\n\ndata: null\n\n"))
	f.Add(502, "", []byte(nil))
	f.Add(0, "application/json; charset=utf-16", []byte("\xff\xfe{"))
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		c, err := New(Config{Endpoint: "http://kura", Transport: anyAnswer{status, kind, body}, MaxRetries: -1})
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.GetServerWithResponse(t.Context())
		if err = Err(a, err); err != nil && err.Error() == "" && Unreachable(err) {
			t.Errorf("an error that says nothing: %#v", err)
		}
		_ = CodeOf(err)
		job, err := c.followOnce(t.Context(), "j", nil)
		if err == nil && status != http.StatusOK {
			t.Errorf("an answer of %d gives the job %+v", status, job)
		}
	})
}

// A server that hangs is asked twice, not as often as one that is busy.
func TestAServerThatHangsIsGivenUp(t *testing.T) {
	var asked atomic.Int32
	over := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		<-over
	}))
	defer s.Close()
	defer close(over)
	c, err := New(Config{Endpoint: s.URL, Token: "kura_x", Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.GetServerWithResponse(ctx); !Unreachable(err) || errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		t.Errorf("a server that hangs: %v", err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("it was asked %d times, want 2", n)
	}
}
