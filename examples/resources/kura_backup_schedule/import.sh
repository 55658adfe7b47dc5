# By its name, or by its id.
terraform import kura_backup_schedule.nightly "name/gold nightly"
terraform import kura_backup_schedule.nightly 01JDZK3Q8X4T9V2M6B7N5C1R0C
