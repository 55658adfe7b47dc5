#!/bin/sh
# Makes the role that Kura needs at the least. Set GOVC_URL, GOVC_USERNAME and GOVC_PASSWORD of an
# administrator, run it, and give the role to Kura's account on the root folder, with propagation:
#   govc permissions.set -principal DOMAIN\\kura -role Kura -propagate=true /
set -e
govc role.create Kura \
  VirtualMachine.State.CreateSnapshot \
  VirtualMachine.State.RemoveSnapshot \
  VApp.Export \
  VirtualMachine.Provisioning.DiskRandomRead \
  VirtualMachine.Provisioning.GetVmFiles \
  VirtualMachine.Config.ChangeTracking \
  VirtualMachine.Interact.PowerOff \
  VirtualMachine.Interact.PowerOn \
  Datastore.Browse \
  Datastore.FileManagement \
  VApp.Import \
  Resource.AssignVMToPool \
  Datastore.AllocateSpace \
  Network.Assign \
  VirtualMachine.State.RevertToSnapshot \
  VirtualMachine.Inventory.Create \
  VirtualMachine.Inventory.Delete \
  VirtualMachine.Config.AddNewDisk \
  VirtualMachine.Config.AddExistingDisk \
  VirtualMachine.Config.RemoveDisk \
  VirtualMachine.Config.AddRemoveDevice \
  VirtualMachine.Config.EditDevice \
  VirtualMachine.Config.AdvancedConfig \
  VirtualMachine.Config.Settings \
  VirtualMachine.Config.CPUCount \
  VirtualMachine.Config.Memory \
  VirtualMachine.Config.Resource \
  VirtualMachine.Config.Annotation \
  VirtualMachine.Config.Rename \
  VirtualMachine.Provisioning.DiskRandomAccess \
  VirtualMachine.Provisioning.PutVmFiles \
  VirtualMachine.Config.DiskLease \
  VirtualMachine.Provisioning.MarkAsTemplate \
  Global.SetCustomField \
  InventoryService.Tagging.AttachTag \
  StorageProfile.View

# What each is needed to do:
#   VirtualMachine.State.CreateSnapshot: make the snapshot that a backup reads (backup, restore)
#   VirtualMachine.State.RemoveSnapshot: remove the snapshot of a backup and consolidate the disks (backup, restore)
#   VApp.Export: read disks over HTTPS (the transport nfc) (backup)
#   VirtualMachine.Provisioning.DiskRandomRead: ask which blocks have changed, and read disks over nbd (backup)
#   VirtualMachine.Provisioning.GetVmFiles: read the files of a VM, its NVRAM among them (backup)
#   VirtualMachine.Config.ChangeTracking: switch the tracking of changed blocks on (backup, restore)
#   VirtualMachine.Interact.PowerOff: shut a guest down for an offline backup, and power a VM off before it is overwritten (backup, restore)
#   VirtualMachine.Interact.PowerOn: power a VM on again after an offline backup or a restore (backup, restore)
#   Datastore.Browse: read the NVRAM and see what lies on a datastore (backup, restore)
#   Datastore.FileManagement: read and write the NVRAM, and move and delete disks that a restore replaces (backup, restore)
#   VApp.Import: send disks of a restored VM over HTTPS (restore)
#   Resource.AssignVMToPool: put a restored VM into a resource pool (restore)
#   Datastore.AllocateSpace: make the disks of a restored VM (backup, restore)
#   Network.Assign: connect a restored VM to its networks (restore)
#   VirtualMachine.State.RevertToSnapshot: give a VM its old disks again when a restore that writes into them failed (restore)
#   VirtualMachine.Inventory.Create: make a restored VM (restore)
#   VirtualMachine.Inventory.Delete: remove the half VM of a restore that failed (restore)
#   VirtualMachine.Config.AddNewDisk: make the disks of a restored VM (restore)
#   VirtualMachine.Config.AddExistingDisk: put restored disks into a VM, and attach disks for hotadd (backup, restore)
#   VirtualMachine.Config.RemoveDisk: take replaced disks out of a VM, and detach disks of hotadd (backup, restore)
#   VirtualMachine.Config.AddRemoveDevice: give a restored VM its controllers and network cards (backup, restore)
#   VirtualMachine.Config.EditDevice: give a restored VM its devices as they were (restore)
#   VirtualMachine.Config.AdvancedConfig: give a restored VM its advanced settings, and mark what is under way (backup, restore)
#   VirtualMachine.Config.Settings: give a restored VM its settings (restore)
#   VirtualMachine.Config.CPUCount: give a restored VM its processors (restore)
#   VirtualMachine.Config.Memory: give a restored VM its memory (restore)
#   VirtualMachine.Config.Resource: give a restored VM its shares and reservations (restore)
#   VirtualMachine.Config.Annotation: mark a VM that a restore is making or overwriting (restore)
#   VirtualMachine.Config.Rename: give a restored VM its name (restore)
#   VirtualMachine.Provisioning.DiskRandomAccess: write disks over nbd (restore; optional)
#   VirtualMachine.Provisioning.PutVmFiles: write the files of a VM, its NVRAM among them (restore; optional)
#   VirtualMachine.Config.DiskLease: hold a disk while it is read or written over nbd (backup, restore; optional)
#   VirtualMachine.Provisioning.MarkAsTemplate: restore as a template (restore; optional)
#   Global.SetCustomField: give a restored VM its custom attributes (restore; optional)
#   InventoryService.Tagging.AttachTag: give a restored VM its tags (restore; optional)
#   StorageProfile.View: name the storage policy of a VM and restore with one (backup, restore; optional)
