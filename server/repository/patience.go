package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
)

// patience says how long a request to a remote storage is tried.
type patience struct {
	tries int           // at least so often,
	total time.Duration // and for so long
	wait  time.Duration // after the first failure; doubles with each, up to most
	most  time.Duration
	quiet time.Duration // a try is given up when nothing has moved for so long
}

func defaultPatience() patience {
	return patience{tries: 3, total: time.Minute, wait: 200 * time.Millisecond, most: 10 * time.Second, quiet: time.Minute}
}

// try is one try of a request. It calls alive whenever bytes have moved.
type try func(ctx context.Context, alive func()) error

// do tries until it succeeds, cannot succeed, or has been tried long enough.
// Waits differ by chance, so that many workers do not return at once.
func (p patience) do(ctx context.Context, what string, one try) error {
	wait, begin := p.wait, time.Now()
	for n := 1; ; n++ {
		err := p.once(ctx, one)
		if err == nil || lasting(err) || ctx.Err() != nil {
			return err
		}
		if n >= p.tries && time.Since(begin) >= p.total {
			return fmt.Errorf("%s, tried %d times: %w", what, n, hard(err))
		}
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			t.Stop()
			return errors.Join(ctx.Err(), err)
		case <-t.C:
		}
		wait = min(2*wait, p.most)
	}
}

func (p patience) once(ctx context.Context, one try) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(p.quiet, func() { cancel(errTooSlow) })
	defer quiet.Stop()
	err := one(ctx, func() { quiet.Reset(p.quiet) })
	if err != nil && errors.Is(context.Cause(ctx), errTooSlow) {
		return errors.Join(errTooSlow, ownEnd{err})
	}
	return err
}

var errTooSlow = errors.New("the storage did not answer in time")

// ownEnd keeps the end of a try from looking like the caller's.
type ownEnd struct{ error }

// movingReader and movingWriter tell that bytes have moved.
type (
	movingReader struct {
		io.Reader
		alive func()
	}
	movingWriter struct {
		io.Writer
		alive func()
	}
)

func (r movingReader) Read(p []byte) (int, error) {
	r.alive()
	return r.Reader.Read(p)
}

func (w movingWriter) Write(p []byte) (int, error) {
	w.alive()
	return w.Writer.Write(p)
}

// trouble is a failure of a remote storage with a reason for users.
type trouble struct {
	reason string // ends a sentence: "it denies access"
	lasts  bool   // trying again does not help
	err    error
}

func (t *trouble) Error() string { return t.reason + ": " + t.err.Error() }

func (t *trouble) Unwrap() error { return t.err }

// hard makes of an error that did not go away one that users are told of.
func hard(err error) error {
	var t *trouble
	if errors.As(err, &t) || isFull(err) {
		return err
	}
	return &trouble{reason: "it does not answer", err: err}
}

// lasting says whether trying again is of no use.
func lasting(err error) bool {
	for _, known := range []error{
		blob.ErrBlobNotFound, blob.ErrInvalidRange, blob.ErrSetTimeUnsupported, blob.ErrUnsupportedPutBlobOption,
		blob.ErrBlobAlreadyExists, blob.ErrInvalidCredentials, blob.ErrUnsupportedObjectLock,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	var t *trouble
	return errors.As(err, &t) && t.lasts || isFull(err)
}

// calls counts the requests to a storage by their kinds, tries included.
type calls struct {
	mu sync.Mutex // guards n
	n  map[string]int64
}

func (c *calls) add(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int64{}
	}
	c.n[kind]++
}

func (c *calls) all() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// Requests tells how many requests of each kind were sent to the storage of a
// repository, by its record's id, since this process began. Storages of others
// are paid by the request.
func (rs *Repositories) Requests(id string) map[string]int64 { return rs.callsOf(id).all() }

func (rs *Repositories) callsOf(id string) *calls {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.calls[id] == nil {
		rs.calls[id] = &calls{}
	}
	return rs.calls[id]
}
