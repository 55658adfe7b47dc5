import {
  to = kura_image_hold.audit
  identity = {
    id = "01JDZK3Q8X4T9V2M6B7N5C1R0E/01JDZK3Q8X4T9V2M6B7N5C1R0P"
  }
}
