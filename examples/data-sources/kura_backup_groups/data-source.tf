data "kura_backup_groups" "all" {
  depends_on = [kura_backup_group.gold, kura_backup_group.erp]
}

output "groups" {
  value = data.kura_backup_groups.all.groups[*].name
}
