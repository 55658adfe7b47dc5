# All schedules of a group, and when each runs.
data "kura_backup_schedules" "gold" {
  group_id = kura_backup_schedule.nightly.group_id
}

output "gold_hours" {
  value = { for s in data.kura_backup_schedules.gold.schedules : s.name => s.summary }
}
