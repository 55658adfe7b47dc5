# A copy of the machine as it was last, on a network that is cut off.
resource "kura_restore" "copy" {
  image_id = data.kura_backup_image.newest.id

  new_vm = {
    name             = "erp-check"
    network_mappings = { "VM Network" = "VM Network" }
  }
}

# The machine itself, put back to that image. It runs again only when the
# trigger changes: a newer image alone never overwrites the machine.
resource "kura_restore" "rollback" {
  image_id = data.kura_backup_image.newest.id

  in_place = {
    power_off = true
    power_on  = true
  }

  triggers = { incident = "4711" }
}

# One disk of the image beside the machine's own, to look for a file in it.
resource "kura_restore" "lookup" {
  image_id = data.kura_backup_image.newest.id

  disk = {
    source_disk_label  = "Hard disk 1"
    virtual_machine_id = data.kura_backup_image.newest.image.virtual_machine.id
    mode               = "attach"
  }

  depends_on = [kura_restore.rollback]
}
