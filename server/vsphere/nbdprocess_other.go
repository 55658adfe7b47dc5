//go:build !linux

package vsphere

import (
	"os/exec"
	"syscall"
)

// ownProcess does nothing where processes have no such ties.
func ownProcess(*exec.Cmd) {}

func endProcess(cmd *exec.Cmd, sig syscall.Signal) error { return cmd.Process.Signal(sig) }
