-- What the clock should have said at the last look; 0 = what it said.
-- +goose Up
ALTER TABLE clock_look ADD COLUMN trusted_at BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE clock_look DROP COLUMN trusted_at;
