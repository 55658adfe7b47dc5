package auth

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// failures counts failed authentications by client address. Its zero value
// has counted none.
type failures struct {
	mu      sync.Mutex // guards clients
	clients map[string]*rate.Limiter
}

// An address may fail burst times at once and then once each refill.
const (
	burst      = 20
	refill     = 3 * time.Second
	maxClients = 10_000
)

// count notes a failure of the address and returns how long it has to wait, 0
// when it has failed seldom enough.
func (f *failures) count(address string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.clients[address]
	if l == nil {
		f.forget(now)
		l = rate.NewLimiter(rate.Every(refill), burst)
		f.clients[address] = l
	}
	if l.AllowN(now, 1) {
		return 0
	}
	return refill
}

// forget makes room: addresses that have not failed for long, and all when
// there are still too many.
func (f *failures) forget(now time.Time) {
	if f.clients == nil {
		f.clients = map[string]*rate.Limiter{}
	}
	if len(f.clients) < maxClients {
		return
	}
	for address, l := range f.clients {
		if l.TokensAt(now) >= burst {
			delete(f.clients, address)
		}
	}
	if len(f.clients) >= maxClients {
		clear(f.clients)
	}
}
