// Package auth says who may call kura: bearer tokens, their roles and what a
// role may do. It keeps nothing: tokens are stored by the store room.
package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Role is what a token may do; default is deny.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"   // reads
	Backup   Role = "backup"   // reads; creates, changes and runs groups and schedules; deletes no image
	Restorer Role = "restorer" // reads and restores
	Operator Role = "operator" // everything
)

// Roles returns every role.
func Roles() []Role { return []Role{Viewer, Backup, Restorer, Operator} }

// Token is a bearer token as it is stored: its text is not kept.
type Token struct {
	ID        string
	Project   string
	Name      string
	Role      Role
	Hash      string // hex SHA-256 of the text
	CreatedAt time.Time
	ExpiresAt time.Time // zero = never
	UsedAt    time.Time // to the minute or coarser; zero = never
	RevokedAt time.Time // zero = not revoked
}

// Valid says whether the token opens anything at now.
func (t Token) Valid(now time.Time) bool {
	return t.RevokedAt.IsZero() && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt))
}

// prefix lets secret scanners find tokens.
const prefix = "kura_"

// NewText returns the text of a new token: 256 random bits.
func NewText() backup.Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: the runtime ends the process instead
	return backup.Secret(prefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])))
}

// Hash returns the form in which a token's text is stored and looked up.
func Hash(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}
