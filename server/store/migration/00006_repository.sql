-- What the installation notes of its repositories: a change of password under way, the recovery sheet, since when one is away.
-- +goose Up
ALTER TABLE repository ADD COLUMN next_password TEXT NOT NULL DEFAULT ''; -- sealed; '' = none
ALTER TABLE repository ADD COLUMN sheet_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE repository ADD COLUMN sheet_lapsed_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE repository ADD COLUMN away_since BIGINT NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE repository DROP COLUMN next_password;
ALTER TABLE repository DROP COLUMN sheet_at;
ALTER TABLE repository DROP COLUMN sheet_lapsed_at;
ALTER TABLE repository DROP COLUMN away_since;
