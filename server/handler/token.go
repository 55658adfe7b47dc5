package handler

import (
	"context"
	"errors"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func tokenOut(t auth.Token) api.Token {
	return api.Token{
		ID: t.ID, Name: t.Name, Role: api.Role(t.Role), CreatedAt: utc(t.CreatedAt), ExpiresAt: utc(t.ExpiresAt),
		UsedAt: utc(t.UsedAt), RevokedAt: utc(t.RevokedAt),
	}
}

// ListTokens implements the operation.
func (h *handler) ListTokens(ctx context.Context, q api.ListTokensRequestObject) (api.ListTokensResponseObject, error) {
	found, next, err := h.Tokens.Tokens(ctx, pageOf(q.Params.Limit, q.Params.Cursor))
	return api.ListTokens200JSONResponse{Items: each(found, tokenOut), NextCursor: next}, err
}

// CreateToken implements the operation.
func (h *handler) CreateToken(ctx context.Context, q api.CreateTokenRequestObject) (api.CreateTokenResponseObject, error) {
	if end := q.Body.ExpiresAt; !end.IsZero() && !end.After(h.Now()) {
		return nil, backup.Errorf(backup.Invalid, "expires_at", "A token must expire in the future, got %s.", end.Format("2006-01-02T15:04:05Z07:00"))
	}
	if err := errors.Join(backup.ValidName(q.Body.Name), tellable("expires_at", q.Body.ExpiresAt)); err != nil {
		return nil, err
	}
	text := auth.NewText()
	t := auth.Token{Project: backup.DefaultProject, Name: q.Body.Name, Role: auth.Role(q.Body.Role), Hash: auth.Hash(text.Reveal()), ExpiresAt: q.Body.ExpiresAt}
	if err := h.Tokens.InsertToken(ctx, &t); err != nil {
		return nil, err
	}
	out := tokenOut(t)
	out.Text = text.Reveal()
	return api.CreateToken201JSONResponse(out), nil
}

// RevokeToken implements the operation.
func (h *handler) RevokeToken(ctx context.Context, q api.RevokeTokenRequestObject) (api.RevokeTokenResponseObject, error) {
	_, err := h.Tokens.RevokeToken(ctx, q.ID)
	h.Auth.Forget(q.ID) // also after an error: it may have been revoked all the same
	return api.RevokeToken204Response{}, err
}
