//go:build failpoints

package failpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// On says whether the places are compiled in.
const On = true

var (
	dir = os.Getenv(Dir) //nolint:forbidigo // whoever starts the process says whether it breaks
	mu  sync.Mutex       // one place at a time, so that the lines of passed are in order
)

// Hit is a place at which a test may end or halt the process.
func Hit(name string) {
	if dir == "" {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	note(name)
	action, left := armed(name)
	if action == "" {
		return
	}
	order := filepath.Join(dir, name)
	if left > 1 {
		must(os.WriteFile(order, fmt.Appendf(nil, "%s %d", action, left-1), 0o600))
		return
	}
	must(os.Remove(order)) // once: the next process passes
	note(name + " " + action)
	must(end(action))
}

// Without says whether a test has taken a safeguard away, to see that this is
// found out.
func Without(name string) bool {
	if dir == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, "without-"+name))
	return err == nil
}

// armed reads what is to be done at a place, and how many times from now on it
// is come to until then.
func armed(name string) (action string, left int) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0
	}
	must(err)
	action, n, counted := strings.Cut(strings.TrimSpace(string(b)), " ")
	left = 1
	if counted {
		left, err = strconv.Atoi(n)
		must(err)
	}
	return action, left
}

// note tells whoever started the process how far it came.
func note(line string) {
	f, err := os.OpenFile(filepath.Join(dir, "passed"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(err)
	_, err = fmt.Fprintln(f, line)
	must(errors.Join(err, f.Close()))
}

// must ends the test's process: one that is not broken as asked shows nothing.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("failpoint: %v", err))
	}
}
