-- The seats that schedules hold, each with the mark of its last change, from
-- which every server keeps its count in memory. What is given back stays with
-- no seats, also when the schedule is gone, so that the others hear of it.
-- +goose Up
ALTER TABLE vcenter ADD COLUMN seat_mark BIGINT NOT NULL DEFAULT 1; -- of the last change

CREATE TABLE seat (
  vcenter_id  TEXT NOT NULL REFERENCES vcenter (id) ON DELETE CASCADE,
  schedule_id TEXT NOT NULL,
  seats       BIGINT NOT NULL,
  since       BIGINT NOT NULL, -- occurrences that start after it take them
  mark        BIGINT NOT NULL,
  PRIMARY KEY (vcenter_id, schedule_id)
);
CREATE INDEX seat_change ON seat (vcenter_id, mark);
CREATE INDEX seat_schedule ON seat (schedule_id);
INSERT INTO seat SELECT vcenter_id, schedule_id, seats, 0, 1 FROM schedule_seat;
DROP TABLE schedule_seat;

-- +goose Down
CREATE TABLE schedule_seat (
  schedule_id TEXT NOT NULL REFERENCES schedule (id) ON DELETE CASCADE,
  vcenter_id  TEXT NOT NULL REFERENCES vcenter (id),
  seats       BIGINT NOT NULL,
  PRIMARY KEY (schedule_id, vcenter_id)
);
CREATE INDEX schedule_seat_vcenter ON schedule_seat (vcenter_id, schedule_id);
INSERT INTO schedule_seat SELECT schedule_id, vcenter_id, seats FROM seat WHERE seats > 0;
DROP TABLE seat;
ALTER TABLE vcenter DROP COLUMN seat_mark;
