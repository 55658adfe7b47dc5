import {
  to = kura_repository.nas
  identity = {
    id = "01JDZK3Q8X4T9V2M6B7N5C1R0D"
  }
}
