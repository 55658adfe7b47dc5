package store

import (
	"context"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var tokens = noun{"token", "token"}

func tokenColumns(k *auth.Token) columns {
	return columns{
		{"id", &k.ID},
		{"project", &k.Project},
		{"name", &k.Name},
		{"role", &k.Role},
		{"hash", &k.Hash},
		{"created_at", millis{&k.CreatedAt}},
		{"expires_at", millis{&k.ExpiresAt}},
		{"used_at", millis{&k.UsedAt}},
		{"revoked_at", millis{&k.RevokedAt}},
	}
}

// InsertToken stores a new token, filling in its id and its time. Names of
// tokens that are not revoked are unique. Errors: Conflict.
func (db *DB) InsertToken(ctx context.Context, k *auth.Token) error {
	return db.retry(ctx, func(t *tx) error {
		c := *k
		if c.ID == "" {
			c.ID = backup.NewID(t.now)
		}
		c.Project, c.CreatedAt = t.project, t.now
		taken := backup.Errorf(backup.Conflict, "name", "There is a token named %q already. Choose another name, or revoke that one first.", k.Name)
		if err := t.insert(ctx, tokens, tokenColumns(&c), taken); err != nil {
			return err
		}
		*k = c
		return nil
	})
}

// TokenByHash returns the token whose text has that hash, revoked and expired
// ones too. It is asked with each request, so it is one query and no more.
// Errors: NotFound.
func (db *DB) TokenByHash(ctx context.Context, hash string) (auth.Token, error) {
	var k auth.Token
	c := tokenColumns(&k)
	rows, err := db.read.QueryContext(ctx, "SELECT "+c.names("")+" FROM token WHERE hash = $1", hash)
	if err != nil {
		return k, db.failed("token", err)
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return k, db.failed("token", err)
		}
		return k, backup.Errorf(backup.NotFound, "", "There is no such token.")
	}
	return k, db.failed("token", rows.Scan(c.dest()...))
}

// Token returns the token with the id. Errors: NotFound.
func (db *DB) Token(ctx context.Context, id string) (auth.Token, error) {
	var k auth.Token
	err := db.view(ctx, func(t *tx) (err error) {
		k, err = get(ctx, t, tokens, id, tokenColumns)
		return err
	})
	return k, err
}

// Tokens lists the tokens, oldest first, and returns the cursor of the next page.
func (db *DB) Tokens(ctx context.Context, p backup.Page) (all []auth.Token, next string, err error) {
	err = db.view(ctx, func(t *tx) (err error) {
		q := query{from: "token"}
		q.where("project = ?", t.project)
		all, next, err = list(ctx, t, q, p, tokenColumns)
		return err
	})
	return all, next, err
}

// RevokeToken makes the token open nothing from now on, for good. One that was
// revoked before stays as it is. Errors: NotFound.
func (db *DB) RevokeToken(ctx context.Context, id string) (auth.Token, error) {
	var k auth.Token
	err := db.retry(ctx, func(t *tx) error {
		if _, err := t.exec(ctx, "UPDATE token SET revoked_at = $1 WHERE project = $2 AND id = $3 AND revoked_at = 0", t.now, t.project, id); err != nil {
			return err
		}
		var err error
		k, err = get(ctx, t, tokens, id, tokenColumns)
		return err
	})
	return k, err
}

// touchEvery is how exactly the last use of a token is known.
const touchEvery = time.Minute

// TouchToken notes that the token is used. It writes once a minute at most.
func (db *DB) TouchToken(ctx context.Context, k auth.Token, now time.Time) error {
	if now.Sub(k.UsedAt) < touchEvery {
		return nil
	}
	_, err := db.write.ExecContext(ctx, "UPDATE token SET used_at = $1 WHERE id = $2 AND used_at <= $3", epoch(now), k.ID, epoch(now.Add(-touchEvery)))
	return db.failed("token", err)
}
