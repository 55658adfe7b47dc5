//go:build !failpoints && linux

package server_test

// spoilStorage leaves the storage as it is: only tests that are built to break
// things have faults for it.
func spoilStorage(string, uint64) {}

const storageFaults = 0
