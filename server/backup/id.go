package backup

import (
	"crypto/rand"
	"log/slog"
	"time"
)

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// NewID returns a new identifier: 26 characters, the first ten of which are the
// time in milliseconds, so that ids sort by the time of their making.
func NewID(now time.Time) string {
	var b [26]byte
	ms := uint64(now.UnixMilli())
	for i := 9; i >= 0; i-- {
		b[i] = crockford[ms&31]
		ms >>= 5
	}
	var r [16]byte
	_, _ = rand.Read(r[:]) // never fails: the runtime ends the process instead
	for i := range r {
		b[10+i] = crockford[r[i]&31]
	}
	return string(b[:])
}

// Secret is text that must not be shown: logs, errors and JSON get "***".
type Secret string

// LogValue hides the secret from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// String hides the secret from fmt.
func (Secret) String() string { return "***" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "***" }

// MarshalJSON hides the secret from JSON.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }

// Reveal returns the text itself, for the one call that needs it.
func (s Secret) Reveal() string { return string(s) }

// Meta is what every stored object has.
type Meta struct {
	ID        string
	Project   string // "default"
	Version   int64  // counts changes from 1; the API's ETag
	CreatedAt time.Time
	UpdatedAt time.Time
}

// DefaultProject is the one project that exists for now.
const DefaultProject = "default"
