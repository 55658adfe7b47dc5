# By its name, or by its id.
terraform import kura_repository.nas name/nas
terraform import kura_repository.nas 01JDZK3Q8X4T9V2M6B7N5C1R0D
