//go:build !linux

package vsphere

import "os"

// adviseRandom does nothing where there is no such advice.
func adviseRandom(*os.File) {}
