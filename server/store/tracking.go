package store

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func (t *tx) SaveCompared(ctx context.Context, c backup.Compared) (total int64, err error) {
	if _, err := t.exec(ctx, "DELETE FROM compare_share WHERE day < $1", c.Day); err != nil {
		return 0, fmt.Errorf("forget what was compared before %s: %w", c.Day, err)
	}
	_, err = t.exec(ctx, `INSERT INTO compare_share (day, job_id, disk, bytes, settled) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (day, job_id, disk) DO UPDATE SET bytes = excluded.bytes, settled = excluded.settled`, c.Day, c.JobID, c.Disk, c.Bytes, c.Settled)
	if err != nil {
		return 0, fmt.Errorf("count what was compared on %s: %w", c.Day, err)
	}
	_, err = t.row(ctx, `SELECT CAST(COALESCE(SUM(c.bytes), 0) AS BIGINT) FROM compare_share c WHERE c.day = $1
		AND (c.settled OR EXISTS (SELECT 1 FROM job j WHERE j.id = c.job_id AND j.state = 'running' AND j.lease_until >= $2))`, []any{c.Day, t.now}, &total)
	if err != nil {
		return 0, fmt.Errorf("add up what was compared on %s: %w", c.Day, err)
	}
	return total, nil
}
