# Every night in the hour from 02:00 on, kept for eight days; Sunday's image for
# eight weeks, that of the last day of a month for eight months.
resource "kura_backup_schedule" "nightly" {
  name           = "gold nightly"
  group_id       = kura_backup_group.gold.id
  start_time     = "02:00"
  time_zone      = "Asia/Tokyo"
  daily          = {}
  retention_days = 8

  extended_retention = [
    { days_of_week = ["sunday"], retention_days = 56 },
    { last_day = true, retention_days = 248 },
  ]
}

# On two days of the week, in an hour between 20:00 and 23:00 that the server
# picks and keeps. The machines start over two hours.
resource "kura_backup_schedule" "weekly" {
  name           = "erp weekly"
  group_id       = kura_backup_group.erp.id
  start_window   = { earliest = "20:00" }
  weekly         = { days_of_week = ["wednesday", "saturday"] }
  window_hours   = 2
  retention_days = 28
  consistency    = "app"
}

# On the second Wednesday of each month, without the disk that holds scratch data.
resource "kura_backup_schedule" "monthly" {
  name           = "erp monthly"
  group_id       = kura_backup_group.erp.id
  start_time     = "04:00"
  monthly        = { week_day_of_month = { week_of_month = "second", day_of_week = "wednesday" } }
  retention_days = 248
  disks          = { exclude_labels = ["Hard disk 2"] }
}
