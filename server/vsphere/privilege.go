package vsphere

import (
	"slices"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// What of kura's a privilege is for.
const (
	forBackup  = "backup"
	forRestore = "restore"
)

// The kinds of objects that privileges are wanted on.
const (
	onRoot      = "Folder" // the root folder: what no other object has
	onVM        = "VirtualMachine"
	onDatastore = "Datastore"
	onPool      = "ResourcePool"
	onNetwork   = "Network"
)

// Privileges are all that kura uses of an account, and so the role that is the
// least: what it does with each, and where.
func Privileges() []backup.Privilege {
	both, restore := []string{forBackup, forRestore}, []string{forRestore}
	all := []backup.Privilege{
		{ID: "VirtualMachine.State.CreateSnapshot", For: "make the snapshot that a backup reads", On: onVM, Parts: both},
		{ID: "VirtualMachine.State.RemoveSnapshot", For: "remove the snapshot of a backup and consolidate the disks", On: onVM, Parts: both},
		{ID: "VApp.Export", For: "read disks over HTTPS (the transport nfc)", On: onVM, Parts: []string{forBackup}},
		{ID: "VirtualMachine.Provisioning.DiskRandomRead", For: "ask which blocks have changed, and read disks over nbd", On: onVM, Parts: []string{forBackup}},
		{ID: "VirtualMachine.Provisioning.GetVmFiles", For: "read the files of a VM, its NVRAM among them", On: onVM, Parts: []string{forBackup}},
		{ID: "VirtualMachine.Config.ChangeTracking", For: "switch the tracking of changed blocks on", On: onVM, Parts: both},
		{ID: "VirtualMachine.Interact.PowerOff", For: "shut a guest down for an offline backup, and power a VM off before it is overwritten", On: onVM, Parts: both},
		{ID: "VirtualMachine.Interact.PowerOn", For: "power a VM on again after an offline backup or a restore", On: onVM, Parts: both},
		{ID: "Datastore.Browse", For: "read the NVRAM and see what lies on a datastore", On: onDatastore, Parts: both},
		{ID: "Datastore.FileManagement", For: "read and write the NVRAM, and move and delete disks that a restore replaces", On: onDatastore, Parts: both},

		{ID: "VApp.Import", For: "send disks of a restored VM over HTTPS", On: onPool, Parts: restore},
		{ID: "Resource.AssignVMToPool", For: "put a restored VM into a resource pool", On: onPool, Parts: restore},
		{ID: "Datastore.AllocateSpace", For: "make the disks of a restored VM", On: onDatastore, Parts: both},
		{ID: "Network.Assign", For: "connect a restored VM to its networks", On: onNetwork, Parts: restore},
		{ID: "VirtualMachine.State.RevertToSnapshot", For: "give a VM its old disks again when a restore that writes into them failed", On: onVM, Parts: restore},
		{ID: "VirtualMachine.Inventory.Create", For: "make a restored VM", On: onRoot, Parts: restore},
		{ID: "VirtualMachine.Inventory.Delete", For: "remove the half VM of a restore that failed", On: onRoot, Parts: restore},
		{ID: "VirtualMachine.Config.AddNewDisk", For: "make the disks of a restored VM", On: onVM, Parts: restore},
		{ID: "VirtualMachine.Config.AddExistingDisk", For: "put restored disks into a VM, and attach disks for hotadd", On: onVM, Parts: both},
		{ID: "VirtualMachine.Config.RemoveDisk", For: "take replaced disks out of a VM, and detach disks of hotadd", On: onVM, Parts: both},
		{ID: "VirtualMachine.Config.AddRemoveDevice", For: "give a restored VM its controllers and network cards", On: onVM, Parts: both},
		{ID: "VirtualMachine.Config.EditDevice", For: "give a restored VM its devices as they were", On: onVM, Parts: restore},
		{ID: "VirtualMachine.Config.AdvancedConfig", For: "give a restored VM its advanced settings, and mark what is under way", On: onVM, Parts: both},
		{ID: "VirtualMachine.Config.Settings", For: "give a restored VM its settings", On: onVM, Parts: restore},
		{ID: "VirtualMachine.Config.CPUCount", For: "give a restored VM its processors", On: onVM, Parts: restore},
		{ID: "VirtualMachine.Config.Memory", For: "give a restored VM its memory", On: onVM, Parts: restore},
		{ID: "VirtualMachine.Config.Resource", For: "give a restored VM its shares and reservations", On: onVM, Parts: restore},
		{ID: "VirtualMachine.Config.Annotation", For: "mark a VM that a restore is making or overwriting", On: onVM, Parts: restore},
		{ID: "VirtualMachine.Config.Rename", For: "give a restored VM its name", On: onVM, Parts: restore},

		{ID: "VirtualMachine.Provisioning.DiskRandomAccess", For: "write disks over nbd", On: onVM, Parts: restore, Optional: true},
		{ID: "VirtualMachine.Provisioning.PutVmFiles", For: "write the files of a VM, its NVRAM among them", On: onVM, Parts: restore, Optional: true},
		{ID: "VirtualMachine.Config.DiskLease", For: "hold a disk while it is read or written over nbd", On: onVM, Parts: both, Optional: true},
		{ID: "VirtualMachine.Provisioning.MarkAsTemplate", For: "restore as a template", On: onVM, Parts: restore, Optional: true},
		{ID: "Global.SetCustomField", For: "give a restored VM its custom attributes", On: onVM, Parts: restore, Optional: true},
		{ID: "InventoryService.Tagging.AttachTag", For: "give a restored VM its tags", On: onRoot, Parts: restore, Optional: true},
		{ID: "StorageProfile.View", For: "name the storage policy of a VM and restore with one", On: onRoot, Parts: both, Optional: true},
	}
	return slices.Clip(all)
}
