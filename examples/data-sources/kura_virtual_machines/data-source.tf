data "kura_virtual_machines" "gold" {
  vcenter_id = kura_vcenter.tokyo.id
  tags       = [{ category = "backup", name = "gold" }]
}
