import {
  to = kura_restore.copy
  identity = {
    id = "01JDZK3Q8X4T9V2M6B7N5C1R0J"
  }
}
