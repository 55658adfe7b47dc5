package backup

import "context"

// Request names the request that a change is made for, as its caller does with
// an Idempotency-Key.
type Request struct {
	Key  string
	Hash string // of what is asked for
}

type requestKey struct{}

// WithRequest returns a context for what is done for the request.
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestOf is the request that something is done for; ok says whether it has a
// key.
func RequestOf(ctx context.Context) (r Request, ok bool) {
	r, ok = ctx.Value(requestKey{}).(Request)
	return r, ok
}
