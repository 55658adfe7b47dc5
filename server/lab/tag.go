package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"

	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/types"
)

// The lab's one tag, and its category.
const (
	tagCategory = "backup"
	tagName     = "gold"
)

// tagger is the part of vcsim's REST simulator that knows tags.
type tagger interface {
	sync.Locker
	AttachTag(ref, string) types.BaseMethodFault
	DetachTag(ref, string) types.BaseMethodFault
	AttachedTags(ref) ([]string, types.BaseMethodFault)
	GetTagCategoryAndName(string) (string, string, types.BaseMethodFault)
}

func (l *Lab) tagger() tagger {
	t, _ := l.vapi.(tagger)
	return t
}

// createTags makes the category and the tag through the REST API; vcsim has no other way.
func (l *Lab) createTags() error {
	if l.tagger() == nil {
		return errors.New("this version of vcsim does not let tags be attached")
	}
	var token, category string
	if err := l.rest(&token, "", "session", nil); err != nil {
		return err
	}
	if err := l.rest(&category, token, "tagging/category", tags.Category{
		Name: tagCategory, Description: "which backup a VM gets", Cardinality: "MULTIPLE", AssociableTypes: []string{"VirtualMachine"},
	}); err != nil {
		return err
	}
	return l.rest(&l.goldTag, token, "tagging/tag", tags.Tag{Name: tagName, Description: "every night", CategoryID: category})
}

// rest posts to vcsim's REST handler without a network.
func (l *Lab) rest(result *string, token, path string, spec any) error {
	b, err := json.Marshal(map[string]any{"create_spec": spec})
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/rest/com/vmware/cis/"+path, bytes.NewReader(b))
	if token == "" {
		r.SetBasicAuth(l.config.User, l.config.Password)
	} else {
		r.Header.Set(restHeader, token)
	}
	w := httptest.NewRecorder()
	l.service.ServeMux.ServeHTTP(w, r)
	if w.Code/100 != 2 {
		return fmt.Errorf("POST %s: status %d: %s", path, w.Code, w.Body)
	}
	answer := struct{ Value *string }{result}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	return nil
}

func (l *Lab) tag(vm ref) {
	t := l.tagger()
	t.Lock()
	defer t.Unlock()
	// The tag exists: createTags made it.
	_ = t.AttachTag(vm, l.goldTag)
}

// untag forgets the tags of a VM that is gone.
func (l *Lab) untag(vm ref) {
	t := l.tagger()
	t.Lock()
	defer t.Unlock()
	ids, _ := t.AttachedTags(vm)
	for _, id := range ids {
		_ = t.DetachTag(vm, id)
	}
}

// tagsOf names a VM's tags as category:name.
func (l *Lab) tagsOf(vm ref) []string {
	t := l.tagger()
	t.Lock()
	defer t.Unlock()
	list := []string{}
	ids, _ := t.AttachedTags(vm)
	for _, id := range ids {
		if id == l.goldTag {
			list = append(list, tagCategory+":"+tagName)
		} else if _, name, fault := t.GetTagCategoryAndName(id); fault == nil {
			list = append(list, name)
		}
	}
	return list
}
