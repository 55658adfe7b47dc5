# "second Wednesday of each month, 04:00-05:00 Asia/Tokyo"
output "when" {
  value = provider::kura::describe_schedule(kura_backup_schedule.monthly)
}
