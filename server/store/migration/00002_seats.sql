-- The log of seats that schedules took or gave back, from which each server
-- keeps its count in memory: the last change of each schedule in each vcenter,
-- also of schedules that are gone.
-- +goose Up
ALTER TABLE vcenter ADD COLUMN seat_mark BIGINT NOT NULL DEFAULT 1;

CREATE TABLE seat_change (
  vcenter_id  TEXT NOT NULL REFERENCES vcenter (id) ON DELETE CASCADE,
  schedule_id TEXT NOT NULL,
  mark        BIGINT NOT NULL,
  PRIMARY KEY (vcenter_id, schedule_id)
);
CREATE UNIQUE INDEX seat_change_mark ON seat_change (vcenter_id, mark);

-- +goose Down
DROP TABLE seat_change;
ALTER TABLE vcenter DROP COLUMN seat_mark;
