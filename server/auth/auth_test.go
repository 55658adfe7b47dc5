package auth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// tokens is a store in memory.
type tokens struct {
	mu      sync.Mutex // guards what follows
	byHash  map[string]auth.Token
	lookups int
	touched []time.Time
	err     error
}

func (s *tokens) TokenByHash(_ context.Context, hash string) (auth.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	if s.err != nil {
		return auth.Token{}, s.err
	}
	t, ok := s.byHash[hash]
	if !ok {
		return auth.Token{}, backup.Errorf(backup.NotFound, "", "No such token.")
	}
	return t, nil
}

func (s *tokens) TouchToken(_ context.Context, _ auth.Token, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched = append(s.touched, at)
	return nil
}

func (s *tokens) change(text backup.Secret, f func(*auth.Token)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byHash[auth.Hash(text.Reveal())]
	f(&t)
	s.byHash[t.Hash] = t
}

type clock struct {
	mu  sync.Mutex // guards now
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func fixture() (*auth.Authenticator, *tokens, backup.Secret, *clock) {
	text := auth.NewText()
	s := &tokens{byHash: map[string]auth.Token{auth.Hash(text.Reveal()): {ID: "T1", Name: "ci", Role: auth.Backup, Hash: auth.Hash(text.Reveal())}}}
	c := &clock{now: time.Date(2026, 12, 1, 2, 0, 0, 0, time.UTC)}
	return auth.New(auth.Config{Store: s, Now: c.Now}), s, text, c
}

func request(header string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v1/server", nil)
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	return r
}

func TestEveryOperationHasItsRolesAsTheContractSays(t *testing.T) {
	doc, err := api.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			n++
			list, ok := op.Extensions["x-roles"].([]any)
			if !ok || len(list) == 0 {
				t.Errorf("%s %s names no roles", method, path)
				continue
			}
			for _, role := range auth.Roles() {
				want := slices.Contains(list, any(string(role)))
				if got := role.May(op.OperationID); got != want {
					t.Errorf("%s.May(%q) = %t, want %t as the contract says", role, op.OperationID, got, want)
				}
			}
			if method == http.MethodDelete && auth.Backup.May(op.OperationID) {
				t.Errorf("role backup may call %s, want it to delete nothing", op.OperationID)
			}
			if method != http.MethodGet && auth.Viewer.May(op.OperationID) && op.OperationID != "checkBackupSchedule" && op.OperationID != "checkRestore" {
				t.Errorf("role viewer may call %s, want it to read only", op.OperationID)
			}
		}
	}
	if n == 0 {
		t.Fatal("the contract has no operations")
	}
	if auth.Operator.May("noSuchOperation") || auth.Role("root").May("getServer") {
		t.Error("an unknown operation or role is let in, want denied")
	}
}

func TestAJobIsCancelledByWhoMayStartIt(t *testing.T) {
	for _, c := range []struct {
		role auth.Role
		kind string
		want bool
	}{
		{auth.Operator, "delete", true}, {auth.Backup, "backup", true}, {auth.Backup, "restore", false}, {auth.Backup, "delete", false},
		{auth.Restorer, "restore", true}, {auth.Restorer, "backup", false}, {auth.Restorer, "sync", true}, {auth.Viewer, "backup", false},
	} {
		if got := c.role.MayCancel(c.kind); got != c.want {
			t.Errorf("%s.MayCancel(%q) = %t, want %t", c.role, c.kind, got, c.want)
		}
	}
}

func TestOnlyAGoodTokenIsLetIn(t *testing.T) {
	a, s, text, c := fixture()
	ctx := context.Background()
	other := auth.NewText()
	for name, head := range map[string]string{
		"no header":          "",
		"another scheme":     "Basic " + text.Reveal(),
		"no prefix":          "Bearer 1234",
		"an unknown token":   "Bearer " + other.Reveal(),
		"the scheme alone":   "Bearer",
		"a token too long":   "Bearer kura_" + string(make([]byte, 300)),
		"the token's hash":   "Bearer " + auth.Hash(text.Reveal()),
		"two tokens at once": "Bearer " + text.Reveal() + " " + text.Reveal(),
	} {
		if _, err := a.Authenticate(ctx, request(head)); backup.CodeOf(err) != backup.Unauthenticated {
			t.Errorf("%s: code = %q, want unauthenticated", name, backup.CodeOf(err))
		}
	}
	got, err := a.Authenticate(ctx, request("bearer "+text.Reveal()))
	if err != nil || got.ID != "T1" {
		t.Fatalf("good token = %q, %v, want T1", got.ID, err)
	}
	s.change(text, func(t *auth.Token) { t.ExpiresAt = c.Now().Add(time.Hour) })
	c.pass(time.Hour)
	if _, err := a.Authenticate(ctx, request("Bearer "+text.Reveal())); backup.CodeOf(err) != backup.Unauthenticated {
		t.Errorf("expired token: code = %q, want unauthenticated", backup.CodeOf(err))
	}
}

