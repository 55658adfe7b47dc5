package store

import (
	"context"
	"fmt"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// keepResponses is how long the answer to a request with an Idempotency-Key is
// kept.
const keepResponses = 24 * time.Hour

// IdempotentResponse returns the answer that a request with that key got in
// the last 24 hours. Errors: Conflict when the key was used for another
// request than the one of requestHash.
func (db *DB) IdempotentResponse(ctx context.Context, project, key, requestHash string) (status int, body []byte, found bool, err error) {
	err = db.view(ctx, func(t *tx) error {
		var hash, text string
		found, err = t.row(ctx, "SELECT request_hash, status, body FROM idempotency WHERE project = $1 AND name = $2 AND created_at > $3",
			[]any{project, key, t.now.Add(-keepResponses)}, &hash, &status, &text)
		if err != nil || !found {
			return err
		}
		if hash != requestHash {
			found = false
			return backup.Errorf(backup.Conflict, "", "The Idempotency-Key %q was used for another request. Use a new key for each request.", key)
		}
		plain, err := db.box.open(text, idempotencyPlace(project, key))
		body = []byte(plain)
		return err
	})
	if err != nil {
		return 0, nil, false, err
	}
	return status, body, found, nil
}

// SaveIdempotent keeps the answer to a request for 24 hours. An answer that is
// kept already stays.
func (db *DB) SaveIdempotent(ctx context.Context, project, key, requestHash string, status int, body []byte) error {
	return db.retry(ctx, func(t *tx) error {
		if _, err := t.exec(ctx, "DELETE FROM idempotency WHERE created_at <= $1", t.now.Add(-keepResponses)); err != nil {
			return fmt.Errorf("forget old answers: %w", err)
		}
		_, err := t.exec(ctx, "INSERT INTO idempotency (project, name, request_hash, status, body, created_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (project, name) DO NOTHING",
			project, key, requestHash, status, db.box.seal(string(body), idempotencyPlace(project, key)), t.now)
		return err
	})
}

func idempotencyPlace(project, key string) []byte {
	return place("idempotency", "body", project+"\x00"+key)
}
