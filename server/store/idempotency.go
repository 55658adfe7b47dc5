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

// answerLost is the status of a request that was carried out, as long as its
// answer is not kept.
const answerLost = 0

// madeFor notes, with what a request makes, that it has made it: should the
// server die before the answer is kept, the repetition of the request makes it
// no second time.
func (t *tx) madeFor(ctx context.Context, what, id string) error {
	r, ok := backup.RequestOf(ctx)
	if !ok {
		return nil
	}
	if _, err := t.exec(ctx, "DELETE FROM idempotency WHERE project = $1 AND name = $2 AND created_at <= $3", t.project, r.Key, t.now.Add(-keepResponses)); err != nil {
		return fmt.Errorf("forget an old answer: %w", err)
	}
	n, err := t.exec(ctx, "INSERT INTO idempotency (project, name, request_hash, status, body, created_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (project, name) DO NOTHING",
		t.project, r.Key, r.Hash, answerLost, t.db.box.seal(what+" "+id, idempotencyPlace(t.project, r.Key)), t.now)
	if err != nil {
		return fmt.Errorf("note the request: %w", err)
	}
	if n == 0 {
		return backup.Errorf(backup.Conflict, "", "A request with the Idempotency-Key %q was carried out at the same time, perhaps by another server. Repeat this one to get its answer.", r.Key)
	}
	return nil
}

// IdempotentResponse returns the answer that a request with that key got in
// the last 24 hours. Errors: Conflict when the key was used for another
// request than the one of requestHash, or when the answer was lost.
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
		if err == nil && status == answerLost {
			found = false
			return backup.Errorf(backup.Conflict, "", "The request with the Idempotency-Key %q was carried out, and its answer was lost: it made the %s. Look there; to do it once more, use a new key.", key, plain)
		}
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
		_, err := t.exec(ctx, "INSERT INTO idempotency (project, name, request_hash, status, body, created_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (project, name) DO UPDATE SET status = excluded.status, body = excluded.body WHERE idempotency.status = 0 AND idempotency.request_hash = excluded.request_hash",
			project, key, requestHash, status, db.box.seal(string(body), idempotencyPlace(project, key)), t.now)
		return err
	})
}

func idempotencyPlace(project, key string) []byte {
	return place("idempotency", "body", project+"\x00"+key)
}
