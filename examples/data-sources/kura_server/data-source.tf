data "kura_server" "this" {}

output "retentions_of_daily_schedules" {
  value = data.kura_server.this.retention_choices.daily
}
