# By its name, or by its id.
terraform import kura_backup_group.gold name/gold
terraform import kura_backup_group.gold 01JDZK3Q8X4T9V2M6B7N5C1R0B
