-- Why VMs cannot be protected, VMs that share an instance UUID, and who came into
-- and left the groups.
-- +goose Up
ALTER TABLE machine ADD COLUMN unprotectable TEXT NOT NULL DEFAULT '';
DROP INDEX machine_uuid;
CREATE INDEX machine_uuid ON machine (vcenter_id, instance_uuid); -- two VMs may have one
CREATE INDEX machine_moid ON machine (vcenter_id, moid);

ALTER TABLE backup_group ADD COLUMN members_version BIGINT NOT NULL DEFAULT 0; -- the group's version when its members were last looked at; 0 = never yet
CREATE TABLE group_member (
  group_id TEXT NOT NULL REFERENCES backup_group (id) ON DELETE CASCADE,
  vm_id    TEXT NOT NULL,
  vm_name  TEXT NOT NULL,
  PRIMARY KEY (group_id, vm_id)
);
CREATE TABLE group_change (
  id       TEXT PRIMARY KEY,
  project  TEXT NOT NULL,
  group_id TEXT NOT NULL REFERENCES backup_group (id) ON DELETE CASCADE,
  vm_id    TEXT NOT NULL,
  vm_name  TEXT NOT NULL,
  change   TEXT NOT NULL,
  cause    TEXT NOT NULL,
  at       BIGINT NOT NULL
);
CREATE INDEX group_change_list ON group_change (project, group_id, at, id);

-- +goose Down
DROP TABLE group_change;
DROP TABLE group_member;
ALTER TABLE backup_group DROP COLUMN members_version;
DROP INDEX machine_moid;
DROP INDEX machine_uuid;
UPDATE machine SET instance_uuid = instance_uuid || '/' || id
  WHERE id NOT IN (SELECT MIN(id) FROM machine GROUP BY vcenter_id, instance_uuid);
CREATE UNIQUE INDEX machine_uuid ON machine (vcenter_id, instance_uuid);
ALTER TABLE machine DROP COLUMN unprotectable;
