package api

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
)

// Error is the problem in one line, so that a *Problem is an error.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}

// Answer is what every ...WithResponse call of the client returns.
type Answer interface {
	StatusCode() int
	GetApplicationProblemJSONDefault() *Problem
}

// Err returns why a call did not do what it should: err itself, or the
// server's *[Problem]; nil when it did.
func Err(a Answer, err error) error {
	if err != nil {
		return err
	}
	status := a.StatusCode()
	if status < http.StatusBadRequest {
		return page(a)
	}
	if p := a.GetApplicationProblemJSONDefault(); p != nil && p.Code != "" {
		return p
	}
	return &Problem{
		Type: "about:blank", Title: cmp.Or(http.StatusText(status), "Unknown status"), Status: status, Code: foreign(status),
		Detail: fmt.Sprintf("The answer was %d %s and came from no kura server. Check the endpoint and what stands before it.", status, http.StatusText(status)),
	}
}

// page is the error of an answer that is a web page: the server's never are.
func page(a Answer) error {
	b, ok := a.(interface{ GetBody() []byte })
	if !ok || !bytes.HasPrefix(bytes.TrimSpace(b.GetBody()), []byte("<")) {
		return nil
	}
	return &Problem{
		Type: "about:blank", Title: "No Kura server", Status: a.StatusCode(), Code: ErrorCodeUnavailable,
		Detail: "The answer was a web page and came from no kura server. Check the endpoint and what stands before it.",
	}
}

// foreign is the nearest code for an answer of a proxy.
func foreign(status int) ErrorCode {
	switch status {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return ErrorCodeUnauthenticated
	case http.StatusForbidden:
		return ErrorCodeForbidden
	case http.StatusRequestEntityTooLarge:
		return ErrorCodeTooLarge
	case http.StatusTooManyRequests:
		return ErrorCodeRateLimited
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return ErrorCodeUnavailable
	}
	return ErrorCodeInternal
}

// CodeOf returns the code of the [Problem] in err's chain, "" when there is none.
func CodeOf(err error) ErrorCode {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p.Code
	}
	return ""
}

// Unreachable says whether err means that no answer came at all.
func Unreachable(err error) bool {
	_, ok := errors.AsType[*url.Error](err)
	return ok
}

// All yields the items of all pages. page gets the cursor, "" first, and
// returns the page's items and the cursor of the next one.
func All[T any](page func(cursor string) ([]T, string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for cursor := ""; ; {
			items, next, err := page(cursor)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			cursor = next
		}
	}
}
