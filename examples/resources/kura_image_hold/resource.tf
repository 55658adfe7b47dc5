# Keeps the newest image of the machine until the audit is over.
resource "kura_image_hold" "audit" {
  image_id = data.kura_backup_image.newest.id
  until    = "2030-04-01T00:00:00Z"
  reason   = "Audit of the year 2029"

  lifecycle {
    ignore_changes = [image_id] # a newer image does not end the hold
  }
}
