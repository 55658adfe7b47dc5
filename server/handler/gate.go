package handler

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/gorilla/mux"
	validator "github.com/oapi-codegen/nethttp-middleware"

	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// admit lets in who has a good token whose role may call the operation. An
// operation that the table of roles does not know is refused to everyone.
func (h *handler) admit(operations map[string]operation) mux.MiddlewareFunc {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, err := h.Auth.Authenticate(r.Context(), r)
			if err != nil {
				h.fail(w, r, err)
				return
			}
			visitOf(r.Context()).principal = token
			if op := operationOf(operations, r); !token.Role.May(op.id) {
				h.fail(w, r, backup.Errorf(backup.Forbidden, "", "Token %q has the role %s, which may not do this (%s).", token.Name, token.Role, op.id))
				return
			}
			next.ServeHTTP(w, r.WithContext(auth.With(r.Context(), token)))
		})
	}
}

// readBody takes the body in, which is small, and sees that what claims to be
// JSON can be read in one way only.
func (h *handler) readBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.Header().Set("Connection", "close") // rather than wait on
			h.badRequest(w, r, err)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // it is all there; the answer may take longer
		if len(body) > 0 && isJSON(r.Header.Get("Content-Type")) {
			if e := soundJSON(body); e != nil {
				h.fail(w, r, e)
				return
			}
		}
		visitOf(r.Context()).body = body
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		next.ServeHTTP(w, r)
	})
}

// isJSON takes a type that cannot be read for JSON, too: what is behind it may
// be less strict about the type than about the body.
func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err != nil || kind == "application/json"
}

// checkQuery refuses parameters that the contract does not know: a filter that
// is misspelt must not list everything.
func (h *handler) checkQuery(operations map[string]operation) mux.MiddlewareFunc {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			op := operationOf(operations, r)
			query, err := url.ParseQuery(r.URL.RawQuery)
			if err != nil {
				h.fail(w, r, backup.Errorf(backup.Invalid, "", "The query cannot be read: %s.", clip(err.Error())))
				return
			}
			for name := range query {
				if !op.queries[name] {
					h.fail(w, r, backup.Errorf(backup.Invalid, cmp.Or(clip(name), `""`), "There is no parameter %q here. %s", clip(name), known(op.queries)))
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	}
}

func known(queries map[string]bool) string {
	if len(queries) == 0 {
		return "This takes none."
	}
	var names []string
	for name := range queries {
		names = append(names, name)
	}
	slices.Sort(names)
	return "Known are " + strings.Join(names, ", ") + "."
}

// checkContract holds each request against the contract.
func (h *handler) checkContract(doc *openapi3.T) mux.MiddlewareFunc {
	return validator.OapiRequestValidatorWithOptions(doc, &validator.Options{
		Options: openapi3filter.Options{
			AuthenticationFunc:                openapi3filter.NoopAuthenticationFunc, // admit did that
			ExcludeReadOnlyValidations:        true,                                  // what was read may be sent back changed
			RejectWhenRequestBodyNotSpecified: true,
		},
		DiscardValidatedValue: true,
		ErrorHandlerWithOpts: func(_ context.Context, err error, w http.ResponseWriter, r *http.Request, _ validator.ErrorHandlerOpts) {
			h.fail(w, r, breach(err))
		},
	})
}
