//go:build failpoints && unix

package failpoint

import (
	"fmt"
	"os"
	"syscall"
)

// end ends the process as kill -9 does, or halts it until SIGCONT.
func end(action string) error {
	switch action {
	case "kill":
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			return err
		}
		select {}
	case "stop":
		return syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
	return fmt.Errorf("%q is neither kill nor stop", action)
}
