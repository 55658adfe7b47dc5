# The running month so far, by virtual machine, most usage first.
data "kura_usage" "month" {}

# What each department is charged for, by schedule.
data "kura_usage" "schedules" {
  group_by = "schedule"
}

locals {
  gib_hours = { for i in data.kura_usage.schedules.items : coalesce(i.name, i.id, "by hand") => i.gib_hours... }
}

# Plan and apply warn when the images of a month take more than was planned for.
check "within_budget" {
  assert {
    condition     = data.kura_usage.month.total.gib_hours < 5000000
    error_message = "This month's images have used ${floor(data.kura_usage.month.total.gib_hours)} GiB hours."
  }
}
