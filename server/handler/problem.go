package handler

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// meaning is how a code is told over HTTP.
type meaning struct {
	status int
	title  string // six words at most
}

// meanings holds every code of the domain; a test sees to that.
var meanings = map[backup.Code]meaning{
	backup.Internal:              {http.StatusInternalServerError, "Internal error"},
	backup.Invalid:               {http.StatusBadRequest, "Invalid request"},
	backup.Unauthenticated:       {http.StatusUnauthorized, "No valid token"},
	backup.Forbidden:             {http.StatusForbidden, "Not allowed"},
	backup.NotFound:              {http.StatusNotFound, "Not found"},
	backup.Conflict:              {http.StatusConflict, "Conflict"},
	backup.Stale:                 {http.StatusPreconditionFailed, "Changed by someone else"},
	backup.SlotFull:              {http.StatusConflict, "Timeslot is full"},
	backup.SlotClosed:            {http.StatusConflict, "Timeslot is closed"},
	backup.ExceedsCapacity:       {http.StatusUnprocessableEntity, "More than the capacity"},
	backup.InUse:                 {http.StatusConflict, "In use"},
	backup.Locked:                {http.StatusLocked, "Locked"},
	backup.VMGone:                {http.StatusConflict, "Virtual machine is gone"},
	backup.VMBusy:                {http.StatusConflict, "Virtual machine is busy"},
	backup.VMRunning:             {http.StatusConflict, "Virtual machine is running"},
	backup.PreflightFailed:       {http.StatusUnprocessableEntity, "Pre-flight check failed"},
	backup.Unprotectable:         {http.StatusUnprocessableEntity, "Cannot be protected"},
	backup.NoSpace:               {http.StatusInsufficientStorage, "Not enough space"},
	backup.VCenterUnreachable:    {http.StatusBadGateway, "vCenter cannot be reached"},
	backup.VCenterDenied:         {http.StatusUnprocessableEntity, "vCenter refused the access"},
	backup.RepositoryUnreachable: {http.StatusBadGateway, "Repository cannot be reached"},
	backup.RepositoryDamaged:     {http.StatusUnprocessableEntity, "Repository or image is damaged"},
	backup.TooLarge:              {http.StatusRequestEntityTooLarge, "Request too large"},
	backup.RateLimited:           {http.StatusTooManyRequests, "Too many requests"},
	backup.Unavailable:           {http.StatusServiceUnavailable, "Not available now"},
}

const internalDetail = "Something went wrong on the server. Its log tells what, under the request id."

// fail answers err. It is the only place where errors become answers.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody listens any more
	}
	e := backup.AsError(err)
	if e == nil || e.Code == backup.Internal {
		h.Log.ErrorContext(r.Context(), "request failed", "request_id", visitOf(r.Context()).id, "method", r.Method, "path", clip(r.URL.Path), "error", err)
		e = backup.Errorf(backup.Internal, "", "%s", internalDetail)
	} else if e.Err != nil {
		h.Log.WarnContext(r.Context(), "request refused", "request_id", visitOf(r.Context()).id, "code", e.Code, "error", err)
	}
	status := meanings[e.Code].status
	if e.Code == backup.NotFound && e.Field != "" {
		status = http.StatusUnprocessableEntity // the path is there; what the input names is not
	}
	h.write(w, r, e, status)
}

func (h *handler) write(w http.ResponseWriter, r *http.Request, e *backup.Error, status int) {
	p := api.Problem{
		Type: "urn:kura:problem:" + string(e.Code), Title: meanings[e.Code].title, Status: status, Detail: e.Message,
		Code: api.ErrorCode(e.Code), Field: e.Field, RequestID: visitOf(r.Context()).id,
	}
	for _, rec := range e.Recommendations {
		p.Recommendations = append(p.Recommendations, recommendationOf(rec))
	}
	head := w.Header()
	head.Set("Content-Type", "application/problem+json")
	if status == http.StatusUnauthorized {
		head.Set("WWW-Authenticate", `Bearer realm="kura"`)
	}
	if e.RetryAfter > 0 {
		head.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	} else if e.Code == backup.Unavailable {
		head.Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	_ = json.NewEncoder(w).Encode(p) // the client has gone: nothing to be done
}

// badRequest answers what the generated code could not make sense of.
func (h *handler) badRequest(w http.ResponseWriter, r *http.Request, err error) {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		h.fail(w, r, tooLarge())
		return
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// Not by fail: the request's context has ended with it, and yet somebody listens.
		h.write(w, r, backup.Errorf(backup.Invalid, "", "The request was not whole after %s.", h.Patience), http.StatusBadRequest)
		return
	}
	e := backup.Errorf(backup.Invalid, "", "The request cannot be read: %s.", clip(err.Error()))
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && t.Field != "" {
		e = backup.Errorf(backup.Invalid, t.Field, "%s cannot hold the %s.", t.Field, clip(t.Value))
	}
	if p, ok := errors.AsType[*time.ParseError](err); ok { // the contract's own check lets days pass that do not exist
		field := placeOf(visitOf(r.Context()).body, p.Value)
		e = backup.Errorf(backup.Invalid, field, "%s must be a time as in 2026-12-01T02:00:00+09:00, got %q.", field, clip(p.Value))
	}
	if p, ok := errors.AsType[*api.InvalidParamFormatError](err); ok {
		e = backup.Errorf(backup.Invalid, p.ParamName, "%s has the wrong form.", p.ParamName)
	}
	if p, ok := errors.AsType[*api.TooManyValuesForParamError](err); ok {
		e = backup.Errorf(backup.Invalid, p.ParamName, "%s is there %d times. Send it once.", p.ParamName, p.Count)
	}
	h.fail(w, r, e)
}

// clip bounds text that a caller chose.
func clip(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
