-- What jobs owe to VMs, jobs that wait for another, and the snapshots of consistent groups.
-- +goose Up
ALTER TABLE job ADD COLUMN owes BOOLEAN NOT NULL DEFAULT FALSE;  -- its checkpoint names VMs that must be powered on, whatever becomes of it
ALTER TABLE job ADD COLUMN waits_for TEXT NOT NULL DEFAULT '';   -- id of the job that must have ended well before this one begins
ALTER TABLE job ADD COLUMN kept_attempt BIGINT NOT NULL DEFAULT 0; -- names the snapshot that was made for it before it began; 0 = none
CREATE INDEX job_owes ON job (id) WHERE owes;
CREATE INDEX job_waits_for ON job (waits_for) WHERE waits_for <> '';
CREATE INDEX job_kept ON job (id) WHERE kept_attempt > 0 AND state IN ('queued', 'running');

ALTER TABLE run ADD COLUMN spread_ms BIGINT NOT NULL DEFAULT 0;  -- between the first and the last snapshot of a consistent run; 0 = not one
ALTER TABLE backup_group ADD COLUMN on_member_failure TEXT NOT NULL DEFAULT 'leave_out';

-- +goose Down
ALTER TABLE backup_group DROP COLUMN on_member_failure;
ALTER TABLE run DROP COLUMN spread_ms;
DROP INDEX job_kept;
DROP INDEX job_waits_for;
DROP INDEX job_owes;
ALTER TABLE job DROP COLUMN kept_attempt;
ALTER TABLE job DROP COLUMN waits_for;
ALTER TABLE job DROP COLUMN owes;
