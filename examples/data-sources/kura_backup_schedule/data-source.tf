data "kura_backup_schedule" "nightly" {
  name = kura_backup_schedule.nightly.name
}

output "next_backup" {
  value = data.kura_backup_schedule.nightly.next_run_at
}

locals {
  last_run = coalesce(data.kura_backup_schedule.nightly.last_run_state, "none")
}

check "last_night" {
  assert {
    condition     = !contains(["failed", "missed"], local.last_run)
    error_message = "The last backup ended ${local.last_run}."
  }
}
