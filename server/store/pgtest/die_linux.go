package pgtest

import "syscall"

// dieWithParent has the kernel end the process when its parent dies.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGQUIT }
