package auth

import "context"

type principalKey struct{}

// With returns ctx with the token that the request was let in with.
func With(ctx context.Context, t Token) context.Context {
	return context.WithValue(ctx, principalKey{}, t)
}

// From returns the token of the request. Outside of one it has no role.
func From(ctx context.Context) Token {
	t, _ := ctx.Value(principalKey{}).(Token)
	return t
}
