package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server"
)

// bytesAt writes into a file that is there.
func bytesAt(t *testing.T, file string, off int64, p []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(p, off)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAServerSaysWhatIsWrongWithItsFilesAndWhatToDo starts on folders to which
// something has happened. It changes nothing in them.
func TestAServerSaysWhatIsWrongWithItsFilesAndWhatToDo(t *testing.T) {
	t.Parallel()
	whole := t.TempDir()
	_, stop := passing(t, server.Config{Data: whole})
	stop()
	other := t.TempDir()
	_, stop = passing(t, server.Config{Data: other})
	stop()
	for name, c := range map[string]struct {
		happens func(t *testing.T, data string)
		want    []string
	}{
		"another file in its place": {func(t *testing.T, data string) {
			must(t, os.WriteFile(filepath.Join(data, "kura.db"), []byte(strings.Repeat("no database ", 1000)), 0o600))
		}, []string{"kura.db", "catalog recover"}},
		"truncated": {func(t *testing.T, data string) {
			must(t, os.Truncate(filepath.Join(data, "kura.db"), 20000))
		}, []string{"kura.db", "is damaged", "catalog recover"}},
		"zeroes in the middle": {func(t *testing.T, data string) {
			bytesAt(t, filepath.Join(data, "kura.db"), 4096, make([]byte, 64<<10))
		}, []string{"kura.db", "is damaged", "catalog recover"}},
		"gone": {func(t *testing.T, data string) {
			must(t, os.Remove(filepath.Join(data, "kura.db")))
		}, []string{"kura.db", "is not there or is empty", "catalog recover"}},
		"empty": {func(t *testing.T, data string) {
			must(t, os.Truncate(filepath.Join(data, "kura.db"), 0))
		}, []string{"kura.db", "is not there or is empty"}},
		"the key is gone": {func(t *testing.T, data string) {
			must(t, os.Remove(filepath.Join(data, "kura.key")))
		}, []string{"kura.key", "catalog recover"}},
		"the key of another installation": {func(t *testing.T, data string) {
			(&world{T: t}).copyFile(filepath.Join(other, "kura.key"), filepath.Join(data, "kura.key"))
		}, []string{"kura.key", "not the one"}},
		"the database of another installation": {func(t *testing.T, data string) {
			(&world{T: t}).copyFile(filepath.Join(other, "kura.db"), filepath.Join(data, "kura.db"))
		}, []string{"kura.key", "not the one"}},
		"the database may not be written": {func(t *testing.T, data string) {
			must(t, os.Remove(filepath.Join(data, "kura.db.lock")))
			must(t, os.Mkdir(filepath.Join(data, "kura.db.lock"), 0o700))
		}, []string{"kura.db.lock", "cannot be opened for writing"}},
	} {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			must(t, os.CopyFS(data, os.DirFS(whole)))
			c.happens(t, data)
			s, err := server.New(t.Context(), quick(server.Config{Data: data}))
			if err == nil {
				t.Fatal("the server starts", s.Close())
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("it says %q, want %q in it", err, want)
				}
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
