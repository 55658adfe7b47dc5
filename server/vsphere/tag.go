package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// tagService reads tags over vCenter's REST interface, which has sessions of
// its own. An ESXi host has none: then nothing is tagged.
type tagService struct {
	manager *tags.Manager // nil on an ESXi host
	account *url.Userinfo
	timeout time.Duration

	mu      sync.Mutex // guards what follows
	live    bool       // logged in
	names   map[string]backup.Tag
	namesAt time.Time
}

// tagNamesFor is how long a tag's name is believed: a rename shows after it.
const tagNamesFor = 5 * time.Minute

func newTagService(c *vim25.Client, account *url.Userinfo, config Config) *tagService {
	t := &tagService{account: account, timeout: config.CallTimeout}
	if c.IsVC() {
		t.manager = tags.NewManager(rest.NewClient(c))
	}
	return t
}

// do calls fn logged in, once more when the session turns out to have ended.
func (t *tagService) do(ctx context.Context, fn func(context.Context, *tags.Manager) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, errNoAnswer)
	defer cancel()
	fresh, err := t.login(ctx, false)
	if err == nil {
		err = fn(ctx, t.manager)
	}
	if err != nil && !fresh && (rest.IsStatusError(err, http.StatusUnauthorized) || rest.IsStatusError(err, http.StatusForbidden)) {
		if _, err = t.login(ctx, true); err == nil {
			err = fn(ctx, t.manager)
		}
	}
	if err != nil && errors.Is(context.Cause(ctx), errNoAnswer) {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return err
}

func (t *tagService) login(ctx context.Context, again bool) (fresh bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live && !again {
		return false, nil
	}
	t.live = false
	t.manager.SessionID("") // a dead session's id would have the login refused
	if err := t.manager.Login(ctx, t.account); err != nil {
		return false, err
	}
	t.live = true
	return true, nil
}

func (t *tagService) logout(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live {
		t.live = false
		_ = t.manager.Logout(ctx) // it ends by itself
	}
}

// all returns the tags of every tagged VM, by managed object id. It takes two
// calls, and one for each tag whose name is not known.
func (t *tagService) all(ctx context.Context) (map[string][]backup.Tag, error) {
	if t.manager == nil {
		return nil, nil
	}
	out := map[string][]backup.Tag{}
	err := t.do(ctx, func(ctx context.Context, m *tags.Manager) error {
		clear(out)
		ids, err := m.ListTags(ctx)
		if err != nil || len(ids) == 0 {
			return err
		}
		names, err := t.known(ctx, ids)
		if err != nil {
			return err
		}
		attached, err := m.ListAttachedObjectsOnTags(ctx, ids)
		if err != nil {
			return err
		}
		for _, a := range attached {
			for _, o := range a.ObjectIDs {
				if r := o.Reference(); r.Type == "VirtualMachine" {
					out[r.Value] = append(out[r.Value], names[a.TagID])
				}
			}
		}
		return nil
	})
	if err != nil && rest.IsStatusError(err, http.StatusNotFound) {
		return nil, nil // a vCenter without a tag service
	}
	for _, list := range out {
		sortTags(list)
	}
	return out, err
}

// of returns one VM's tags.
func (t *tagService) of(ctx context.Context, vm ref) ([]backup.Tag, error) {
	if t.manager == nil {
		return nil, nil
	}
	var list []backup.Tag
	err := t.do(ctx, func(ctx context.Context, m *tags.Manager) error {
		list = nil
		ids, err := m.ListAttachedTags(ctx, vm)
		if err != nil {
			return err
		}
		names, err := t.known(ctx, ids)
		for _, id := range ids {
			list = append(list, names[id])
		}
		return err
	})
	if err != nil && rest.IsStatusError(err, http.StatusNotFound) {
		return nil, nil
	}
	sortTags(list)
	return list, err
}

// attach puts tags on a VM and returns those that this vCenter does not have.
func (t *tagService) attach(ctx context.Context, vm ref, want []backup.Tag) (missing []backup.Tag, err error) {
	if t.manager == nil {
		return want, nil
	}
	err = t.do(ctx, func(ctx context.Context, m *tags.Manager) error {
		missing = nil
		ids, err := m.ListTags(ctx)
		if err != nil {
			return err
		}
		names, err := t.known(ctx, ids)
		if err != nil {
			return err
		}
		byName := map[backup.Tag]string{}
		for _, id := range ids {
			byName[names[id]] = id
		}
		for _, w := range want {
			id, ok := byName[w]
			if !ok {
				missing = append(missing, w)
				continue
			}
			if err := m.AttachTag(ctx, id, vm); err != nil {
				return fmt.Errorf("attach tag %s:%s: %w", w.Category, w.Name, err)
			}
		}
		return nil
	})
	return missing, err
}

// known returns the names of tags, from memory where it may.
func (t *tagService) known(ctx context.Context, ids []string) (map[string]backup.Tag, error) {
	t.mu.Lock()
	names := t.names
	stale := time.Since(t.namesAt) > tagNamesFor
	t.mu.Unlock()
	fresh := map[string]backup.Tag{}
	categories := map[string]string{}
	for _, id := range ids {
		if n, ok := names[id]; ok && !stale {
			fresh[id] = n
			continue
		}
		tag, err := t.manager.GetTag(ctx, id)
		if err != nil {
			return nil, err
		}
		if _, ok := categories[tag.CategoryID]; !ok {
			c, err := t.manager.GetCategory(ctx, tag.CategoryID)
			if err != nil {
				return nil, err
			}
			categories[tag.CategoryID] = c.Name
		}
		fresh[id] = backup.Tag{Category: categories[tag.CategoryID], Name: tag.Name}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if stale {
		t.names, t.namesAt = map[string]backup.Tag{}, time.Now()
	}
	merged := map[string]backup.Tag{}
	for id, n := range t.names {
		merged[id] = n
	}
	for id, n := range fresh {
		merged[id] = n
	}
	t.names = merged
	return fresh, nil
}
