package api_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/gorilla/mux"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// The verbs stand behind the id without a slash, so that both routers must
// tell "{id}:run" from "{id}".
func TestBothRoutersFindEveryOperation(t *testing.T) {
	doc, err := api.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	validator, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	router := mux.NewRouter()
	api.HandlerFromMux(nil, router)
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			r := httptest.NewRequest(method, strings.ReplaceAll(path, "{id}", "01JDZK3Q8X4T9V2M6B7N5C1R0A"), nil)
			route, params, err := validator.FindRoute(r)
			if err != nil {
				t.Errorf("validator: %s %s: %v", method, path, err)
				continue
			}
			if route.Operation.OperationID != op.OperationID {
				t.Errorf("validator: %s %s is %s, want %s", method, path, route.Operation.OperationID, op.OperationID)
			}
			if id := params["id"]; strings.Contains(id, ":") {
				t.Errorf("validator: %s %s has id %q", method, path, id)
			}
			var m mux.RouteMatch
			if !router.Match(r, &m) || m.MatchErr != nil {
				t.Errorf("router: %s %s: no match (%v)", method, path, m.MatchErr)
				continue
			}
			if got, _ := m.Route.GetPathTemplate(); got != path {
				t.Errorf("router: %s %s is %s", method, path, got)
			}
			if id := m.Vars["id"]; strings.Contains(id, ":") {
				t.Errorf("router: %s %s has id %q", method, path, id)
			}
		}
	}
}
