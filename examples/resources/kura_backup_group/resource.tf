# Every machine that carries the tag, also those that get it later.
resource "kura_backup_group" "gold" {
  name = "gold"

  selector = {
    vcenter_id = kura_vcenter.tokyo.id
    tags       = [{ category = "backup", name = "gold" }]
  }

  reserved_seats = 8
}

# Listed machines, with a label on their images.
resource "kura_backup_group" "erp" {
  name                = "erp"
  virtual_machine_ids = data.kura_virtual_machines.gold.ids
  labels              = { owner = "finance" }
}
