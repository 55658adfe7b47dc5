-- One text for SQLite and PostgreSQL: BIGINT for numbers and for times (epoch
-- milliseconds, 0 = none), TEXT for ids and JSON, BOOLEAN, partial indexes.
-- +goose Up

CREATE TABLE setting (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE token (
  id         TEXT PRIMARY KEY,
  project    TEXT NOT NULL,
  name       TEXT NOT NULL,
  role       TEXT NOT NULL,
  hash       TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  used_at    BIGINT NOT NULL,
  revoked_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX token_hash ON token (hash);
CREATE UNIQUE INDEX token_name ON token (project, name) WHERE revoked_at = 0;
CREATE INDEX token_list ON token (project, id);

CREATE TABLE idempotency (
  project      TEXT NOT NULL,
  name         TEXT NOT NULL,
  request_hash TEXT NOT NULL,
  status       BIGINT NOT NULL,
  body         TEXT NOT NULL, -- sealed: it may hold a new token
  created_at   BIGINT NOT NULL,
  PRIMARY KEY (project, name)
);
CREATE INDEX idempotency_age ON idempotency (created_at);

CREATE TABLE vcenter (
  id             TEXT PRIMARY KEY,
  project        TEXT NOT NULL,
  version        BIGINT NOT NULL,
  created_at     BIGINT NOT NULL,
  updated_at     BIGINT NOT NULL,
  name           TEXT NOT NULL,
  endpoint       TEXT NOT NULL,
  username       TEXT NOT NULL,
  password       TEXT NOT NULL, -- sealed
  thumbprint     TEXT NOT NULL,
  ca_certificate TEXT NOT NULL,
  time_zone      TEXT NOT NULL,
  slot_capacity  BIGINT NOT NULL,
  limits         TEXT NOT NULL,
  transport      TEXT NOT NULL,
  tag_mappings   TEXT NOT NULL,
  instance_uuid  TEXT NOT NULL,
  api_version    TEXT NOT NULL,
  sync_state     TEXT NOT NULL,
  sync_error     TEXT NOT NULL,
  synced_at      BIGINT NOT NULL
);
CREATE UNIQUE INDEX vcenter_name ON vcenter (project, name);
CREATE INDEX vcenter_list ON vcenter (project, id);

CREATE TABLE machine (
  id            TEXT PRIMARY KEY,
  project       TEXT NOT NULL,
  vcenter_id    TEXT NOT NULL REFERENCES vcenter (id),
  instance_uuid TEXT NOT NULL,
  bios_uuid     TEXT NOT NULL,
  moid          TEXT NOT NULL,
  name          TEXT NOT NULL,
  folder        TEXT NOT NULL,
  resource_pool TEXT NOT NULL,
  host          TEXT NOT NULL,
  power_state   TEXT NOT NULL,
  template      BOOLEAN NOT NULL,
  guest_id      TEXT NOT NULL,
  cpus          BIGINT NOT NULL,
  memory_mib    BIGINT NOT NULL,
  disks         TEXT NOT NULL,
  nics          TEXT NOT NULL,
  datastores    TEXT NOT NULL,
  tags          TEXT NOT NULL,
  warnings      TEXT NOT NULL,
  seen_at       BIGINT NOT NULL,
  gone_at       BIGINT NOT NULL
);
CREATE UNIQUE INDEX machine_uuid ON machine (vcenter_id, instance_uuid);
CREATE INDEX machine_list ON machine (project, id);
CREATE INDEX machine_of_vcenter ON machine (project, vcenter_id, id);
CREATE INDEX machine_name ON machine (project, name, id);

CREATE TABLE backup_group (
  id                  TEXT PRIMARY KEY,
  project             TEXT NOT NULL,
  version             BIGINT NOT NULL,
  created_at          BIGINT NOT NULL,
  updated_at          BIGINT NOT NULL,
  name                TEXT NOT NULL,
  description         TEXT NOT NULL,
  virtual_machine_ids TEXT NOT NULL,
  selector            TEXT NOT NULL,
  exclude_ids         TEXT NOT NULL,
  reserved_seats      BIGINT NOT NULL,
  max_parallel        BIGINT NOT NULL,
  consistent          BOOLEAN NOT NULL,
  labels              TEXT NOT NULL,
  deletion_protection BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX backup_group_name ON backup_group (project, name);
CREATE INDEX backup_group_list ON backup_group (project, id);

CREATE TABLE repository (
  id           TEXT PRIMARY KEY,
  project      TEXT NOT NULL,
  version      BIGINT NOT NULL,
  created_at   BIGINT NOT NULL,
  updated_at   BIGINT NOT NULL,
  name         TEXT NOT NULL,
  kind         TEXT NOT NULL,
  settings     TEXT NOT NULL, -- sealed: other kinds have keys of their own
  password     TEXT NOT NULL, -- sealed
  compression  TEXT NOT NULL,
  verify_days  BIGINT NOT NULL,
  is_default   BOOLEAN NOT NULL,
  unique_id    TEXT NOT NULL,
  checked_at   BIGINT NOT NULL,
  check_error  TEXT NOT NULL,
  stored_bytes BIGINT NOT NULL,
  image_count  BIGINT NOT NULL,
  free_bytes   BIGINT NOT NULL,
  owned_by     TEXT NOT NULL,
  read_only    BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX repository_name ON repository (project, name);
CREATE INDEX repository_list ON repository (project, id);

CREATE TABLE schedule (
  id                  TEXT PRIMARY KEY,
  project             TEXT NOT NULL,
  version             BIGINT NOT NULL,
  created_at          BIGINT NOT NULL,
  updated_at          BIGINT NOT NULL,
  name                TEXT NOT NULL,
  description         TEXT NOT NULL,
  enabled             BOOLEAN NOT NULL,
  group_id            TEXT REFERENCES backup_group (id),
  vm_id               TEXT REFERENCES machine (id),
  recurrence          TEXT NOT NULL,
  window_hours        BIGINT NOT NULL,
  duration_hours      BIGINT NOT NULL,
  max_delay_hours     BIGINT NOT NULL,
  retention_days      BIGINT NOT NULL,
  extended            TEXT NOT NULL,
  apply_to_existing   BOOLEAN NOT NULL,
  locked              BOOLEAN NOT NULL,
  consistency         TEXT NOT NULL,
  disks               TEXT NOT NULL,
  unprotectable       TEXT NOT NULL,
  repository_id       TEXT NOT NULL,
  labels              TEXT NOT NULL,
  deletion_protection BOOLEAN NOT NULL,
  seats               BIGINT NOT NULL,
  start_time_chosen   BOOLEAN NOT NULL,
  earliest_hour       BIGINT NOT NULL,
  latest_hour         BIGINT NOT NULL,
  due_mark            BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX schedule_name ON schedule (project, name);
CREATE INDEX schedule_list ON schedule (project, id);
CREATE INDEX schedule_group ON schedule (project, group_id, id);
CREATE INDEX schedule_vm ON schedule (project, vm_id, id);
CREATE INDEX schedule_of_group ON schedule (group_id); -- for the references
CREATE INDEX schedule_of_vm ON schedule (vm_id);

CREATE TABLE schedule_seat (
  schedule_id TEXT NOT NULL REFERENCES schedule (id) ON DELETE CASCADE,
  vcenter_id  TEXT NOT NULL REFERENCES vcenter (id),
  seats       BIGINT NOT NULL,
  PRIMARY KEY (schedule_id, vcenter_id)
);
CREATE INDEX schedule_seat_vcenter ON schedule_seat (vcenter_id, schedule_id);

CREATE TABLE run (
  id           TEXT PRIMARY KEY,
  project      TEXT NOT NULL,
  schedule_id  TEXT NOT NULL,
  group_id     TEXT NOT NULL,
  slot         BIGINT NOT NULL,
  triggered_by TEXT NOT NULL,
  state        TEXT NOT NULL,
  created_at   BIGINT NOT NULL,
  ended_at     BIGINT NOT NULL,
  message      TEXT NOT NULL
);
CREATE UNIQUE INDEX run_slot ON run (schedule_id, slot) WHERE schedule_id <> '' AND slot <> 0;
CREATE INDEX run_list ON run (project, created_at, id);
CREATE INDEX run_schedule ON run (project, schedule_id, created_at, id);
CREATE INDEX run_group ON run (project, group_id, created_at, id);
CREATE INDEX run_state ON run (project, state, created_at, id);

CREATE TABLE job (
  id           TEXT PRIMARY KEY,
  project      TEXT NOT NULL,
  kind         TEXT NOT NULL,
  run_id       TEXT NOT NULL,
  vcenter_id   TEXT NOT NULL,
  vm_id        TEXT NOT NULL,
  vm_name      TEXT NOT NULL,
  image_id     TEXT NOT NULL,
  restore_id   TEXT NOT NULL,
  spec         TEXT NOT NULL,
  needs        TEXT NOT NULL,
  keys         TEXT NOT NULL,
  state        TEXT NOT NULL,
  due          BIGINT NOT NULL,
  deadline     BIGINT NOT NULL,
  window_end   BIGINT NOT NULL,
  attempt      BIGINT NOT NULL,
  failures     BIGINT NOT NULL,
  max_attempts BIGINT NOT NULL,
  owner        TEXT NOT NULL,
  lease_until  BIGINT NOT NULL,
  cancel_asked BOOLEAN NOT NULL,
  handed_over  BOOLEAN NOT NULL DEFAULT FALSE, -- begun in time and given back: goes on after its deadline
  step         TEXT NOT NULL,
  checkpoint   TEXT NOT NULL,
  done         BIGINT NOT NULL,
  total        BIGINT NOT NULL,
  rate         BIGINT NOT NULL,
  created_at   BIGINT NOT NULL,
  started_at   BIGINT NOT NULL,
  ended_at     BIGINT NOT NULL,
  error_code   TEXT NOT NULL,
  error        TEXT NOT NULL,
  messages     TEXT NOT NULL -- one JSON string per line, so that one more is appended
);
CREATE INDEX job_due ON job (due, id) WHERE state = 'queued';
CREATE INDEX job_deadline ON job (deadline) WHERE state = 'queued' AND deadline > 0;
CREATE INDEX job_lease ON job (lease_until, id) WHERE state = 'running';
CREATE INDEX job_active ON job (created_at, id) WHERE state IN ('queued', 'running');
CREATE INDEX job_list ON job (project, created_at, id);
CREATE INDEX job_kind ON job (project, kind, created_at, id);
CREATE INDEX job_state ON job (project, state, created_at, id);
CREATE INDEX job_vm ON job (project, vm_id, created_at, id);
CREATE INDEX job_vcenter ON job (project, vcenter_id, created_at, id);
CREATE INDEX job_run ON job (project, run_id, created_at, id);
CREATE INDEX job_run_state ON job (run_id, state);

-- What the queue asks of the jobs that are not over. The truth is in job.needs
-- and job.keys; these rows go when the job ends, so they stay few.
CREATE TABLE job_need (
  job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
  label  TEXT NOT NULL,
  PRIMARY KEY (job_id, label)
);
CREATE TABLE job_key (
  job_id  TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
  name    TEXT NOT NULL,
  weight  BIGINT NOT NULL,
  allowed BIGINT NOT NULL,
  held    BOOLEAN NOT NULL, -- the job runs
  PRIMARY KEY (job_id, name)
);
CREATE INDEX job_key_held ON job_key (name, weight) WHERE held;

CREATE TABLE image (
  id               TEXT PRIMARY KEY,
  project          TEXT NOT NULL,
  vcenter_id       TEXT NOT NULL,
  vm_id            TEXT NOT NULL,
  vm_name          TEXT NOT NULL,
  vm_moid          TEXT NOT NULL,
  vm_instance_uuid TEXT NOT NULL,
  schedule_id      TEXT NOT NULL,
  group_id         TEXT NOT NULL,
  run_id           TEXT NOT NULL,
  job_id           TEXT NOT NULL,
  repository_id    TEXT NOT NULL,
  started_at       BIGINT NOT NULL,
  ended_at         BIGINT NOT NULL,
  point_in_time    BIGINT NOT NULL,
  expires_at       BIGINT NOT NULL,
  locked_until     BIGINT NOT NULL,
  status           TEXT NOT NULL,
  consistency      TEXT NOT NULL,
  change_detection TEXT NOT NULL,
  message          TEXT NOT NULL,
  disks            TEXT NOT NULL,
  provisioned      BIGINT NOT NULL,
  bytes_read       BIGINT NOT NULL,
  bytes_stored     BIGINT NOT NULL,
  verified_at      BIGINT NOT NULL,
  full_compare_at  BIGINT NOT NULL,
  labels           TEXT NOT NULL,
  ref              TEXT NOT NULL
);
CREATE INDEX image_list ON image (project, point_in_time, id);
CREATE INDEX image_vm ON image (project, vm_id, repository_id, point_in_time, id);
CREATE INDEX image_vm_time ON image (project, vm_id, point_in_time, id);
CREATE INDEX image_vm_name ON image (project, vm_name, point_in_time, id);
CREATE INDEX image_group ON image (project, group_id, point_in_time, id);
CREATE INDEX image_schedule ON image (project, schedule_id, point_in_time, id);
CREATE INDEX image_run ON image (project, run_id, point_in_time, id);
CREATE INDEX image_vcenter ON image (project, vcenter_id, point_in_time, id);
CREATE INDEX image_repository ON image (project, repository_id, point_in_time, id);
CREATE INDEX image_status ON image (project, status, point_in_time, id);

CREATE TABLE image_label (
  image_id TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
  name     TEXT NOT NULL,
  value    TEXT NOT NULL,
  PRIMARY KEY (image_id, name)
);
CREATE INDEX image_label_value ON image_label (name, value, image_id);

CREATE TABLE restore (
  id          TEXT PRIMARY KEY,
  project     TEXT NOT NULL,
  image_id    TEXT NOT NULL,
  in_place    TEXT NOT NULL,
  new_vm      TEXT NOT NULL,
  disk        TEXT NOT NULL,
  description TEXT NOT NULL,
  token       TEXT NOT NULL,
  delivered   BOOLEAN NOT NULL,
  job_id      TEXT NOT NULL,
  created_at  BIGINT NOT NULL,
  result      TEXT NOT NULL,
  bytes       BIGINT NOT NULL
);
CREATE INDEX restore_list ON restore (project, created_at, id);
CREATE INDEX restore_token ON restore (project, token, created_at, id);

-- +goose Down
DROP TABLE restore;
DROP TABLE image_label;
DROP TABLE image;
DROP TABLE job_key;
DROP TABLE job_need;
DROP TABLE job;
DROP TABLE run;
DROP TABLE schedule_seat;
DROP TABLE schedule;
DROP TABLE repository;
DROP TABLE backup_group;
DROP TABLE machine;
DROP TABLE vcenter;
DROP TABLE idempotency;
DROP TABLE token;
DROP TABLE setting;
