package backup

import (
	"errors"
	"fmt"
	"time"
)

// Code tells a caller what kind of failure an [Error] is. Codes are part of
// the API's contract: add, never rename.
type Code string

// The codes. An error that carries none is [Internal].
const (
	Internal              Code = "internal"
	Invalid               Code = "invalid"
	Unauthenticated       Code = "unauthenticated"
	Forbidden             Code = "forbidden"
	NotFound              Code = "not_found"
	Conflict              Code = "conflict"
	Stale                 Code = "stale"
	SlotFull              Code = "slot_full"
	SlotClosed            Code = "slot_closed"
	ExceedsCapacity       Code = "exceeds_capacity"
	InUse                 Code = "in_use"
	Locked                Code = "locked"
	VMGone                Code = "vm_gone"
	VMBusy                Code = "vm_busy"
	VMRunning             Code = "vm_running"
	PreflightFailed       Code = "preflight_failed"
	Unprotectable         Code = "unprotectable"
	NoSpace               Code = "no_space"
	VCenterUnreachable    Code = "vcenter_unreachable"
	VCenterDenied         Code = "vcenter_denied"
	RepositoryUnreachable Code = "repository_unreachable"
	RepositoryDamaged     Code = "repository_damaged"
	TooLarge              Code = "too_large"
	RateLimited           Code = "rate_limited"
	Unavailable           Code = "unavailable"
)

// Codes returns every code, for tests that map them all.
func Codes() []Code {
	return []Code{Internal, Invalid, Unauthenticated, Forbidden, NotFound, Conflict, Stale, SlotFull, SlotClosed,
		ExceedsCapacity, InUse, Locked, VMGone, VMBusy, VMRunning, PreflightFailed, Unprotectable, NoSpace,
		VCenterUnreachable, VCenterDenied, RepositoryUnreachable, RepositoryDamaged, TooLarge, RateLimited, Unavailable}
}

// Error is a failure that someone can act on. Message is one or more sentences
// for the user and holds no internals; the cause goes into Err, for the log.
type Error struct {
	Code            Code
	Field           string // input at fault as a path of JSON names, such as "weekly.days_of_week"; "" if none
	Message         string
	Recommendations []Recommendation // for SlotFull: what can be booked instead, best first
	RetryAfter      time.Duration    // for RateLimited and Unavailable: when to try again; 0 = unknown
	Err             error            // cause, for the log only
}

// Errorf returns an [Error] with a formatted message.
func Errorf(code Code, field, format string, args ...any) *Error {
	return &Error{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

// Because returns e with err as its cause.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Err }

// AsError returns the first [Error] in err's chain, or nil.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return nil
}

// CodeOf returns the code of the first [Error] in err's chain, [Internal] if
// there is none and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e := AsError(err); e != nil {
		return e.Code
	}
	return Internal
}

// Transient says whether trying again later may help: the fault lies with a
// peer or with load, not with what was asked for. A job that fails so is
// retried with back-off (seed N44, A53).
func (c Code) Transient() bool {
	switch c {
	case Internal, VMBusy, NoSpace, VCenterUnreachable, RepositoryUnreachable, RateLimited, Unavailable:
		return true
	}
	return false
}
