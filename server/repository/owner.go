package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo/blob"
)

// markBlob lies beside kopia's files and says whose the repository is. It is
// not encrypted: who has no password must be able to tell, too.
const markBlob blob.ID = "kura.owner"

// mark is the owner's mark.
type mark struct {
	Installation string    `json:"installation"`
	Repository   string    `json:"repository"` // record's id there
	CreatedAt    time.Time `json:"created_at"`
	// InUse is set when the repository is opened for the first time. Until then
	// it may be what a creation that was cut short has left.
	InUse bool `json:"in_use"`
}

// readMark returns the owner's mark; nil if there is none.
func readMark(ctx context.Context, s blob.Storage) (*mark, error) {
	var b blobBuffer
	err := s.GetBlob(ctx, markBlob, 0, -1, &b)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read owner's mark: %w", err)
	}
	var m mark
	if err := json.Unmarshal(b.Bytes(), &m); err != nil {
		return nil, fmt.Errorf("read owner's mark: %w", err)
	}
	return &m, nil
}

func writeMark(ctx context.Context, s blob.Storage, m mark) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = s.PutBlob(ctx, markBlob, blobBytes(b), blob.PutOptions{})
	}
	if err != nil {
		return fmt.Errorf("write owner's mark: %w", err)
	}
	return nil
}
