-- What each disk takes of the day's budget of compares. It takes the place of the table compared, which servers of before still count in.
-- +goose Up
CREATE TABLE compare_share (
  day     TEXT    NOT NULL,  -- UTC, YYYY-MM-DD
  job_id  TEXT    NOT NULL,  -- the backup that reads it
  disk    BIGINT  NOT NULL,  -- its device key
  bytes   BIGINT  NOT NULL,  -- that were read, or until then that may be
  settled BOOLEAN NOT NULL,  -- they were read; what is not settled counts while the job runs
  PRIMARY KEY (day, job_id, disk)
);

-- +goose Down
DROP TABLE compare_share;
