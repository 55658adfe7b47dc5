data "kura_protection" "tokyo" {
  vcenter_id    = kura_vcenter.tokyo.id
  max_age_hours = 26
}

# A plan warns; in "terraform test" the same condition fails the run.
check "every_machine_is_protected" {
  assert {
    condition     = length(data.kura_protection.tokyo.unprotected) == 0
    error_message = "No schedule backs up: ${join(", ", data.kura_protection.tokyo.unprotected)}."
  }
  assert {
    condition     = length(data.kura_protection.tokyo.outdated) == 0
    error_message = "No image of the last 26 hours: ${join(", ", data.kura_protection.tokyo.outdated)}."
  }
}
