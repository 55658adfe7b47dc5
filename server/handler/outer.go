package handler

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// maxBody is the most that a request may hold.
const maxBody = 1 << 20

type visitKey struct{}

// visit is what is known of a request from its first moment on.
type visit struct {
	id        string
	principal auth.Token // once it is let in; for the log
	body      []byte     // once it is read
}

func visitOf(ctx context.Context) *visit {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		return v
	}
	return &visit{}
}

var callersID = regexp.MustCompile(`^[A-Za-z0-9._-]{8,64}$`)

// outer stands around everything, routed or not: it gives the request its id,
// logs it, catches panics and bounds its size.
func (h *handler) outer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		start := h.Now()
		v := &visit{id: r.Header.Get("X-Request-Id")}
		if !callersID.MatchString(v.id) {
			v.id = backup.NewID(start)
		}
		r = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
		w := &recorder{ResponseWriter: out, patience: h.Patience}
		harden(w.Header(), r)
		w.await(h.Patience)
		w.Header().Set("X-Request-Id", v.id)
		defer h.finish(w, r, v, start)
		if r.ContentLength > maxBody {
			w.Header().Set("Connection", "close") // rather than read on
			h.fail(w, r, tooLarge())
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

// finish ends a request: a panic becomes an answer, and the log gets its line.
func (h *handler) finish(w *recorder, r *http.Request, v *visit, start time.Time) {
	defer w.hurry(0) // the next request of the connection has its own time
	if p := recover(); p != nil {
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		h.Log.ErrorContext(r.Context(), "panic", "request_id", v.id, "panic", p, "stack", string(debug.Stack()))
		if w.status == 0 {
			h.write(w, r, backup.Errorf(backup.Internal, "", "%s", internalDetail), http.StatusInternalServerError)
		}
	}
	level := slog.LevelInfo
	if !strings.HasPrefix(r.URL.Path, "/v1/") && w.status < http.StatusBadRequest {
		level = slog.LevelDebug // probes come every few seconds
	}
	h.Log.Log(r.Context(), level, "request", "method", clip(r.Method), "path", clip(r.URL.Path), "status", w.status,
		"bytes", w.bytes, "took", h.Now().Sub(start), "request_id", v.id, "client", r.RemoteAddr,
		"token", v.principal.Name, "agent", clip(r.UserAgent()))
}

// harden sets the headers that keep a browser from doing more than it should.
func harden(head http.Header, r *http.Request) {
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Frame-Options", "DENY")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	head.Set("Cache-Control", "no-store")
	if r.TLS != nil {
		head.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

func tooLarge() *backup.Error {
	return backup.Errorf(backup.TooLarge, "", "The request holds more than %d bytes, which no object of kura needs.", maxBody)
}

// recorder notes what became of an answer, and ends one that nobody takes.
type recorder struct {
	http.ResponseWriter
	patience time.Duration // with each piece of it
	status   int
	bytes    int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.hurry(w.patience)
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.hurry(w.patience)
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// await gives the rest of the request that time to arrive; 0 = any. A
// connection without deadlines is one of a test.
func (w *recorder) await(d time.Duration) {
	_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(deadline(d))
}

// hurry gives the caller that time to take what is written next; 0 = any.
func (w *recorder) hurry(d time.Duration) {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(deadline(d))
}

// deadline is one of a connection, which knows no clock but the machine's.
func deadline(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
