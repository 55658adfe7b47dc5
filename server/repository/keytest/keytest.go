// Package keytest lets a test binary derive the key of each repository once
// instead of each time that it is opened: what takes a tenth of a second takes a
// whole one where races are looked for, and was most of what tests of
// repositories did. It is in no program that is shipped, and changes no key.
package keytest

import (
	"fmt"
	"sync"
	_ "unsafe" // for the link below
)

// deriver is what kopia calls passwordBasedKeyDeriver.
type deriver interface {
	deriveKeyFromPassword(password string, salt []byte, keySize int) ([]byte, error)
}

// derivers are those of kopia, which has no door to them.
//
//go:linkname derivers github.com/kopia/kopia/internal/crypto.keyDerivers
var derivers map[string]deriver

// Remember has each key derived once from now on. It is to be called before
// the tests begin.
func Remember() {
	if len(derivers) == 0 {
		panic("keytest: this program does not hold kopia's key derivers where they were")
	}
	for name, d := range derivers {
		if _, done := d.(*memory); !done {
			derivers[name] = &memory{of: d, keys: map[string]func() ([]byte, error){}}
		}
	}
}

// memory is a deriver that derives each key once.
type memory struct {
	of   deriver
	mu   sync.Mutex // guards keys
	keys map[string]func() ([]byte, error)
}

func (m *memory) deriveKeyFromPassword(password string, salt []byte, keySize int) ([]byte, error) {
	m.mu.Lock()
	id := fmt.Sprintf("%d %x %s", keySize, salt, password)
	derive := m.keys[id]
	if derive == nil {
		derive = sync.OnceValues(func() ([]byte, error) { return m.of.deriveKeyFromPassword(password, salt, keySize) })
		m.keys[id] = derive
	}
	m.mu.Unlock()
	key, err := derive()
	return append([]byte(nil), key...), err
}
