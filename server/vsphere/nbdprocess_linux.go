package vsphere

import (
	"os/exec"
	"syscall"
)

// ownProcess gives a program a group of processes, so that what it starts ends
// with it, and lets it end when this server is killed: it would hold the
// snapshot's disks.
func ownProcess(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

func endProcess(cmd *exec.Cmd, sig syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, sig) }
