package vsphere

import (
	"os"

	"golang.org/x/sys/unix"
)

// adviseRandom keeps the kernel from reading ahead: what lies between changed
// areas would be read from the datastore for nothing.
func adviseRandom(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM) // advice only
}
