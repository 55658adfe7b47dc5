package pgtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Through makes an empty database for the test and returns an address of it
// that leads through a proxy.
func Through(t TB) (dsn string, p *Proxy) {
	t.Helper()
	name, _, _ := strings.Cut(strings.TrimPrefix(Database(t), "postgres://kura@/"), "?")
	c, err := one()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	p = NewProxy(t, "unix", c.Socket())
	return p.DSN(name), p
}

// DSN is the address, through the proxy, of the database of that name.
func (p *Proxy) DSN(name string) string {
	return "postgres://kura@" + p.Addr() + "/" + name + "?sslmode=disable"
}

// Standby makes a cluster that follows this one. Commits wait for it from then
// on, so that it has all that was acknowledged.
func (c *Cluster) Standby() (*Cluster, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	s := &Cluster{dir: dir, bin: c.bin, cred: &syscall.SysProcAttr{}}
	if err := s.follow(c); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (c *Cluster) follow(first *Cluster) (err error) {
	if c.lock, err = hold(c.dir); err != nil {
		return err
	}
	data, socket := filepath.Join(c.dir, "data"), filepath.Join(c.dir, "socket")
	if err := errors.Join(os.Chmod(c.dir, 0o755), os.Mkdir(data, 0o700), os.Mkdir(socket, 0o700)); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		if err := c.becomeAnother(c.dir, data, socket); err != nil {
			return err
		}
	}
	if err := c.run("pg_basebackup", "-h", filepath.Dir(first.Socket()), "-U", "kura", "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync"); err != nil {
		return err
	}
	c.args = append([]string{}, first.args...)
	c.args[1], c.args[3] = data, socket // behind -D and -k
	if err := c.serve(); err != nil {
		return err
	}
	return errors.Join(first.sql(`ALTER SYSTEM SET synchronous_standby_names = '*'`), first.sql(`SELECT pg_reload_conf()`))
}

// Promote makes a standby a server of its own that takes writes.
func (c *Cluster) Promote() error { return c.sql(`SELECT pg_promote()`) }
