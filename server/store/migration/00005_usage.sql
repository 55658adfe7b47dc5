-- How long each image was there, for the account of usage: it outlives the image.
-- +goose Up
CREATE TABLE usage (
  image_id      TEXT PRIMARY KEY,
  project       TEXT NOT NULL,
  vm_id         TEXT NOT NULL,
  vm_name       TEXT NOT NULL,
  schedule_id   TEXT NOT NULL,
  group_id      TEXT NOT NULL,
  repository_id TEXT NOT NULL,
  provisioned   BIGINT NOT NULL,
  bytes_read    BIGINT NOT NULL,
  bytes_stored  BIGINT NOT NULL,
  since         BIGINT NOT NULL, -- whole UTC hours, as the next
  until         BIGINT NOT NULL, -- 253402297200000 = the image never ends
  gaps          TEXT NOT NULL    -- hours between, for which it is not counted
);
CREATE INDEX usage_end ON usage (project, until, since);

INSERT INTO usage (image_id, project, vm_id, vm_name, schedule_id, group_id, repository_id, provisioned, bytes_read, bytes_stored, since, until, gaps)
  SELECT id, project, vm_id, vm_name, schedule_id, group_id, repository_id, provisioned, bytes_read, bytes_stored, started_at / 3600000 * 3600000,
    CASE WHEN expires_at = 0 THEN 253402297200000 ELSE (expires_at + 3599999) / 3600000 * 3600000 END, 'null'
  FROM image WHERE started_at > 0;

-- +goose Down
DROP TABLE usage;
