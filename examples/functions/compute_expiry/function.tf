# 2027-01-01T02:00:00+09:00
output "kept_until" {
  value = provider::kura::compute_expiry("2026-12-01T02:00:00+09:00", 31)
}
