package store

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// patience is how long PostgreSQL may be silent while something is asked of it.
// Where a firewall or a dead machine swallows packets nobody else would say so
// for a quarter of an hour.
const patience = time.Minute

// dial connects to PostgreSQL with the store's patience.
func (db *DB) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &patientConn{Conn: c, db: db}, nil
}

// patientConn is a connection on which no single read or write takes longer
// than the store's patience.
type patientConn struct {
	net.Conn
	db *DB

	mu          sync.Mutex // guards what follows
	read, write time.Time  // the deadlines that the driver has set
}

// Read reads what has come.
func (c *patientConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetReadDeadline(c.sooner(c.read))
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// Write sends.
func (c *patientConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetWriteDeadline(c.sooner(c.write))
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// SetDeadline is called by the driver when a context ends, in the middle of a
// read too.
func (c *patientConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read, c.write = t, t
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline is SetDeadline of reads.
func (c *patientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is SetDeadline of writes.
func (c *patientConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return c.Conn.SetWriteDeadline(t)
}

// sooner is the driver's deadline or the end of our patience. A migration may
// build an index for as long as it takes.
func (c *patientConn) sooner(t time.Time) time.Time {
	if c.db.migrating.Load() {
		return t
	}
	if own := time.Now().Add(c.db.patience); t.IsZero() || own.Before(t) {
		return own
	}
	return t
}

// takeTurn waits until no other Update of this server runs.
func (db *DB) takeTurn(ctx context.Context) (leave func(), err error) {
	t := time.NewTimer(db.patience)
	defer t.Stop()
	select {
	case db.turn <- struct{}{}:
		return func() { <-db.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.C:
		return nil, backup.Errorf(backup.Unavailable, "", "The database is busy, or does not answer. Try again in a moment.")
	}
}
