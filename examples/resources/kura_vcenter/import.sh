# By its name, or by its id.
terraform import kura_vcenter.tokyo name/tokyo
terraform import kura_vcenter.tokyo 01JDZK3Q8X4T9V2M6B7N5C1R0A
