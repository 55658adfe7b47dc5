variable "vcenter_password" {
  type      = string
  ephemeral = true
}

resource "kura_vcenter" "tokyo" {
  name                = "tokyo"
  endpoint            = "https://vcenter.example.com"
  username            = "kura@vsphere.local"
  password_wo         = var.vcenter_password
  password_wo_version = 1
  thumbprint          = "9F:86:D0:81:88:4C:7D:65:9A:2F:EA:A0:C5:5A:D0:15:A3:BF:4F:1B:2B:0B:82:2C:D1:5D:6C:15:B0:F0:0A:08"
  time_zone           = "Asia/Tokyo"
  slot_capacity       = 10

  limits = {
    disks_per_host    = 10
    restores_per_pool = 2
  }

  tag_mappings = [
    { category = "backup", tag = "gold", key = "tier", value = "gold" },
  ]
}
