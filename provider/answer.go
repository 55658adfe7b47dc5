package provider

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// found returns the object of an answer 200, or why there is none.
func found[T any](a interface {
	api.Answer
	GetJSON200() *T
}, err error) (T, error) {
	var none T
	if err := api.Err(a, err); err != nil {
		return none, err
	}
	if v := a.GetJSON200(); v != nil {
		return *v, nil
	}
	return none, foreign(a)
}

// made returns the object of an answer 201, or why there is none.
func made[T any](a interface {
	api.Answer
	GetJSON201() *T
}, err error) (T, error) {
	var none T
	if err := api.Err(a, err); err != nil {
		return none, err
	}
	if v := a.GetJSON201(); v != nil {
		return *v, nil
	}
	return none, foreign(a)
}

// gone returns nil when the object is no longer there, however it went.
func gone(a api.Answer, err error) error {
	if err = api.Err(a, err); missing(err) {
		return nil
	}
	return err
}

// missing says whether the object that was asked for does not exist. What an
// input names and does not exist has the same code, but another status.
func missing(err error) bool {
	p, ok := errors.AsType[*api.Problem](err)
	return ok && p.Code == api.ErrorCodeNotFound && p.Status == http.StatusNotFound
}

// gone404 is what missing recognizes, for objects that are looked for in a list.
var gone404 = &api.Problem{Code: api.ErrorCodeNotFound, Status: http.StatusNotFound}

func foreign(a api.Answer) error {
	return fmt.Errorf("status %d without an object: this is no answer of a Kura server", a.StatusCode())
}
