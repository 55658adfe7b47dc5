-- Copies of images in other repositories.
-- +goose Up
ALTER TABLE image ADD COLUMN copy_of TEXT NOT NULL DEFAULT ''; -- id of the original, which may be gone
CREATE INDEX image_copy ON image (copy_of, repository_id) WHERE copy_of <> '';
ALTER TABLE schedule ADD COLUMN copy_to TEXT NOT NULL DEFAULT 'null';
-- The jobs that are to make copies, or could not, by the image that is copied.
CREATE INDEX job_copy ON job (image_id) WHERE kind = 'copy' AND state <> 'succeeded';

-- +goose Down
DROP INDEX job_copy;
ALTER TABLE schedule DROP COLUMN copy_to;
DROP INDEX image_copy;
ALTER TABLE image DROP COLUMN copy_of;
