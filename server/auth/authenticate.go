package auth

import (
	"context"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Store keeps tokens.
type Store interface {
	// TokenByHash is the token of that hash, revoked and expired ones too.
	// Errors: backup.NotFound.
	TokenByHash(ctx context.Context, hash string) (Token, error)
	// TouchToken notes that the token, whose UsedAt tells the last time known, is used.
	TouchToken(ctx context.Context, t Token, now time.Time) error
}

// Config is what an [Authenticator] works with. Store is required.
type Config struct {
	Store Store
	Now   func() time.Time // nil = time.Now
	Log   *slog.Logger     // nil = slog.Default
}

// Authenticator finds out whose token a request carries. It remembers good
// tokens for some seconds; one that is revoked by this server is forgotten at
// once, one that is revoked by another within those seconds.
type Authenticator struct {
	store    Store
	now      func() time.Time
	log      *slog.Logger
	failures failures

	mu      sync.Mutex // guards what follows
	known   map[string]remembered
	forgets int // counts Forget, so that a look-up that began before one is not remembered
}

type remembered struct {
	token Token
	since time.Time
}

const (
	memory      = 5 * time.Second
	maxKnown    = 10_000
	touchEvery  = time.Minute
	maxTextSize = 256
)

// New returns an [Authenticator].
func New(c Config) *Authenticator {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Authenticator{store: c.Store, now: c.Now, log: c.Log, known: map[string]remembered{}}
}

// Authenticate returns the token that r carries. Errors: Unauthenticated;
// RateLimited after too many wrong tokens from one address, where a good token
// is still let in; Unavailable when the store does not answer.
func (a *Authenticator) Authenticate(ctx context.Context, r *http.Request) (Token, error) {
	if r.Header.Get("Authorization") == "" { // nothing was tried, so nothing is counted
		return Token{}, denied("A token is needed: send it in the header Authorization as a Bearer token.")
	}
	text, err := bearer(r)
	if err != nil {
		return Token{}, a.refuse(r, err)
	}
	hash := Hash(text)
	t, err := a.token(ctx, hash)
	switch {
	case backup.CodeOf(err) == backup.NotFound:
		return Token{}, a.refuse(r, denied("The token is not known here."))
	case err != nil:
		return Token{}, backup.Errorf(backup.Unavailable, "", "The token cannot be checked at the moment. Try again.").Because(err)
	case subtle.ConstantTimeCompare([]byte(t.Hash), []byte(hash)) != 1:
		return Token{}, a.refuse(r, denied("The token is not known here."))
	case !t.Valid(a.now()):
		return Token{}, a.refuse(r, denied("The token was revoked or has expired. Ask an operator for a new one."))
	}
	a.touch(ctx, t, hash)
	return t, nil
}

func denied(message string) *backup.Error {
	return backup.Errorf(backup.Unauthenticated, "", "%s", message)
}

func bearer(r *http.Request) (string, error) {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	text = strings.TrimSpace(text)
	if !strings.EqualFold(scheme, "Bearer") || !strings.HasPrefix(text, prefix) || len(text) > maxTextSize {
		return "", denied("The header Authorization holds no token of kura: write Bearer, a space and the token, which begins with " + prefix + ".")
	}
	return text, nil
}

// token asks the memory, then the store.
func (a *Authenticator) token(ctx context.Context, hash string) (Token, error) {
	a.mu.Lock()
	k, ok := a.known[hash]
	forgets := a.forgets
	a.mu.Unlock()
	if ok && a.now().Sub(k.since) < memory {
		return k.token, nil
	}
	t, err := a.store.TokenByHash(ctx, hash)
	if err == nil && t.Valid(a.now()) {
		a.remember(hash, t, forgets)
	}
	return t, err
}

func (a *Authenticator) remember(hash string, t Token, forgets int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.forgets != forgets {
		return
	}
	if len(a.known) >= maxKnown {
		clear(a.known)
	}
	a.known[hash] = remembered{token: t, since: a.now()}
}

// Forget makes the token of that id be looked up again: call it after a
// revocation.
func (a *Authenticator) Forget(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgets++
	for hash, k := range a.known {
		if k.token.ID == id {
			delete(a.known, hash)
		}
	}
}

// touch notes the use, to the minute. A failure is no reason to refuse.
func (a *Authenticator) touch(ctx context.Context, t Token, hash string) {
	now := a.now()
	if now.Sub(t.UsedAt) < touchEvery {
		return
	}
	a.mu.Lock()
	if k, ok := a.known[hash]; ok && k.token.ID == t.ID {
		k.token.UsedAt = now
		a.known[hash] = k
	}
	a.mu.Unlock()
	if err := a.store.TouchToken(ctx, t, now); err != nil {
		a.log.WarnContext(ctx, "token use not noted", "token", t.ID, "error", err)
	}
}

// refuse counts a failure of r's address and returns err, or that there were
// too many.
func (a *Authenticator) refuse(r *http.Request, err error) error {
	host, _, splitErr := net.SplitHostPort(r.RemoteAddr)
	if splitErr != nil {
		host = r.RemoteAddr
	}
	wait := a.failures.count(host, a.now())
	if wait == 0 {
		return err
	}
	e := backup.Errorf(backup.RateLimited, "", "Too many wrong tokens came from %s. Try again in %d seconds.", host, int(wait.Seconds()))
	e.RetryAfter = wait
	return e
}
