package handler

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/mux"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestEveryCodeOfTheDomainHasItsMeaning(t *testing.T) {
	doc, err := api.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	contract := doc.Components.Schemas["ErrorCode"].Value.Enum
	for _, code := range backup.Codes() {
		m, ok := meanings[code]
		if !ok || m.status < 400 || m.title == "" {
			t.Errorf("meanings[%s] = %+v, want a status and a title", code, m)
		}
		if words := len(strings.Fields(m.title)); words > 6 || strings.HasSuffix(m.title, ".") {
			t.Errorf("title %q has %d words, want at most 6 and no full stop", m.title, words)
		}
		if !slices.Contains(contract, any(string(code))) {
			t.Errorf("the contract lacks the code %s", code)
		}
	}
	if len(meanings) != len(backup.Codes()) || len(contract) != len(backup.Codes()) {
		t.Errorf("%d codes, %d meanings, %d in the contract; want as many", len(backup.Codes()), len(meanings), len(contract))
	}
}

func inside() (*handler, *strings.Builder) {
	var log strings.Builder
	return &handler{Config: Config{Log: slog.New(slog.NewTextHandler(&log, nil))}.defaulted()}, &log
}

func TestTheContractsOperationsAreTheRoutes(t *testing.T) {
	h, _ := inside()
	h.Metrics = http.NotFoundHandler()
	doc, err := api.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"GET /healthz": true, "HEAD /healthz": true, "GET /readyz": true, "HEAD /readyz": true, "GET /openapi.yaml": true, "HEAD /openapi.yaml": true, "GET /metrics": true}
	for key := range operationsOf(doc) {
		want[key] = true
	}
	got := map[string]bool{}
	err = h.router(doc).Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := route.GetPathTemplate()
		if path == "" || err != nil { // the sub-router itself has none
			return nil //nolint:nilerr // see above
		}
		methods, err := route.GetMethods()
		for _, m := range methods {
			got[m+" "+path] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for key := range want {
		if !got[key] {
			t.Errorf("%s is in the contract and not routed", key)
		}
	}
	for key := range got {
		if !want[key] {
			t.Errorf("%s is routed and not in the contract", key)
		}
	}
}

func TestAPanicBecomesAnInternalError(t *testing.T) {
	h, log := inside()
	w := httptest.NewRecorder()
	h.outer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the shelf broke") })).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/server", nil))
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"code":"internal"`) || strings.Contains(w.Body.String(), "shelf") {
		t.Errorf("answer = %d %s, want 500 internal without the cause", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "the shelf broke") || !strings.Contains(log.String(), "inside_test.go") {
		t.Error("the log lacks the panic or its place")
	}
}

func TestAnErrorWithoutACodeShowsNothingOfItself(t *testing.T) {
	h, log := inside()
	w := httptest.NewRecorder()
	h.outer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, r, errors.New("pq: password of kura is wrong"))
	})).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	id := w.Header().Get("X-Request-Id")
	if w.Code != 500 || strings.Contains(w.Body.String(), "pq") || !strings.Contains(w.Body.String(), id) {
		t.Errorf("answer = %d %s, want 500 with the request id and without the cause", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "pq: password") || !strings.Contains(log.String(), id) {
		t.Errorf("the log lacks the cause or the id: %s", log)
	}
}

func TestNobodyIsAnsweredWhoHasLeft(t *testing.T) {
	h, log := inside()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w := httptest.NewRecorder()
	h.fail(w, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx), context.Canceled)
	if w.Body.Len() != 0 || log.Len() != 0 {
		t.Errorf("answered %q and logged %q, want neither", w.Body, log)
	}
}

func TestALongTextIsClippedBetweenItsLetters(t *testing.T) {
	got := clip(strings.Repeat("蔵", 100))
	if !strings.HasPrefix(got, "蔵") || !strings.HasSuffix(got, "蔵...") || len(got) > 125 {
		t.Errorf("clip = %q, want whole letters and at most 120 bytes of them", got)
	}
	if got := clip("\xff\xfe"); got != "\xff\xfe" {
		t.Errorf("clip of a short text = %q, want it as it is", got)
	}
}
