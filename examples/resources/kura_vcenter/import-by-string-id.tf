import {
  to = kura_vcenter.tokyo
  id = "name/tokyo"
}
