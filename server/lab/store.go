package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
	govmdk "github.com/vmware/govmomi/vmdk"
)

// space is the room of one datastore. Disks are thin: they take what they hold.
type space struct {
	name string
	ref  ref
	dir  string       // where vcsim keeps the datastore's files
	size int64        // blocks
	used atomic.Int64 // blocks

	shown atomic.Int64 // what the datastore's summary says is used
}

func (s *space) fits(blocks int64) bool { return s.used.Load()+blocks <= s.size }

// store finds disk content by the datastore path of its VMDK file: whoever
// attaches the file has the bytes, and a file that moves takes them along.
type store struct {
	heap *heap

	mu     sync.RWMutex // guards links, and the path of each
	links  map[string]*link
	spaces map[string]*space // by datastore name; fixed once the lab runs
}

func (s *store) get(file string) *link {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.links[file]
}

func (s *store) pathOf(l *link) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return l.path
}

// put gives a link its file, which takes the place of what had that path.
func (s *store) put(file string, l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[l.path] == l {
		delete(s.links, l.path)
	}
	l.path = file
	s.links[file] = l
}

func (s *store) remove(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[l.path] == l {
		delete(s.links, l.path)
	}
}

// under lists the links whose files are in a folder of a datastore.
func (s *store) under(dir string) (list []*link) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for file, l := range s.links {
		if folderOf(file) == dir {
			list = append(list, l)
		}
	}
	return list
}

// spaceOf returns the datastore that a path names.
func (s *store) spaceOf(file string) (*space, object.DatastorePath, error) {
	var p object.DatastorePath
	if !p.FromString(file) {
		return nil, p, fmt.Errorf("%q is not a datastore path", file)
	}
	sp := s.spaces[p.Datastore]
	if sp == nil {
		return nil, p, fmt.Errorf("there is no datastore %q", p.Datastore)
	}
	return sp, p, nil
}

// local is the file of this machine that vcsim keeps for a datastore path.
func (s *store) local(file string) (string, error) {
	sp, p, err := s.spaceOf(file)
	if err != nil {
		return "", err
	}
	if !filepath.IsLocal(p.Path) {
		return "", fmt.Errorf("%q leaves its datastore", file)
	}
	return filepath.Join(sp.dir, p.Path), nil
}

// describe writes the descriptor of a link, which vcsim wants to find where a disk is attached.
func (s *store) describe(l *link) error {
	name, err := s.local(s.pathOf(l))
	if err != nil {
		return err
	}
	l.disk.mu.RLock()
	sectors := l.disk.capacity / govmdk.SectorSize
	l.disk.mu.RUnlock()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("write descriptor: %w", err)
	}
	var b bytes.Buffer
	extent := govmdk.Extent{Size: sectors, Info: filepath.Base(flatName(name))}
	if err := govmdk.NewDescriptor(extent).Write(&b); err != nil {
		return fmt.Errorf("write descriptor: %w", err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write descriptor: %w", err)
	}
	return nil
}

// erase removes a link, its bytes and its files. Nothing may hang on it.
func (s *store) erase(l *link) {
	if name, err := s.local(s.pathOf(l)); err == nil {
		// vcsim may have removed them before.
		_ = os.Remove(name)
		_ = os.Remove(flatName(name))
	}
	s.remove(l)
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	l.drop()
}

// backing describes a link, and the chain below it, as vSphere would.
func (s *store) backing(like types.VirtualDiskFlatVer2BackingInfo, l *link) *types.VirtualDiskFlatVer2BackingInfo {
	l.disk.mu.RLock()
	parent, id := l.parent, l.uuid
	l.disk.mu.RUnlock()
	b := like
	b.FileName, b.Uuid, b.ChangeId, b.Parent = s.pathOf(l), id, "", nil
	b.Datastore = types.NewReference(l.space.ref)
	if parent != nil {
		b.Parent = s.backing(like, parent)
	}
	return &b
}

func flatName(file string) string { return strings.TrimSuffix(file, ".vmdk") + "-flat.vmdk" }
