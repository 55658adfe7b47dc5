package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type tokenCmd struct {
	Create tokenCreate `cmd:"" help:"Make a token. Its text is shown once."`
	List   tokenList   `cmd:"" help:"List the tokens, without their texts."`
	Revoke tokenRevoke `cmd:"" help:"Revoke a token at once."`
}

type tokenCreate struct {
	Name      string `arg:"" help:"Name for it, such as that of the pipeline that uses it."`
	Role      string `required:"" enum:"viewer,backup,restorer,operator" as:"viewer|backup|restorer|operator" help:"viewer reads; backup also makes, changes and runs groups and schedules and deletes nothing; restorer reads and restores; operator may do everything."`
	ExpiresIn string `as:"90d" xor:"expiry" help:"How long it is good for, such as 90d. Default: until it is revoked."`
	ExpiresAt string `as:"TIME" xor:"expiry" help:"Until when it is good."`
}

// Help is shown below the command's first line.
func (*tokenCreate) Help() string {
	return examples("kura token create pipeline --role backup --expires-in 366d", "kura token create wall --role viewer -o json")
}

// Run makes a token.
func (t *tokenCreate) Run(ctx context.Context, s *session) error {
	expires, err := instant("expires-at", t.ExpiresAt)
	if err != nil {
		return err
	}
	d, err := span("expires-in", t.ExpiresIn)
	if err != nil {
		return err
	}
	if d > 0 {
		expires = s.now().Add(d).UTC()
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	raw, err := body(c.CreateTokenWithResponse(ctx, api.Token{Name: t.Name, Role: api.Role(t.Role), ExpiresAt: expires}))
	if err != nil {
		return err
	}
	if err := showOne(s, raw, tokenRecord); err != nil {
		return err
	}
	fmt.Fprintln(s.stderr, "The text is not shown again: keep it where secrets are kept.")
	return nil
}

func tokenRecord(t api.Token) (r record) {
	r.add("name", t.Name)
	r.add("id", t.ID)
	r.add("role", string(t.Role))
	r.add("text", t.Text)
	r.add("created", when(t.CreatedAt))
	r.add("expires", until(t))
	return r
}

func until(t api.Token) string {
	if t.ExpiresAt.IsZero() {
		return "never"
	}
	return when(t.ExpiresAt)
}

func allTokens(ctx context.Context, c *api.ClientWithResponses) ([]json.RawMessage, error) {
	return collect(0, func(cursor string) (answer, error) {
		return c.ListTokensWithResponse(ctx, &api.ListTokensParams{Limit: pageSize, Cursor: cursor})
	})
}

type tokenList struct{}

// Run lists the tokens.
func (*tokenList) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	items, err := allTokens(ctx, c)
	if err != nil {
		return err
	}
	return showAll(s, "tokens", items, []string{"NAME", "ROLE", "STATUS", "USED", "EXPIRES", "ID"}, func(t api.Token) []string {
		state := "good"
		switch {
		case !t.RevokedAt.IsZero():
			state = "revoked"
		case !t.ExpiresAt.IsZero() && !t.ExpiresAt.After(s.now()):
			state = "expired"
		}
		return []string{t.Name, string(t.Role), state, when(t.UsedAt), until(t), t.ID}
	})
}

// findToken returns the token of that id, or the only one of that name that is
// not revoked.
func findToken(ctx context.Context, c *api.ClientWithResponses, ref string) (object, error) {
	items, err := allTokens(ctx, c)
	if err != nil {
		return object{}, err
	}
	var named []object
	for _, raw := range items {
		t, err := decode[api.Token](raw)
		if err != nil {
			return object{}, err
		}
		if t.ID == ref {
			return object{t.ID, t.Name, raw}, nil
		}
		if t.Name == ref && t.RevokedAt.IsZero() {
			named = append(named, object{t.ID, t.Name, raw})
		}
	}
	return only("token", ref, "kura token list shows all.", named)
}

type tokenRevoke struct {
	Name string `arg:"" help:"Name or id."`
}

// Run revokes a token.
func (t *tokenRevoke) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := findToken(ctx, c, t.Name)
	if err != nil {
		return err
	}
	if _, err := body(c.RevokeTokenWithResponse(ctx, o.ID)); err != nil {
		return err
	}
	if s.cli.Output == "json" {
		return s.printJSON(o.raw)
	}
	s.say("Revoked token %s (%s).", o.Name, o.ID)
	return nil
}
