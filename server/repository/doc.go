// Package repository keeps images in kopia's storage format. It implements
// backup.Repositories and backup.Repository and is the only package that knows
// kopia: an image is one kopia snapshot, so that the stock program lists,
// checks and restores it without kura.
//
// It does not know vSphere, keeps no catalogue (the database does), decides
// nothing about schedules, retention or who may delete, and never repairs on
// its own what it finds damaged.
//
// From the outside in: [Repositories] opens storages and keeps them open,
// repository keeps images, imageWriter and diskWriter fill one, imageReader
// and diskReader read it. Below them, fileStore writes kopia's files so that
// they survive a power cut, s3Store and sftpStore do so elsewhere and are tried
// again when a network fails, and entryWriter and blockMap write and read the
// list of a disk's blocks.
package repository
