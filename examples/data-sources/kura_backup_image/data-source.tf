# The newest image of a machine that can be restored.
data "kura_backup_image" "newest" {
  virtual_machine_name = "erp"
  most_recent          = true
}

# The last one at or before a time.
data "kura_backup_image" "before" {
  virtual_machine_name = "erp"
  nearest_to           = "2099-12-01T09:30:00+09:00"
}
