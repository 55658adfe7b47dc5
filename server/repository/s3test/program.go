package s3test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
)

// programs are the programs of others that tests call, by their packages.
var programs = map[string]string{
	"kopia":     "github.com/kopia/kopia",
	"versitygw": "github.com/versity/versitygw/cmd/versitygw",
}

var building sync.Mutex

// Program is the path of a program that a module below tools/peers names, built
// where make has not done so.
func Program(name string) (string, error) {
	building.Lock()
	defer building.Unlock()
	_, here, _, _ := runtime.Caller(0)
	root, err := filepath.Abs(filepath.Join(filepath.Dir(here), "../../.."))
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "build", "peers", name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	half := path + "." + strconv.Itoa(os.Getpid())
	c := exec.CommandContext(context.Background(), "go", "-C", filepath.Join(root, "tools", "peers", name), "build", "-o", half, programs[name]) // #nosec G204 -- a name of the list above
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return path, os.Rename(half, path)
}
