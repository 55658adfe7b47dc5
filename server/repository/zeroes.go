package repository

import (
	"bytes"
	"cmp"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/object"
)

// zeroBytes is what blocks are compared with.
var zeroBytes [64 << 10]byte

func allZero(b []byte) bool {
	for len(b) > len(zeroBytes) {
		if !bytes.Equal(b[:len(zeroBytes)], zeroBytes[:]) {
			return false
		}
		b = b[len(zeroBytes):]
	}
	return bytes.Equal(b, zeroBytes[:len(b)])
}

// zeroes keeps the objects that hold nothing but zeroes, one for each length.
type zeroes struct {
	store func(b []byte) (object.ID, error)

	mu       sync.Mutex // guards byLength
	byLength map[int64]object.ID
}

func (z *zeroes) object(length int64) (object.ID, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if id, ok := z.byLength[length]; ok {
		return id, nil
	}
	id, err := z.store(make([]byte, length))
	if err != nil {
		return object.EmptyID, err
	}
	if z.byLength == nil {
		z.byLength = map[int64]object.ID{}
	}
	z.byLength[length] = id
	return id, nil
}

func (z *zeroes) ids() []object.ID {
	z.mu.Lock()
	defer z.mu.Unlock()
	all := []object.ID{}
	for _, id := range z.byLength {
		all = append(all, id)
	}
	slices.SortFunc(all, func(a, b object.ID) int { return cmp.Compare(a.String(), b.String()) })
	return all
}
