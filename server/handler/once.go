package handler

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/gorilla/mux"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// maxKey is the longest Idempotency-Key that the contract allows.
const maxKey = 255

// once answers a repeated request, known by its Idempotency-Key, as the first
// one was answered. Only what succeeded is kept: a refusal may end.
func (h *handler) once(operations map[string]operation) mux.MiddlewareFunc {
	running := &keys{held: map[string]*heldKey{}}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key := r.Header.Get("Idempotency-Key")
			if key == "" || len(key) > maxKey || !operationOf(operations, r).once {
				next.ServeHTTP(w, r)
				return
			}
			release := running.hold(key) // so that a repetition waits for the first one
			defer release()
			h.serveOnce(w, r, key, next)
		})
	}
}

func (h *handler) serveOnce(w http.ResponseWriter, r *http.Request, key string, next http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		h.badRequest(w, r, err)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s\n%s", r.Method, r.URL.RequestURI(), body)
	hash := hex.EncodeToString(sum.Sum(nil))

	status, kept, found, err := h.Replies.IdempotentResponse(r.Context(), backup.DefaultProject, key, hash)
	switch {
	case err != nil:
		h.fail(w, r, err)
		return
	case found:
		if err := replay(w, status, kept); err != nil {
			h.fail(w, r, err)
		}
		return
	}
	c := &copier{ResponseWriter: w}
	next.ServeHTTP(c, r.WithContext(backup.WithRequest(r.Context(), backup.Request{Key: key, Hash: hash})))
	if c.status < 200 || c.status > 299 {
		return
	}
	failpoint.Hit("idempotency.done")
	kept, err = json.Marshal(reply{ETag: w.Header().Get("ETag"), Location: w.Header().Get("Location"), Body: c.body.Bytes()})
	if err == nil {
		err = h.Replies.SaveIdempotent(r.Context(), backup.DefaultProject, key, hash, c.status, kept)
	}
	if err != nil { // the caller has its answer; only a repetition would not get it again
		h.Log.ErrorContext(r.Context(), "answer not kept", "request_id", visitOf(r.Context()).id, "error", err)
	}
}

// reply is an answer as it is kept.
type reply struct {
	ETag     string `json:"etag,omitempty"`
	Location string `json:"location,omitempty"`
	Body     []byte `json:"body"`
}

func replay(w http.ResponseWriter, status int, kept []byte) error {
	var a reply
	if err := json.Unmarshal(kept, &a); err != nil {
		return fmt.Errorf("kept answer: %w", err)
	}
	head := w.Header()
	head.Set("Content-Type", "application/json")
	head.Set("Idempotency-Replayed", "true")
	if a.ETag != "" {
		head.Set("ETag", a.ETag)
	}
	if a.Location != "" {
		head.Set("Location", a.Location)
	}
	w.WriteHeader(status)
	_, _ = w.Write(a.Body) // the client has gone: nothing to be done
	return nil
}

// copier keeps a copy of an answer.
type copier struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (c *copier) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *copier) Write(b []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	n, err := c.ResponseWriter.Write(b)
	c.body.Write(b[:n])
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (c *copier) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// keys are locks by name, each there for as long as someone holds it or waits
// for it.
type keys struct {
	mu   sync.Mutex // guards held
	held map[string]*heldKey
}

type heldKey struct {
	mu    sync.Mutex
	users int // guarded by keys.mu
}

func (k *keys) hold(name string) (release func()) {
	k.mu.Lock()
	l := k.held[name]
	if l == nil {
		l = &heldKey{}
		k.held[name] = l
	}
	l.users++
	k.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, name)
		}
	}
}
