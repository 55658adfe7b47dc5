package s3test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Road is the way to a storage, on which things go wrong.
type Road struct {
	Delay     atomic.Int64 // nanoseconds that an answer takes
	FailEvery atomic.Int64 // requests, of which the last fails; 0 = none does
	Hang      atomic.Bool  // nothing is answered any more
	Hanging   atomic.Int64 // requests that nobody answers
	Count     atomic.Int64 // requests
	Failed    atomic.Int64 // requests that failed

	mu    sync.Mutex // guards kinds
	kinds map[string]int
}

// Fails counts a request and says whether it is to fail.
func (r *Road) Fails() bool {
	n, every := r.Count.Add(1), r.FailEvery.Load()
	if every == 0 || n%every != 0 {
		return false
	}
	r.Failed.Add(1)
	return true
}

// Kinds counts the failures by what went wrong.
func (r *Road) Kinds() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]int{}
	for kind, n := range r.kinds {
		all[kind] = n
	}
	return all
}

func (r *Road) note(kind string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kinds == nil {
		r.kinds = map[string]int{}
	}
	r.kinds[kind]++
}

// faults are the ways in which a request fails, one after the other.
var faults = []string{"refused with 503", "cut off before it arrives", "refused with 500", "answer cut off"}

// toSocket passes requests on to a server that listens on a socket.
func toSocket(socket string) http.Handler {
	var d net.Dialer
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) }
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "storage", p.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
}

// NewFront is an HTTPS server that hands requests over to the storage behind
// it, or not, as the road is.
func NewFront(r *Road, storage http.Handler) *httptest.Server {
	return httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if r.Hang.Load() {
			r.Hanging.Add(1)
			defer r.Hanging.Add(-1)
			_, _ = io.Copy(io.Discard, q.Body) // only then is it seen that the client has gone
			<-q.Context().Done()
			return
		}
		if !waited(q, time.Duration(r.Delay.Load())) {
			return
		}
		if !r.Fails() {
			storage.ServeHTTP(w, q)
			return
		}
		kind := faults[int(r.Failed.Load())%len(faults)]
		r.note(kind)
		switch {
		case strings.HasSuffix(kind, "503"):
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasSuffix(kind, "500"):
			w.WriteHeader(http.StatusInternalServerError)
		case strings.HasPrefix(kind, "answer"): // the storage has done what it was asked for
			storage.ServeHTTP(&halved{ResponseWriter: w}, q)
			panic(http.ErrAbortHandler)
		default:
			panic(http.ErrAbortHandler)
		}
	}))
}

func waited(q *http.Request, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-q.Context().Done():
		return false
	}
}

// halved passes on the first half of an answer's first piece.
type halved struct {
	http.ResponseWriter
	cut bool
}

func (h *halved) Write(p []byte) (int, error) {
	if !h.cut {
		h.cut = true
		if _, err := h.ResponseWriter.Write(p[:len(p)/2]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Unwrap lets what is there so far be sent.
func (h *halved) Unwrap() http.ResponseWriter { return h.ResponseWriter }
