-- When schedules are next due, members without a seat, and images that several
-- schedules share.
-- +goose Up
ALTER TABLE schedule ADD COLUMN next_due BIGINT NOT NULL DEFAULT 0; -- 0 = never again
ALTER TABLE schedule ADD COLUMN unbooked_seats BIGINT NOT NULL DEFAULT 0;
UPDATE schedule SET next_due = 1; -- the first look at each of them works it out
CREATE INDEX schedule_due ON schedule (project, next_due, id) WHERE enabled AND next_due > 0;
CREATE INDEX schedule_unbooked ON schedule (project, id) WHERE unbooked_seats > 0;

ALTER TABLE job ADD COLUMN unbooked BOOLEAN NOT NULL DEFAULT FALSE;
DROP INDEX job_due;
CREATE INDEX job_due ON job (unbooked, due, id) WHERE state = 'queued';
CREATE INDEX job_active_vm ON job (vm_id, created_at, id) WHERE state IN ('queued', 'running');

CREATE TABLE image_share (
  image_id     TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
  job_id       TEXT NOT NULL,
  schedule_id  TEXT NOT NULL,
  group_id     TEXT NOT NULL,
  run_id       TEXT NOT NULL,
  expires_at   BIGINT NOT NULL,
  locked_until BIGINT NOT NULL,
  PRIMARY KEY (image_id, job_id)
);
CREATE INDEX image_share_schedule ON image_share (schedule_id, image_id);
CREATE INDEX image_share_group ON image_share (group_id, image_id);
CREATE INDEX image_share_run ON image_share (run_id, image_id);

-- +goose Down
DROP TABLE image_share;
DROP INDEX job_active_vm;
DROP INDEX job_due;
CREATE INDEX job_due ON job (due, id) WHERE state = 'queued';
ALTER TABLE job DROP COLUMN unbooked;
DROP INDEX schedule_unbooked;
DROP INDEX schedule_due;
ALTER TABLE schedule DROP COLUMN unbooked_seats;
ALTER TABLE schedule DROP COLUMN next_due;
