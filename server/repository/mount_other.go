//go:build !linux

package repository

// mountOf tells the host, and the path there, of the network file system that a
// folder is mounted from; "" when that is not known.
func mountOf(string) (host, path string) { return "", "" }
