package pgtest

import (
	"bytes"
	"net"
	"sync"
)

// Cut is what happens to a COMMIT on its way.
type Cut int

// The ways to lose one.
const (
	BeforeCommit Cut = iota + 1 // the database never sees it
	AfterCommit                 // it is done, and the answer is lost
)

// Proxy is a way to a server, on which things go wrong: connections are cut, or
// bytes stay on the way without an end, as where a firewall drops them.
type Proxy struct {
	network, address string
	listener         net.Listener

	mu    sync.Mutex // guards what follows
	moved *sync.Cond // holed or links have changed
	holed bool
	cut   Cut // of the next COMMIT; 0 = none
	cuts  int
	links map[net.Conn]net.Conn
	over  bool
}

// NewProxy listens on a port of its own and passes on to that address. It ends
// with the test.
func NewProxy(t TB, network, address string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	p := &Proxy{network: network, address: address, listener: l, links: map[net.Conn]net.Conn{}}
	p.moved = sync.NewCond(&p.mu)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		p.mu.Lock()
		p.over, p.holed = true, false
		p.mu.Unlock()
		_ = l.Close()
		p.CutAll()
		wg.Wait()
	})
	return p
}

// Addr is host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Another is a second way to the same server.
func (p *Proxy) Another(t TB) *Proxy {
	t.Helper()
	return NewProxy(t, p.network, p.address)
}

// To sends new connections to another address.
func (p *Proxy) To(network, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network, p.address = network, address
}

// Blackhole lets nothing through any more, in neither direction, and closes
// nothing; false lets through what waits, too.
func (p *Proxy) Blackhole(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holed = on
	p.moved.Broadcast()
}

// CutAll cuts all connections.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, b := range p.links {
		_, _ = a.Close(), b.Close()
	}
	clear(p.links)
	p.moved.Broadcast()
}

// CutCommit cuts the connection of the next COMMIT.
func (p *Proxy) CutCommit(c Cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = c
}

// Cuts counts the connections that were cut in a COMMIT.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	for p.holed {
		p.moved.Wait()
	}
	network, address := p.network, p.address
	p.mu.Unlock()
	server, err := net.Dial(network, address) //nolint:noctx // on this machine
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{Proxy: p, client: client, server: server}
	p.mu.Lock()
	if p.over {
		_, _ = client.Close(), server.Close()
	}
	p.links[client] = server
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { l.pass(client, server, l.request) })
	wg.Go(func() { l.pass(server, client, l.answer) })
	wg.Wait()
	p.mu.Lock()
	delete(p.links, client)
	p.mu.Unlock()
}

// link is one connection.
type link struct {
	*Proxy
	client, server net.Conn
	answerLost     bool // guarded by Proxy.mu
}

// pass copies until an end or until keep says that the bytes are lost.
func (l *link) pass(from, to net.Conn, keep func([]byte) bool) {
	defer func() { _, _ = l.client.Close(), l.server.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !l.open() || !keep(buf[:n]) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// open waits until bytes are let through; false = the connection was cut.
func (l *link) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.holed && l.links[l.client] != nil {
		l.moved.Wait()
	}
	return l.links[l.client] != nil
}

// commit is a COMMIT as the driver sends it: the type of the message, its
// length, its text.
var commit = []byte("Q\x00\x00\x00\x0bcommit\x00")

func (l *link) request(b []byte) bool {
	if !bytes.Contains(b, commit) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	how := l.cut
	if how == 0 {
		return true
	}
	l.cut = 0
	l.cuts++
	l.answerLost = how == AfterCommit
	return l.answerLost
}

func (l *link) answer([]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.answerLost
}
