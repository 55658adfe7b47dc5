import {
  to = kura_repository.nas
  id = "name/nas"
}
