data "kura_restores" "all" {}

check "restores" {
  assert {
    condition     = alltrue([for r in data.kura_restores.all.restores : r.status != "failed"])
    error_message = join("\n", [for r in data.kura_restores.all.restores : "${r.created_at}: ${r.error_message}" if r.status == "failed"])
  }
}
