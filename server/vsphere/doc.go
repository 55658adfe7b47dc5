// Package vsphere speaks to vCenters and ESXi hosts: it reads their
// inventory, makes and removes snapshots, streams disks out over NFC leases,
// and makes or overwrites VMs of images. It implements backup.VSphere.
//
// It decides nothing about when a VM is backed up or what is kept, keeps no
// state beyond live sessions, and never touches a snapshot, a VM or a file
// that does not carry the marker of the installation that asks. What an image
// is made of it reads through backup.ImageReader and knows no repository.
package vsphere
