import {
  to = kura_backup_group.gold
  identity = {
    id = "01JDZK3Q8X4T9V2M6B7N5C1R0B"
  }
}
