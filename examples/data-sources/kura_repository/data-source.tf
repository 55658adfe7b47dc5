data "kura_repository" "default" {
  name = "default"
}

output "images" {
  value = data.kura_repository.default.image_count
}
