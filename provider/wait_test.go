package provider

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// scripted answers requests by a function, without a network.
type scripted func(r *http.Request) (int, any, error)

func (s scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body, err := s(r)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	kind := "application/json"
	if status >= http.StatusBadRequest {
		kind = "application/problem+json"
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(string(text))), Request: r,
	}, nil
}

func connectionTo(t *testing.T, s scripted) *connection {
	t.Helper()
	c, err := api.New(api.Config{Endpoint: "http://kura.test", Transport: s, MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	return &connection{client: c, endpoint: "http://kura.test", ledger: newLedger()}
}

func TestAWaitForARestoreOutlivesAServerThatRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		c := connectionTo(t, func(r *http.Request) (int, any, error) {
			if strings.HasPrefix(r.URL.Path, "/v1/jobs/") {
				return http.StatusOK, api.Job{ID: "j", State: api.JobStateRunning}, nil
			}
			switch asked++; {
			case asked < 20:
				return 0, nil, errors.New("connection refused")
			case asked < 25:
				return http.StatusServiceUnavailable, api.Problem{Code: api.ErrorCodeUnavailable, Status: 503}, nil
			case asked < 30:
				return http.StatusOK, api.Restore{ID: "r", JobID: "j", Status: api.JobStateRunning}, nil
			}
			return http.StatusOK, api.Restore{ID: "r", JobID: "j", Status: api.JobStateSucceeded, BytesRestored: 7}, nil
		})
		start := time.Now()
		r, err := c.awaitRestore(t.Context(), api.Restore{ID: "r", JobID: "j", Status: api.JobStateQueued})
		if err != nil || r.Status != api.JobStateSucceeded || r.BytesRestored != 7 {
			t.Errorf("the wait ended %+v, %v; want the success", r, err)
		}
		if took := time.Since(start); took < 60*time.Second || took > 30*longestPause {
			t.Errorf("30 looks took %s, want pauses that grow to %s", took, longestPause)
		}
	})
}

func TestAWaitForARestoreEndsWithItsTimeAndWhenTheRecordIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connectionTo(t, func(*http.Request) (int, any, error) {
			return http.StatusOK, api.Restore{ID: "r", Status: api.JobStateRunning}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.awaitRestore(ctx, api.Restore{ID: "r", Status: api.JobStateRunning}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the wait ended with %v, want its deadline", err)
		}
		c = connectionTo(t, func(*http.Request) (int, any, error) {
			return http.StatusNotFound, api.Problem{Code: api.ErrorCodeNotFound, Status: 404}, nil
		})
		if _, err := c.awaitRestore(t.Context(), api.Restore{ID: "r", Status: api.JobStateRunning}); !missing(err) {
			t.Errorf("the wait ended with %v, want not_found", err)
		}
	})
}

func TestAFailedSyncIsFinalOnlyWhenNoTryIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, active := 0, []api.Job{{ID: "j", State: api.JobStateQueued}}
		c := connectionTo(t, func(r *http.Request) (int, any, error) {
			if r.URL.Path == "/v1/jobs" {
				return http.StatusOK, api.JobList{Items: active}, nil
			}
			if asked++; asked == 3 {
				active = []api.Job{}
			}
			return http.StatusOK, api.VCenter{ID: "v", Name: "v", SyncState: api.SyncStateFailed, SyncError: "no route to host"}, nil
		})
		_, err := c.awaitInventory(t.Context(), api.VCenter{ID: "v", Name: "v", SyncState: api.SyncStatePending})
		if asked != 3 || api.CodeOf(err) != api.ErrorCodeVcenterUnreachable || !strings.Contains(err.Error(), "no route to host") {
			t.Errorf("the wait ended after %d looks with %v, want the cause after 3", asked, err)
		}
		c = connectionTo(t, func(*http.Request) (int, any, error) {
			return http.StatusOK, api.VCenter{ID: "v", Name: "v", SyncState: api.SyncStatePending}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := c.awaitInventory(ctx, api.VCenter{ID: "v", Name: "v", SyncState: api.SyncStatePending}); err == nil || !strings.Contains(err.Error(), `Raise timeouts = { create = "30m" }.`) {
			t.Errorf("the wait that takes too long ended with %v", err)
		}
	})
}
