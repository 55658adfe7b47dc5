import {
  to = kura_backup_schedule.nightly
  id = "name/gold nightly"
}
