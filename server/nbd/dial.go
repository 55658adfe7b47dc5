// Package nbd is a client of the network block device protocol: it reads and
// writes an export of a server such as nbdkit, several requests at a time, and
// asks which parts of it are zero. It knows nothing of disks, snapshots or
// what serves them, and never encrypts: it connects to this machine only.
package nbd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Config says how to speak to a server. The zero value has the defaults given.
type Config struct {
	Export string        // its name; "" is the server's own choice
	Stall  time.Duration // a request without an answer for so long ends the connection; default 5 min
}

// Conn is a connection to an export. Its methods may be called at the same
// time, and their requests are in flight together. Whatever is wrong with the
// connection itself ends it: all that wait get the reason, and all later calls.
type Conn struct {
	net    net.Conn
	stall  time.Duration
	export export

	send sync.Mutex // held while a request goes out

	mu      sync.Mutex // guards what follows
	waiting map[uint64]*request
	cookie  uint64
	err     error // why the connection has ended

	done chan struct{} // closed when nothing is received any more
}

// Dial connects to the server at a unix socket or at a port of this machine.
// The context bounds the handshake, which lasts until the server has opened
// what it serves.
func Dial(ctx context.Context, network, address string, c Config) (*Conn, error) {
	if err := local(network, address); err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return New(ctx, conn, c)
}

// local refuses to send a disk over a network in the clear.
func local(network, address string) error {
	if network == "unix" {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("nbd to %s would not be encrypted: only unix sockets and loopback addresses will do", address)
	}
	return nil
}

// New shakes hands over a connection, which from then on belongs to it.
func New(ctx context.Context, conn net.Conn, c Config) (*Conn, error) {
	if c.Stall == 0 {
		c.Stall = 5 * time.Minute
	}
	n := &Conn{net: conn, stall: c.Stall, waiting: map[uint64]*request{}, done: make(chan struct{})}
	// What is sent to us is read in small pieces here; data passes the buffer by.
	in := bufio.NewReaderSize(conn, 4<<10)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	h := handshake{in: in, out: conn}
	var err error
	n.export, err = h.run(c.Export)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("nbd handshake: %w", err)
	}
	go n.receive(in)
	return n, nil
}

// Size is the export's size in bytes.
func (c *Conn) Size() int64 { return c.export.size }

// ReadOnly says whether the server takes no writes.
func (c *Conn) ReadOnly() bool { return c.export.flags&flagReadOnly != 0 }

// CanExtents says whether the server tells which parts are zero.
func (c *Conn) CanExtents() bool { return c.export.allocation }

// Close takes leave of the server and ends the connection. Requests that wait
// fail with [ErrClosed].
func (c *Conn) Close() error {
	if !c.ended() && c.send.TryLock() { // who sends may be stuck: then there is no leave to take
		_ = c.net.SetWriteDeadline(time.Now().Add(min(c.stall, time.Second)))
		_, _ = c.net.Write(header(cmdDisconnect, 0, 0, 0, 0))
		c.send.Unlock()
	}
	c.Abort(ErrClosed)
	return nil
}

func (c *Conn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// Abort ends the connection at once: requests that wait fail with the cause,
// and when it returns nothing writes into their buffers any more.
func (c *Conn) Abort(cause error) {
	c.fail(cause)
	<-c.done
}

// fail notes why the connection ends, and ends it.
func (c *Conn) fail(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = cause
		_ = c.net.Close()
	}
}

// receive takes replies until the connection ends. It alone lets requests go,
// so that no buffer is written to after its owner has it back.
func (c *Conn) receive(in *bufio.Reader) {
	defer close(c.done)
	err := c.replies(in)
	c.fail(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	for cookie, r := range c.waiting {
		delete(c.waiting, cookie)
		r.finish(fmt.Errorf("%s: %w", r, c.err))
	}
}

var errNotOffered = errors.New("the server does not offer it")
