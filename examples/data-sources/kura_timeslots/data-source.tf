# The nights of the coming month, with the schedules that hold the seats.
data "kura_timeslots" "month" {
  vcenter_id = kura_vcenter.tokyo.id
  days       = 31
  who        = true
}

# The hour at which most seats are free on every day of it.
output "best_start_time" {
  value = data.kura_timeslots.month.best_start_time
}

# Who starts in the fullest hours.
output "fullest_hours" {
  value = {
    for s in data.kura_timeslots.month.slots : s.starts_at => s.schedules[*].name if s.free == 0
  }
}

# Plan and apply warn while the hour from 02:00 on has a night without a seat.
check "room_at_night" {
  assert {
    condition     = data.kura_timeslots.month.free_at["02:00"] > 0
    error_message = "02:00 is full on at least one of the coming days; ${coalesce(data.kura_timeslots.month.best_start_time, "no hour")} has the most room."
  }
}
