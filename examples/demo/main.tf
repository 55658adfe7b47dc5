# What make demo applies, three times: a vcenter, a group by tag and a schedule;
# then a restore to a new VM; then one in place.

terraform {
  required_version = ">= 1.11"
  required_providers {
    kura = {
      source = "kura-backup/kura"
    }
  }
}

# KURA_ENDPOINT and KURA_TOKEN say where the server is.
provider "kura" {}

resource "kura_vcenter" "lab" {
  name                = "lab"
  endpoint            = var.endpoint
  username            = var.username
  password_wo         = var.password
  password_wo_version = 1
  thumbprint          = var.thumbprint
}

resource "kura_backup_group" "gold" {
  name = "gold"
  selector = {
    vcenter_id = kura_vcenter.lab.id
    tags       = [{ category = "backup", name = "gold" }]
  }
}

resource "kura_backup_schedule" "demo" {
  name           = "demo"
  group_id       = kura_backup_group.gold.id
  start_time     = var.start_time
  time_zone      = "Asia/Tokyo"
  daily          = {}
  retention_days = 7
}

data "kura_virtual_machines" "one" {
  count      = var.stage == "backup" ? 0 : 1
  vcenter_id = kura_vcenter.lab.id
  name       = var.virtual_machine
}

data "kura_backup_image" "latest" {
  count              = var.stage == "backup" ? 0 : 1
  virtual_machine_id = one(data.kura_virtual_machines.one[0].virtual_machines).id
  most_recent        = true
}

resource "kura_restore" "copy" {
  count    = var.stage == "backup" ? 0 : 1
  image_id = data.kura_backup_image.latest[0].id
  new_vm = {
    name = "${var.virtual_machine}-restored"
  }
}

resource "kura_restore" "in_place" {
  count    = var.stage == "in_place" ? 1 : 0
  image_id = data.kura_backup_image.latest[0].id
  in_place = {
    power_off = true
  }
}
