//go:build !failpoints

package repository

// withFaults is the storage itself: only tests make it fail.
func withFaults(s storage) storage { return s }
