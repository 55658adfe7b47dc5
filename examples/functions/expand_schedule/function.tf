# The next three runs on second Wednesdays.
output "next_starts" {
  value = provider::kura::expand_schedule({
    start_time = "02:00"
    time_zone  = "Asia/Tokyo"
    monthly    = { week_day_of_month = { week_of_month = "second", day_of_week = "wednesday" } }
  }, "2026-12-01", 3)
}

# When a schedule of this configuration runs next.
output "next_run_of_nightly" {
  value = one(provider::kura::expand_schedule(kura_backup_schedule.nightly, "2026-12-01T00:00:00+09:00", 1))
}
