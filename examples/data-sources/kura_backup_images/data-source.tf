data "kura_backup_images" "erp" {
  virtual_machine_name = "erp"
  status               = "good"
  limit                = 7
}

output "restore_points" {
  value = [for i in data.kura_backup_images.erp.images : i.point_in_time]
}
