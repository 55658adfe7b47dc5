package nbd

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is the reason of what was cut off by Close.
	ErrClosed = errors.New("the connection was closed")
	// ErrStall means that the server did not answer in time.
	ErrStall = errors.New("no answer in time")
	// ErrProtocol means that the server sent what the protocol does not allow.
	ErrProtocol = errors.New("the server breaks the protocol")
)

// Error is a request that the server refused. The connection lives on.
type Error struct {
	Op      string // such as "read"
	Off, N  int64
	Code    Code
	Message string // of the server; mostly ""
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s of %d bytes at %d: %s", e.Op, e.N, e.Off, e.Code)
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Code is the protocol's number of an error.
type Code uint32

// The codes that the protocol knows.
const (
	NotPermitted Code = 1
	InputOutput  Code = 5
	NoMemory     Code = 12
	InvalidValue Code = 22
	NoSpace      Code = 28
	Overflow     Code = 75
	NotSupported Code = 95
	ShuttingDown Code = 108
)

// String says what the code means.
func (c Code) String() string {
	switch c {
	case NotPermitted:
		return "not permitted"
	case InputOutput:
		return "input/output error"
	case NoMemory:
		return "no memory"
	case InvalidValue:
		return "invalid request"
	case NoSpace:
		return "no space"
	case Overflow:
		return "too large"
	case NotSupported:
		return "not supported"
	case ShuttingDown:
		return "server is shutting down"
	}
	return fmt.Sprintf("error %d", uint32(c))
}

// violation is an error that wraps [ErrProtocol].
func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
