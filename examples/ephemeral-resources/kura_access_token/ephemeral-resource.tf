# A token for the kura command, as long as the run lasts.
ephemeral "kura_access_token" "backup" {
  role     = "backup"
  lifetime = "30m"
}

resource "terraform_data" "before_the_upgrade" {
  triggers_replace = ["2.4.0"]

  provisioner "local-exec" {
    command     = "kura vm backup erp --retention-days 7 --wait"
    environment = { KURA_TOKEN = ephemeral.kura_access_token.backup.token }
  }
}
