output "schedule" {
  description = "The schedule's id, for kura schedule show."
  value       = kura_backup_schedule.demo.id
}

output "image" {
  description = "The image that was restored."
  value       = one(data.kura_backup_image.latest[*].id)
}

output "restored_vm" {
  description = "The new VM."
  value       = one(kura_restore.copy[*].restored_vm)
}
