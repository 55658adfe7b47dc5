package vsphere

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain is the entry of the process that a test kills, too.
func TestMain(m *testing.M) {
	if program := os.Getenv("KURA_TEST_SERVE"); program != "" {
		n := &nbdServer{exited: make(chan struct{})}
		s := &Session{config: Config{NBDCommand: program}, login: &login{user: url.UserPassword("user", "password")}}
		if err := n.start(s, nbdDraft{}, writeDisk{}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		<-n.exited
	}
	os.Exit(m.Run())
}

func TestAServerThatIsKilledTakesTheProgramsAlong(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "serve")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho $$ >"+dir+"/new; mv "+dir+"/new "+dir+"/pid\nexec nbdkit -f -U \"$KURA_NBD_SOCKET\" memory 1M\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	server := exec.CommandContext(t.Context(), os.Args[0])
	server.Env = append(os.Environ(), "KURA_TEST_SERVE="+program, "TMPDIR="+dir)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	await := func(what string, done func() bool) {
		for end := time.Now().Add(20 * time.Second); !done(); <-tick.C {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	pid := 0
	await("the program was not started", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	})
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait() // it was killed
	await("the program still runs", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, state, _ := strings.Cut(string(b), ") ")
		return err != nil || strings.HasPrefix(state, "Z")
	})
}
