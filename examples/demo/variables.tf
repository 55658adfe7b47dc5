variable "stage" {
  description = "How far to go: backup, new_vm or in_place."
  type        = string
  default     = "backup"
  validation {
    condition     = contains(["backup", "new_vm", "in_place"], var.stage)
    error_message = "stage must be backup, new_vm or in_place."
  }
}

variable "endpoint" {
  description = "Where the vCenter answers, such as https://vcenter.example.com."
  type        = string
}

variable "username" {
  description = "User that kura logs in to the vCenter with."
  type        = string
}

variable "password" {
  description = "That user's password. It is in no state and no plan."
  type        = string
  sensitive   = true
  ephemeral   = true
}

variable "thumbprint" {
  description = "SHA-256 of the vCenter's certificate."
  type        = string
}

variable "virtual_machine" {
  description = "Name of the VM to restore."
  type        = string
}

variable "start_time" {
  description = "Hour in Asia/Tokyo at which the schedule runs by itself."
  type        = string
  default     = "02:00"
}
