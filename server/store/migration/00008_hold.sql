-- Holds keep single images; extensions give them more time; repositories whose storage locks what it keeps.
-- +goose Up
CREATE TABLE image_hold (
  id         TEXT PRIMARY KEY,
  image_id   TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
  until      BIGINT NOT NULL, -- 253402214400000 = until it is released
  reason     TEXT NOT NULL,
  created_by TEXT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE INDEX image_hold_image ON image_hold (image_id, id);

ALTER TABLE image ADD COLUMN held_until BIGINT NOT NULL DEFAULT 0;           -- the latest of its holds
ALTER TABLE image ADD COLUMN extended_until BIGINT NOT NULL DEFAULT 0;       -- the end that a user gave it, as in image_hold
ALTER TABLE image ADD COLUMN storage_locked_until BIGINT NOT NULL DEFAULT 0; -- the storage refuses to delete what it needs
ALTER TABLE image ADD COLUMN bytes_changed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN bytes_changed BIGINT NOT NULL DEFAULT 0;

ALTER TABLE upkeep ADD COLUMN lock_planned_at BIGINT NOT NULL DEFAULT 0; -- when the last extension of locks was asked for
ALTER TABLE upkeep ADD COLUMN lock_extended TEXT NOT NULL DEFAULT '';    -- what the last one did that ended well

-- +goose Down
ALTER TABLE upkeep DROP COLUMN lock_extended;
ALTER TABLE upkeep DROP COLUMN lock_planned_at;
ALTER TABLE usage DROP COLUMN bytes_changed;
ALTER TABLE image DROP COLUMN bytes_changed;
ALTER TABLE image DROP COLUMN storage_locked_until;
ALTER TABLE image DROP COLUMN extended_until;
ALTER TABLE image DROP COLUMN held_until;
DROP TABLE image_hold;
