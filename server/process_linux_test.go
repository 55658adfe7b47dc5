package server_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
	"github.com/kura-backup/terraform-provider-kura/server/repository/keytest"
	"github.com/kura-backup/terraform-provider-kura/server/store/pgtest"
)

// childConfig is the variable by which the test binary is told to be a server.
const childConfig = "KURA_TEST_CHILD"

// child is the configuration of a server process.
type child struct {
	Data     string
	KeyFile  string
	Database string
	Lease    time.Duration
	Slots    int
	CopyRate int64
	SmallMiB int    // of a small disk; 0 = there is none
	SmallDir string // where that is; "" = the place of the repository

	DeviceSocket string // of serveDevices; "" = no hot-add
	ProxyUUID    string
	NBDCommand   string

	Failpoints string // folder of the orders of package failpoint; "" = none
	ClockFile  string // of a fileClock; "" = the machine's clock

	StoragePlace string // whose faults the seed tells
	StorageSeed  uint64 // 0 = none
}

// TestMain makes the test binary a server where it is asked to be one, so that
// servers can be killed while the lab and the database live on.
func TestMain(m *testing.M) {
	keytest.Remember()
	if text := os.Getenv(childConfig); text != "" {
		if err := serveChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(pgtest.Main(m))
}

func serveChild(text string) error {
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if c.SmallMiB > 0 {
		if err := mountSmall(cmp.Or(c.SmallDir, filepath.Join(c.Data, "repository")), c.SmallMiB); err != nil {
			return err
		}
	}
	conf := quick(server.Config{Data: c.Data, KeyFile: c.KeyFile, Database: c.Database, Lease: c.Lease, Slots: c.Slots, CopyRate: c.CopyRate})
	conf.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	conf.ProxyUUID, conf.NBDCommand = c.ProxyUUID, c.NBDCommand
	if c.DeviceSocket != "" {
		conf.OpenDevice = newRemoteDevices(c.DeviceSocket).open
	}
	spoilStorage(c.StoragePlace, c.StorageSeed)
	if c.ClockFile != "" {
		clock, err := openClock(c.ClockFile)
		if err != nil {
			return err
		}
		conf.Now = clock.Now
	}
	s, err := server.New(ctx, conf)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Data, "url.tmp"), []byte(s.URL()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(c.Data, "url.tmp"), filepath.Join(c.Data, "url")); err != nil {
		return err
	}
	return errors.Join(s.Run(ctx), s.Close())
}

// process is a server in a process of its own.
type process struct {
	t    *testing.T
	conf child
	cmd  *exec.Cmd
	log  *os.File
	url  string

	ended chan struct{} // closed when the process is gone
	how   error         // how it ended; set before that
}

// spawn starts a server process that is killed at the end of the test.
func spawn(t *testing.T, c child) *process {
	t.Helper()
	if c.Data == "" {
		c.Data = t.TempDir()
	}
	p := &process{t: t, conf: c}
	var err error
	if p.log, err = os.OpenFile(filepath.Join(c.Data, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			b, _ := os.ReadFile(p.log.Name())
			t.Logf("log of the server:\n%s", b)
		}
		_ = p.log.Close()
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.launch()
	if err := p.answers(); err != nil {
		p.t.Fatal(err)
	}
}

// launch starts the process and does not wait for it.
func (p *process) launch() {
	p.t.Helper()
	conf, err := json.Marshal(p.conf)
	if err != nil {
		p.t.Fatal(err)
	}
	urlFile := filepath.Join(p.conf.Data, "url")
	if err := os.Remove(urlFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0], "-test.run=^$")
	p.cmd.Env = append(os.Environ(), childConfig+"="+string(conf), failpoint.Dir+"="+p.conf.Failpoints)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	if p.conf.SmallMiB > 0 {
		ownMounts(p.cmd.SysProcAttr)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		p.how = cmd.Wait()
		close(ended)
	}(p.cmd, p.ended)
}

// answers waits until the process serves.
func (p *process) answers() error {
	for end := time.Now().Add(time.Minute); ; {
		b, err := os.ReadFile(filepath.Join(p.conf.Data, "url"))
		if err == nil {
			p.url = strings.TrimSpace(string(b))
			return nil
		}
		if time.Now().After(end) {
			return errors.New("the server did not start within a minute")
		}
		select {
		case <-p.ended:
			return fmt.Errorf("the server ended before it served: %w", p.how)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kill is kill -9. A process that is dead already stays so.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// term asks the process to end and returns how long that took.
func (p *process) term() time.Duration {
	p.t.Helper()
	started := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if <-p.ended; p.how != nil {
		p.t.Errorf("the server ended with %v", p.how)
	}
	return time.Since(started)
}

func (p *process) tokenFile() string { return filepath.Join(p.conf.Data, "operator.token") }

// logged counts the lines of the process's log that match.
func (p *process) logged(pattern string) int {
	p.t.Helper()
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		p.t.Fatal(err)
	}
	return len(regexp.MustCompile(pattern).FindAll(b, -1))
}
