variable "s3_access_key" {
  type      = string
  ephemeral = true
}

variable "s3_secret_key" {
  type      = string
  ephemeral = true
}

# Away from the first site, in a bucket that refuses to delete what images need.
resource "kura_repository" "second_site" {
  name = "second-site"

  s3 = {
    endpoint           = "s3.example.com"
    bucket             = "images"
    prefix             = "kura/"
    access_key_wo      = var.s3_access_key
    secret_key_wo      = var.s3_secret_key
    secrets_wo_version = 1
    object_lock        = { mode = "compliance", days = 30 }
  }

  compression = "zstd-fastest"
  verify_days = 14
}

# A share that the server has mounted.
resource "kura_repository" "nas" {
  name       = "nas"
  filesystem = { path = "/mnt/nas/kura" }
}
