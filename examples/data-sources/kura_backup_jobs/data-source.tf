# What failed in the last week, and why.
data "kura_backup_jobs" "failed" {
  window = "7d"
  kind   = "backup"
  state  = "failed"
}

output "failed_backups" {
  value = { for j in data.kura_backup_jobs.failed.jobs : j.id => "${j.virtual_machine_name}: ${j.error_message}" }
}
