terraform {
  required_providers {
    kura = {
      source = "kura-backup/kura"
    }
  }
}

# The token comes from the variable KURA_TOKEN.
provider "kura" {
  endpoint = "https://kura.example.com:8480"
}
