import {
  to = kura_backup_group.gold
  id = "name/gold"
}
