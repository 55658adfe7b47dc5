package api

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// retrier tries again what the server has surely not done: requests that found
// nobody listening or were turned away with 429 or 503. A connection that broke
// is tried again only where doing it twice is harmless.
type retrier struct {
	next http.RoundTripper
	max  int
}

const (
	firstWait = 250 * time.Millisecond
	longest   = 15 * time.Second
)

func (t *retrier) RoundTrip(r *http.Request) (*http.Response, error) {
	for try := 0; ; try++ {
		attempt := r
		if try > 0 && r.GetBody != nil {
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			attempt = r.Clone(r.Context())
			attempt.Body = body
		}
		resp, err := t.next.RoundTrip(attempt)
		if try >= t.max || !again(r, resp, err) || try > 0 && slow(err) {
			return resp, err
		}
		wait := pause(try, resp)
		if resp != nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection is used again
			_ = resp.Body.Close()
		}
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(wait):
		}
	}
}

// slow says whether a whole timeout has passed. Whoever hangs twice hangs on.
func slow(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func again(r *http.Request, resp *http.Response, err error) bool {
	if r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
		return false
	}
	switch {
	case err != nil && r.Context().Err() != nil:
		return false
	case errors.Is(err, syscall.ECONNREFUSED):
		return true
	case err != nil:
		return r.Method != http.MethodPost || r.Header.Get("Idempotency-Key") != ""
	}
	return resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
}

// pause doubles from try to try, half of it by chance so that many clients do
// not come back as one, unless the server names a time.
func pause(try int, resp *http.Response) time.Duration {
	if resp != nil {
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s >= 0 {
			return min(time.Duration(s)*time.Second, longest)
		}
	}
	d := min(firstWait<<min(try, 10), longest)
	return d/2 + rand.N(d/2)
}
