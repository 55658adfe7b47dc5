package repository

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	dialTime = 30 * time.Second
	// pulse is how often a server is asked whether it lives. One that does not
	// answer until the next time is given up: its requests would wait for ever.
	pulse = 20 * time.Second

	// What a server must be able to do beyond the bare protocol.
	posixRename = "posix-rename@openssh.com"
	fileSync    = "fsync@openssh.com"
)

// sftpLink keeps one connection to a server, on which requests run side by
// side, and makes a new one when it breaks.
type sftpLink struct {
	address string
	config  *ssh.ClientConfig

	mu   sync.Mutex // guards conn; held while one is made
	conn *sftpConn
}

// sftpConn is a connection. It is closed when its server stops answering.
type sftpConn struct {
	*sftp.Client
	ssh  *ssh.Client
	end  sync.Once
	done chan struct{}  // closed at the end
	wait sync.WaitGroup // for beat
}

// use runs fn on the connection. A try that runs out of time takes the
// connection with it: there is no other way to end a request.
func (l *sftpLink) use(ctx context.Context, fn func(c *sftpConn) error) error {
	c, err := l.connected(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), errTooSlow) {
			c.close()
		}
	})
	defer stop()
	err = fn(c)
	if broken(err) {
		c.close()
	}
	return err
}

func (l *sftpLink) connected(ctx context.Context) (*sftpConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		select {
		case <-l.conn.done:
			l.conn.wait.Wait()
		default:
			return l.conn, nil
		}
	}
	c, err := l.dial(ctx)
	l.conn = c
	return c, err
}

func (l *sftpLink) dial(ctx context.Context) (*sftpConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", l.address)
	if err != nil {
		return nil, dialError(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() }) // what waits for it then fails and tells
	defer stop()
	conn, channels, requests, err := ssh.NewClientConn(raw, l.address, l.config)
	if err != nil {
		return nil, errors.Join(dialError(err), raw.Close())
	}
	client := ssh.NewClient(conn, channels, requests)
	files, err := sftp.NewClient(client, sftp.UseConcurrentWrites(true), sftp.UseConcurrentReads(true))
	if err != nil {
		return nil, errors.Join(dialError(err), client.Close())
	}
	if _, ok := files.HasExtension(posixRename); !ok {
		err := &trouble{"its SFTP server cannot replace a file in one step (" + posixRename + "); take one that can, such as OpenSSH's", true, errors.ErrUnsupported}
		return nil, errors.Join(err, files.Close(), client.Close())
	}
	c := &sftpConn{Client: files, ssh: client, done: make(chan struct{})}
	c.wait.Go(c.beat)
	return c, nil
}

// dialError tells what waiting heals from what it does not.
func dialError(err error) error {
	var key *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &key), errors.As(err, &revoked):
		return &trouble{"its key is not the one in known_hosts: somebody may stand in between; if the server has a new key, compare it and change known_hosts", true, err}
	case strings.Contains(err.Error(), "unable to authenticate"):
		return &trouble{"it does not accept the user and the private key; add the public key to the user's authorized_keys", true, err}
	case strings.Contains(err.Error(), "no common algorithm for host key"):
		return &trouble{"it has no key of a kind that known_hosts names; compare its key and change known_hosts", true, err}
	}
	return fmt.Errorf("connect: %w", err)
}

// beat asks the server again and again whether it is there.
func (c *sftpConn) beat() {
	t := time.NewTicker(pulse)
	defer t.Stop()
	answers := make(chan error, 1)
	waiting := false
	for {
		select {
		case <-c.done:
			return
		case err := <-answers:
			if waiting = false; err != nil {
				c.close()
				return
			}
		case <-t.C:
			if waiting {
				c.close()
				return
			}
			waiting = true
			go func() { // ends with the connection at the latest
				_, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil)
				answers <- err
			}()
		}
	}
}

// close ends the connection: what waits for an answer fails.
func (c *sftpConn) close() {
	c.end.Do(func() {
		close(c.done)
		_ = c.ssh.Close() // first: the client below waits for what the server says
		_ = c.Client.Close()
	})
}

// close ends the connection and waits for what belongs to it.
func (l *sftpLink) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.close()
		l.conn.wait.Wait()
		l.conn = nil
	}
}

// broken says whether an error may mean that the connection is of no use. An
// answer of the server means that it lives.
func broken(err error) bool {
	var status *sftp.StatusError
	return err != nil && !errors.As(err, &status) && !lasting(err)
}
