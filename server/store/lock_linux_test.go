package store_test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// TestTheLockOfASQLiteDatabaseGoesWithItsServer even while a child process that
// is being started has the lock's file open, as it has until it runs its program.
func TestTheLockOfASQLiteDatabaseGoesWithItsServer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kura.db")
	p := place{dsn: "sqlite:" + path}
	first := p.open(t, nil)
	child := duplicate(t, path+".lock")
	defer func() { _ = syscall.Close(child) }()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	p.open(t, nil)
}

// duplicate opens what this process has open under a path once more, as a fork does.
func duplicate(t *testing.T, path string) int {
	t.Helper()
	const open = "/proc/self/fd"
	list, err := os.ReadDir(open)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, err := os.Readlink(filepath.Join(open, e.Name())); err != nil || to != path {
			continue // another file, or one that was closed meanwhile
		}
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		child, err := syscall.Dup(n)
		if err != nil {
			t.Fatal(err)
		}
		return child
	}
	t.Fatalf("%s is not open", path)
	return 0
}
