// Package handler speaks HTTP: it lets requests in, turns the contract's types
// into the domain's and back, and errors into problems. It holds no rules and
// no SQL: changes go to the planner, reads to the store.
//
//	request id, log, panics, size -> route -> who may -> once only -> contract -> one file per noun
package handler

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/gorilla/mux"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Config is what the API is served with. Planner, Store, Auth, Tokens and
// Replies are required.
type Config struct {
	Planner Planner
	Store   backup.Store // what is read
	Auth    *auth.Authenticator
	Tokens  Tokens
	Replies Replies

	Version      string // of the program
	Installation string
	Profile      backup.RetentionProfile // "" = standard
	Now          func() time.Time        // nil = time.Now
	Log          *slog.Logger            // nil = slog.Default

	Ready   func(context.Context) error // nil = always
	Metrics http.Handler                // nil = no /metrics

	Poll      time.Duration // between two looks at a job that is followed; default 1 s
	Heartbeat time.Duration // of a stream of events; default 15 s
	Patience  time.Duration // with a caller who sends a request, or takes a piece of an answer; default 30 s
}

func (c Config) defaulted() Config {
	if c.Profile == "" {
		c.Profile = backup.ProfileStandard
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 15 * time.Second
	}
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	return c
}

// handler answers the operations of the contract; it is the generated code's
// [api.StrictServerInterface].
type handler struct {
	Config
}

// New returns the handler of everything that the server serves.
func New(c Config) (http.Handler, error) {
	h := &handler{Config: c.defaulted()}
	doc, err := api.GetSpec()
	if err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	return h.outer(h.router(doc)), nil
}

func (h *handler) router(doc *openapi3.T) *mux.Router {
	root := mux.NewRouter().SkipClean(true).UseEncodedPath()
	root.NotFoundHandler = http.HandlerFunc(h.notFound)
	root.MethodNotAllowedHandler = http.HandlerFunc(h.methodNotAllowed)
	root.HandleFunc("/healthz", h.healthz).Methods(http.MethodGet, http.MethodHead)
	root.HandleFunc("/readyz", h.readyz).Methods(http.MethodGet, http.MethodHead)
	root.HandleFunc("/openapi.yaml", serveContract).Methods(http.MethodGet, http.MethodHead)
	if h.Metrics != nil {
		root.Handle("/metrics", h.Metrics).Methods(http.MethodGet)
	}
	v1 := root.NewRoute().Subrouter()
	operations := operationsOf(doc)
	v1.Use(h.admit(operations), h.readBody, h.once(operations), h.checkQuery(operations), h.checkContract(doc))
	strict := api.NewStrictHandlerWithOptions(h, nil, api.StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  h.badRequest,
		ResponseErrorHandlerFunc: h.fail,
	})
	api.HandlerWithOptions(strict, api.GorillaServerOptions{BaseRouter: v1, ErrorHandlerFunc: h.badRequest})
	return root
}

// operation is what the middleware needs to know of an operation.
type operation struct {
	id      string
	queries map[string]bool
	once    bool // takes an Idempotency-Key that this room keeps
}

// operationsOf lists the contract's operations by method and path.
func operationsOf(doc *openapi3.T) map[string]operation {
	all := map[string]operation{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			o := operation{id: op.OperationID, queries: map[string]bool{}}
			for _, p := range op.Parameters {
				switch {
				case p.Value.In == openapi3.ParameterInQuery:
					o.queries[p.Value.Name] = true
				case p.Value.Name == "Idempotency-Key" && method == http.MethodPost && op.OperationID != "createRestore" && op.OperationID != "checkRestore":
					o.once = true // a restore's key is its own affair: see CreateRestore
				}
			}
			all[method+" "+path] = o
		}
	}
	return all
}

// operationOf is the operation that r was routed to.
func operationOf(operations map[string]operation, r *http.Request) operation {
	route := mux.CurrentRoute(r)
	if route == nil {
		return operation{}
	}
	path, err := route.GetPathTemplate()
	if err != nil {
		return operation{}
	}
	return operations[r.Method+" "+path]
}

func (h *handler) notFound(w http.ResponseWriter, r *http.Request) {
	h.fail(w, r, backup.Errorf(backup.NotFound, "", "There is nothing at %s. The contract is at /openapi.yaml.", clip(r.URL.Path)))
}

func (h *handler) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	e := backup.Errorf(backup.Invalid, "", "%s cannot be done to %s. The contract is at /openapi.yaml.", clip(r.Method), clip(r.URL.Path))
	h.write(w, r, e, http.StatusMethodNotAllowed)
}

func (h *handler) healthz(w http.ResponseWriter, _ *http.Request) {
	writeText(w, "ok\n")
}

// readyz says whether requests can be served, as load balancers ask it.
func (h *handler) readyz(w http.ResponseWriter, r *http.Request) {
	if h.Ready != nil {
		if err := h.Ready(r.Context()); err != nil {
			h.fail(w, r, backup.Errorf(backup.Unavailable, "", "The server is not ready.").Because(err))
			return
		}
	}
	writeText(w, "ready\n")
}

func serveContract(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(api.Spec) // the client has gone: nothing to be done
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text)) // the client has gone: nothing to be done
}