func TestARevokedTokenOpensNothingAtOnceHereAndSoonElsewhere(t *testing.T) {
	a, s, text, c := fixture()
	ctx, r := context.Background(), request("Bearer "+text.Reveal())
	for range 3 {
		if _, err := a.Authenticate(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if s.lookups != 1 {
		t.Errorf("look-ups = %d, want 1: the token is remembered", s.lookups)
	}
	s.change(text, func(t *auth.Token) { t.RevokedAt = c.Now() })
	c.pass(10 * time.Second)
	if _, err := a.Authenticate(ctx, r); backup.CodeOf(err) != backup.Unauthenticated {
		t.Errorf("ten seconds after a revocation elsewhere: code = %q, want unauthenticated", backup.CodeOf(err))
	}
	s.change(text, func(t *auth.Token) { t.RevokedAt = time.Time{} })
	if _, err := a.Authenticate(ctx, r); err != nil {
		t.Fatal(err)
	}
	s.change(text, func(t *auth.Token) { t.RevokedAt = c.Now() })
	a.Forget("T1")
	if _, err := a.Authenticate(ctx, r); backup.CodeOf(err) != backup.Unauthenticated {
		t.Errorf("right after a revocation here: code = %q, want unauthenticated", backup.CodeOf(err))
	}
}

func TestUseIsNotedOnceAMinute(t *testing.T) {
	a, s, text, c := fixture()
	for range 12 {
		if _, err := a.Authenticate(context.Background(), request("Bearer "+text.Reveal())); err != nil {
			t.Fatal(err)
		}
		c.pass(4 * time.Second)
		s.change(text, func(t *auth.Token) { t.UsedAt = s.touched[len(s.touched)-1] })
	}
	if len(s.touched) != 1 {
		t.Errorf("noted %d times in 48 s, want 1", len(s.touched))
	}
}

func TestWrongTokensAreSlowedDownAndGoodOnesAreNot(t *testing.T) {
	a, _, text, c := fixture()
	ctx := context.Background()
	wrong := request("Bearer " + auth.NewText().Reveal())
	var err error
	n := 0
	for ; n < 100 && backup.CodeOf(err) != backup.RateLimited; n++ {
		_, err = a.Authenticate(ctx, wrong)
	}
	if n != 21 {
		t.Fatalf("rate limited at failure %d, want 21", n)
	}
	if e := backup.AsError(err); e.RetryAfter <= 0 {
		t.Errorf("retry after = %s, want more than 0", e.RetryAfter)
	}
	if _, err := a.Authenticate(ctx, request("Bearer "+text.Reveal())); err != nil {
		t.Errorf("good token from the same address: %v, want let in", err)
	}
	for range 50 {
		if _, err := a.Authenticate(ctx, request("")); backup.CodeOf(err) != backup.Unauthenticated {
			t.Fatalf("no token at all: code = %q, want unauthenticated: nothing was guessed", backup.CodeOf(err))
		}
	}
	elsewhere := request("Bearer kura_wrong")
	elsewhere.RemoteAddr = "198.51.100.7:1234"
	if _, err := a.Authenticate(ctx, elsewhere); backup.CodeOf(err) != backup.Unauthenticated {
		t.Errorf("another address: code = %q, want unauthenticated", backup.CodeOf(err))
	}
	c.pass(5 * time.Second)
	if _, err := a.Authenticate(ctx, wrong); backup.CodeOf(err) != backup.Unauthenticated {
		t.Errorf("after waiting: code = %q, want unauthenticated", backup.CodeOf(err))
	}
}

func TestAStoreThatDoesNotAnswerIsNoWrongToken(t *testing.T) {
	a, s, text, _ := fixture()
	s.err = errors.New("connection refused")
	if _, err := a.Authenticate(context.Background(), request("Bearer "+text.Reveal())); backup.CodeOf(err) != backup.Unavailable {
		t.Errorf("code = %q, want unavailable", backup.CodeOf(err))
	}
}

func TestTheContextCarriesThePrincipal(t *testing.T) {
	ctx := auth.With(context.Background(), auth.Token{ID: "T1", Role: auth.Viewer})
	if got := auth.From(ctx); got.ID != "T1" {
		t.Errorf("From = %q, want T1", got.ID)
	}
	if got := auth.From(context.Background()); got.Role.May("getServer") {
		t.Error("a context without a principal may call getServer, want denied")
	}
}

func TestATokenIsLongRandomAndMarked(t *testing.T) {
	a, b := auth.NewText().Reveal(), auth.NewText().Reveal()
	if a == b || len(a) < 50 || a[:5] != "kura_" {
		t.Errorf("NewText = %q and %q, want two different long ones with the prefix kura_", a, b)
	}
	if auth.NewText().String() != "***" {
		t.Error("a token's text shows itself when printed")
	}
}
