package vsphere

import (
	"context"
	"strings"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/types"
)

// place is an entity of the inventory that others lie in: a folder, a pool, a host.
type place struct {
	name   string // as vSphere has it, with / \ and % escaped
	parent ref
}

// places are the entities by reference, enough of them to go up to the root.
type places map[ref]place

// path is the inventory path, such as "/DC0/vm/prod". The root folder has none.
func (p places) path(r ref) string {
	path := ""
	for range 100 { // a circle would be vSphere's mistake; it must not hang us
		e, ok := p[r]
		if !ok || e.parent == (ref{}) {
			break
		}
		path = "/" + e.name + path
		r = e.parent
	}
	return path
}

// up returns the nearest ancestor of r, or r itself, of one of the types.
func (p places) up(r ref, kinds ...string) (ref, bool) {
	for range 100 {
		for _, k := range kinds {
			if r.Type == k {
				return r, true
			}
		}
		e, ok := p[r]
		if !ok || e.parent == (ref{}) {
			break
		}
		r = e.parent
	}
	return ref{}, false
}

// newPlaces knows the root, which is above all views; without it paths would end one too low.
func (s *Session) newPlaces() places {
	return places{s.client.ServiceContent.RootFolder: {}}
}

// takeProperties notes an entity's name and parent.
func (p places) takeProperties(o types.ObjectContent) {
	e := p[o.Obj]
	for _, c := range o.PropSet {
		switch v := c.Val.(type) {
		case string:
			if c.Name == "name" {
				e.name = v
			}
		case ref:
			if c.Name == "parent" {
				e.parent = v
			}
		}
	}
	p[o.Obj] = e
}

// placesOf reads the given entities and all above them in one call.
func (s *Session) placesOf(ctx context.Context, entities ...ref) (places, error) {
	up := &types.TraversalSpec{
		SelectionSpec: types.SelectionSpec{Name: "up"}, Type: "ManagedEntity", Path: "parent",
		SelectSet: []types.BaseSelectionSpec{&types.SelectionSpec{Name: "up"}},
	}
	req := types.RetrieveProperties{SpecSet: []types.PropertyFilterSpec{{
		PropSet: []types.PropertySpec{{Type: "ManagedEntity", PathSet: []string{"name", "parent"}}},
	}}}
	seen := map[ref]bool{{}: true}
	for _, e := range entities {
		if !seen[e] {
			seen[e] = true
			req.SpecSet[0].ObjectSet = append(req.SpecSet[0].ObjectSet, types.ObjectSpec{Obj: e, SelectSet: []types.BaseSelectionSpec{up}})
		}
	}
	p := s.newPlaces()
	if len(seen) == 1 {
		return p, nil
	}
	res, err := property.DefaultCollector(s.client).RetrieveProperties(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, o := range res.Returnval {
		p.takeProperties(o)
	}
	return p, nil
}

// vSphere keeps / \ and % of a name as %2f, %5c and %25.
var (
	escaper   = strings.NewReplacer("%", "%25", "/", "%2f", `\`, "%5c")
	unescaper = strings.NewReplacer("%25", "%", "%2f", "/", "%2F", "/", "%5c", `\`, "%5C", `\`)
)

func escapeName(s string) string   { return escaper.Replace(s) }
func unescapeName(s string) string { return unescaper.Replace(s) }
