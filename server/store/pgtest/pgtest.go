// Package pgtest runs a throw-away PostgreSQL for tests. It is in no program
// that is shipped, and its server keeps nothing: it does not even wait for the
// disk.
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//	dsn := pgtest.Database(t)
package pgtest

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// TB is what of testing.TB is needed here.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// one is the cluster of this process, made by the first test that asks.
var one = sync.OnceValues(func() (*Cluster, error) { return Start() })

// started is set once a test has asked for the cluster.
var started struct {
	mu      sync.Mutex // guards cluster
	cluster *Cluster
}

// Main runs the tests and ends the cluster that they started, if any. It
// returns the exit status for os.Exit.
func Main(m interface{ Run() int }) int {
	status := m.Run()
	started.mu.Lock()
	defer started.mu.Unlock()
	if started.cluster == nil {
		return status
	}
	if err := started.cluster.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(status, 1)
	}
	return status
}

// Database makes an empty database for the test and returns its address. The
// database is dropped when the test ends.
func Database(t TB) string {
	t.Helper()
	c, err := one()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	started.mu.Lock()
	started.cluster = c
	started.mu.Unlock()
	name := "test_" + strings.ToLower(rand.Text())
	if err := c.sql(`CREATE DATABASE ` + name); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := c.sql(`DROP DATABASE ` + name + ` WITH (FORCE)`); err != nil {
			t.Fatalf("pgtest: %v", err)
		}
	})
	return c.DSN(name)
}

// Cluster is a running PostgreSQL with data of its own.
type Cluster struct {
	dir  string // everything is below it
	bin  string
	cred *syscall.SysProcAttr
	lock *os.File
	args []string // of the server
	end  func(syscall.Signal)
}

// DSN returns the address of the cluster's database of that name.
func (c *Cluster) DSN(name string) string {
	return "postgres://kura@/" + name + "?host=" + filepath.Join(c.dir, "socket")
}

// Socket is the file on which the server listens.
func (c *Cluster) Socket() string { return filepath.Join(c.dir, "socket", ".s.PGSQL.5432") }

// Close ends the server at once and removes its data.
func (c *Cluster) Close() error {
	c.Stop(syscall.SIGQUIT)
	return errors.Join(os.RemoveAll(c.dir), c.lock.Close())
}

// Stop ends the server: by SIGQUIT at once, as a crash would, by SIGINT once all
// transactions have been cut off, by SIGTERM once all clients have gone.
func (c *Cluster) Stop(how syscall.Signal) {
	if c.end != nil {
		c.end(how)
		c.end = nil
	}
}

// Again starts a server that was stopped on its data.
func (c *Cluster) Again() error { return c.serve() }

// Start makes a cluster in a temporary folder and returns when it answers. It
// listens on a Unix socket only and dies with this process. Settings such as
// "fsync=on" change those that make it fast.
func Start(settings ...string) (*Cluster, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	sweep()
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, bin: bin, cred: &syscall.SysProcAttr{}}
	if err := c.start(settings); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(settings []string) (err error) {
	if c.lock, err = hold(c.dir); err != nil {
		return err
	}
	data, socket := filepath.Join(c.dir, "data"), filepath.Join(c.dir, "socket")
	if err := errors.Join(os.Chmod(c.dir, 0o755), os.Mkdir(data, 0o700), os.Mkdir(socket, 0o700)); err != nil {
		return err
	}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		if err := c.becomeAnother(c.dir, data, socket); err != nil {
			return err
		}
	}
	if err := c.run("initdb", "-D", data, "-U", "kura", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"); err != nil {
		return err
	}
	args := []string{"-D", data, "-k", socket, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off",
		"-c", "max_connections=400", "-c", "shared_buffers=64MB", "-c", "autovacuum_naptime=5s", "-c", "logging_collector=off", "-c", "log_destination=stderr"}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	c.args = args
	return c.serve()
}

// becomeAnother gives the folders to a user other than root, who runs the
// programs.
func (c *Cluster) becomeAnother(dirs ...string) error {
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return fmt.Errorf("a user to run PostgreSQL as: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	c.cred.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	for _, d := range dirs {
		if err := os.Chown(d, int(uid), int(gid)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, program), args...) //nolint:gosec,noctx // a program of PostgreSQL, which ends with the cluster
	cmd.Dir = c.dir
	cmd.SysProcAttr = c.cred
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	return cmd
}

func (c *Cluster) run(program string, args ...string) error {
	if out, err := c.command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// sql runs one statement in the cluster's own database.
func (c *Cluster) sql(statement string) error {
	return c.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", filepath.Join(c.dir, "socket"), "-U", "kura", "-d", "postgres", "-c", statement)
}

// serve starts the server and waits for it to say that it is ready. The thread
// that starts it lives as long as it does, for the kernel ends the server when
// that thread dies, however this process ends.
func (c *Cluster) serve() error {
	ready, ended, stop := make(chan error, 1), make(chan struct{}), make(chan syscall.Signal, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := c.command("postgres", c.args...)
		attr := *c.cred
		dieWithParent(&attr)
		cmd.SysProcAttr = &attr
		log, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			ready <- err
			return
		}
		go watch(log, ready)
		go func() { _ = cmd.Process.Signal(<-stop) }() // one that is gone has ended too
		_ = cmd.Wait()                                 // ended by the signal above, which is no fault
		close(ended)
	}()
	if err := <-ready; err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	c.end = func(how syscall.Signal) {
		stop <- how
		<-ended
	}
	return nil
}

// watch reads the server's log to its end and tells when it is ready.
func watch(log io.Reader, ready chan<- error) {
	var seen []string
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if seen != nil && len(seen) < 50 {
			seen = append(seen, lines.Text())
		} else if seen == nil {
			seen = []string{lines.Text()}
		}
		if strings.Contains(lines.Text(), "ready to accept ") {
			select {
			case ready <- nil:
			default:
			}
		}
	}
	select {
	case ready <- fmt.Errorf("it ended before it was ready:\n%s", strings.Join(seen, "\n")):
	default:
	}
}

// programs finds the folder of PostgreSQL's programs, the newest of several.
func programs() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is right
	slices.SortFunc(dirs, func(a, b string) int { return version(b) - version(a) })
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "initdb")); err == nil {
			return d, nil
		}
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p), nil
	}
	return "", errors.New("the tests need PostgreSQL's programs (initdb, postgres, psql): install Debian's package postgresql")
}

func version(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir))) // 0 for another name: last
	return n
}

// prefix begins the names of the folders that clusters live in.
const prefix = "kura-pg-"

// hold locks a cluster's folder for as long as this process lives.
func hold(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweep removes what test processes left that were killed: the folders whose
// lock nobody holds.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*")) // the pattern is right
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "lock")); err != nil {
			continue // being made at this moment, or not ours
		}
		if f, err := hold(d); err == nil {
			_ = errors.Join(os.RemoveAll(d), f.Close()) // the next sweep tries again
		}
	}
}
