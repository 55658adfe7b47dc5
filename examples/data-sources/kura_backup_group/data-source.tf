data "kura_backup_group" "gold" {
  name = kura_backup_group.gold.name
}

output "gold_members" {
  value = data.kura_backup_group.gold.member_names
}
