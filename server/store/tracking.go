package store

import (
	"context"
	"fmt"
)

func (t *tx) AddCompared(ctx context.Context, day string, bytes int64) (total int64, err error) {
	if _, err := t.exec(ctx, "DELETE FROM compared WHERE day < $1", day); err != nil {
		return 0, fmt.Errorf("forget what was compared before %s: %w", day, err)
	}
	_, err = t.row(ctx, `INSERT INTO compared (day, bytes) VALUES ($1, $2)
		ON CONFLICT (day) DO UPDATE SET bytes = compared.bytes + excluded.bytes RETURNING bytes`, []any{day, bytes}, &total)
	if err != nil {
		return 0, fmt.Errorf("count what was compared on %s: %w", day, err)
	}
	return total, nil
}
