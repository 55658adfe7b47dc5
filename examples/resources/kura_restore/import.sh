# By its id; a restore has no name.
terraform import kura_restore.copy 01JDZK3Q8X4T9V2M6B7N5C1R0J
