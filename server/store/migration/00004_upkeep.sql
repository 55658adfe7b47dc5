-- Images that end, the upkeep of repositories, and the clock that decides both.
-- +goose Up
CREATE INDEX image_end ON image (project, expires_at, id) WHERE expires_at > 0 AND status <> 'expired';

CREATE TABLE upkeep (
  repository_id  TEXT PRIMARY KEY REFERENCES repository (id) ON DELETE CASCADE,
  planned_at     BIGINT NOT NULL, -- when the last collection was asked for
  collected_at   BIGINT NOT NULL, -- when the last one ended well
  collected      TEXT NOT NULL,   -- what it did
  verified_up_to BIGINT NOT NULL -- readings of images are asked for up to then
);

-- Images are read whole in turn, those first that were not read for longest.
CREATE INDEX image_verify ON image (project, repository_id, (CASE WHEN verified_at > ended_at THEN verified_at ELSE ended_at END), id)
  WHERE status IN ('good', 'partial');

CREATE TABLE clock_look (
  project    TEXT PRIMARY KEY,
  seen_at    BIGINT NOT NULL, -- what the clock said at the last look
  held_until BIGINT NOT NULL  -- nothing ends before, as the clock had leapt
);

-- +goose Down
DROP TABLE clock_look;
DROP INDEX image_verify;
DROP TABLE upkeep;
DROP INDEX image_end;
