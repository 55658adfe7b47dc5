//go:build failpoints && !unix

package failpoint

import "errors"

func end(string) error { return errors.New("a process can be broken on Unix only") }
