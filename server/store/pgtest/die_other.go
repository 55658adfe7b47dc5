//go:build !linux

package pgtest

import "syscall"

// dieWithParent does nothing where the kernel has no such thing: a test that
// is killed leaves its server running.
func dieWithParent(*syscall.SysProcAttr) {}
