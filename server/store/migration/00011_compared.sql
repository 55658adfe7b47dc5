-- How much was read of disks to compare them in full, by the day.
-- +goose Up
CREATE TABLE compared (
  day   TEXT   NOT NULL PRIMARY KEY,  -- UTC, YYYY-MM-DD
  bytes BIGINT NOT NULL
);

-- +goose Down
DROP TABLE compared;
