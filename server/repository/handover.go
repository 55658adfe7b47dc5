package repository

import (
	"context"
	"fmt"
	"sync"

	"github.com/kopia/kopia/repo/blob"
)

// kind is the kind of storage that kopia finds in the configuration files that
// we write. The storage itself is made by us and handed over in memory: the
// file then holds no path to be followed and no secret.
const kind = "kura"

// handle is all that a configuration file says about the storage.
type handle struct {
	Key string `json:"key"`
}

// handovers is where kopia, whose list of storage kinds is one per process,
// fetches the storages that we open.
var handovers handover

type handover struct {
	once  sync.Once
	mu    sync.Mutex // guards ready
	ready map[string]blob.Storage
}

// offer makes s the storage that the next open of key gets. The returned
// function withdraws it.
func (h *handover) offer(key string, s blob.Storage) (withdraw func()) {
	h.once.Do(func() {
		blob.AddSupportedStorage(kind, handle{}, h.take)
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ready == nil {
		h.ready = map[string]blob.Storage{}
	}
	h.ready[key] = s
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.ready, key)
	}
}

func (h *handover) take(_ context.Context, o *handle, _ bool) (blob.Storage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.ready[o.Key]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("storage %q was not handed over", o.Key)
}
