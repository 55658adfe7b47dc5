package repository

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"golang.org/x/sync/errgroup"
)

const (
	// lookups is how many packs are asked for at the same time.
	lookups = 8
	// seenAge is how long a pack that was seen counts as being there for the
	// look after a backup. A collection of anybody removes only what no index
	// names.
	seenAge = 4 * time.Hour
	// seenMost bounds the memory: about 100 bytes for each pack.
	seenMost = 500_000
	// A listing of 1,000 blobs costs on S3 what asking for a dozen does: one is
	// made when as many packs were asked for, one by one, as it would cost.
	listingFree, listingShare = 64, 80
)

// presence remembers which packs were seen in the storage, for the looks of
// many images that share them.
type presence struct {
	paged bool // the storage lists very many blobs with one request

	mu    sync.Mutex // guards the rest
	seen  map[blob.ID]sight
	asked int // one by one since the last listing
	there int // packs in the last listing
}

// sight is a pack that was seen.
type sight struct {
	length int64
	at     time.Time
}

// look tells the lengths of the packs; those that are not there are left out.
// What was seen since the time given is not looked for again.
func (p *presence) look(ctx context.Context, s storage, packs []blob.ID, since, now time.Time) (map[blob.ID]int64, error) {
	found, rest := p.known(packs, since)
	if len(rest) == 0 {
		return found, nil
	}
	if p.listingPays(len(rest)) {
		if err := p.list(ctx, s, now); err != nil {
			return nil, err
		}
		known, unseen := p.known(rest, now)
		for id, n := range known {
			found[id] = n
		}
		rest = unseen // written since, or not there
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for _, id := range rest {
		g.Go(func() error {
			m, err := s.GetMetadata(ctx, id)
			if errors.Is(err, blob.ErrBlobNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found[id] = m.Length
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	p.note(found, rest, now)
	return found, nil
}

func (p *presence) known(packs []blob.ID, since time.Time) (found map[blob.ID]int64, rest []blob.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found = map[blob.ID]int64{}
	for _, id := range packs {
		if s, ok := p.seen[id]; ok && !s.at.Before(since) {
			found[id] = s.length
		} else {
			rest = append(rest, id)
		}
	}
	return found, rest
}

// note remembers what was found of what was asked for.
func (p *presence) note(found map[blob.ID]int64, asked []blob.ID, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked += len(asked)
	for _, id := range asked {
		if n, ok := found[id]; ok {
			p.put(id, sight{n, now})
		} else {
			delete(p.seen, id)
		}
	}
}

// put remembers a pack. The caller holds mu.
func (p *presence) put(id blob.ID, s sight) {
	if p.seen == nil || len(p.seen) >= seenMost {
		p.seen = map[blob.ID]sight{}
	}
	p.seen[id] = s
}

// listingPays says whether to list all packs is cheaper by now than to go on
// asking. On disks of this machine nothing is cheaper than to ask.
func (p *presence) listingPays(more int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paged && p.asked+more > listingFree+p.there/listingShare
}

// listsInPages says whether a storage lists very many blobs with one request.
func listsInPages(s storage) bool {
	far, ok := s.(*remoteStore)
	if !ok {
		return false
	}
	_, ok = far.remote.(*s3Store)
	return ok
}

// list looks at all packs.
func (p *presence) list(ctx context.Context, s storage, now time.Time) error {
	fresh := map[blob.ID]sight{}
	for _, prefix := range []blob.ID{content.PackBlobIDPrefixRegular, content.PackBlobIDPrefixSpecial} {
		err := s.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
			if len(fresh) < seenMost {
				fresh[m.BlobID] = sight{m.Length, now}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen, p.asked, p.there = fresh, 0, len(fresh)
	return nil
}

// checkPacks looks for the packs, which nothing else does before they are
// read. A reading looks at each; the look after a backup goes by what was seen
// in the last hours, but for packs that are longer than what was seen.
func (v *verifier) checkPacks(ctx context.Context) error {
	now := v.r.cfg.Now()
	since := now.Add(-seenAge)
	if v.ask.Read {
		since = now
	}
	packs := make([]blob.ID, 0, len(v.packs))
	for id := range v.packs {
		packs = append(packs, id)
	}
	slices.Sort(packs)
	found, err := v.r.seen.look(ctx, v.r.store, packs, since, now)
	if err != nil {
		return err
	}
	for id, use := range v.packs {
		if n, there := found[id]; there && n >= use.end {
			continue
		}
		if away := v.r.store.missing(ctx); away != nil { // of a disk that is not mounted nothing is lost
			return unreachable(v.r.store.location(), away).Because(away)
		}
		v.suspects[id] = true
		for _, name := range use.files {
			v.damaged(name)
		}
	}
	return nil
}
