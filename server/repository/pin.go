package repository

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/object"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// A pin says that an image is being written: a collection, in whatever process,
// spares what the image builds upon and what it has stored so far. It is a blob
// of its own beside kopia's files: others see it at once, without a refresh of
// their index, it costs no index blob, and it can be removed from a full disk.
const pinPrefix blob.ID = "kura.pin."

// pinAge is the age from which a pin counts as left behind where nobody knows
// which jobs live: no backup takes that long.
const pinAge = 30 * 24 * time.Hour

// pinGrace is the age below which a pin is never taken for left behind, as the
// clocks of servers differ.
const pinGrace = time.Hour

// pinned is what a pin holds.
type pinned struct {
	Image string    `json:"image"`
	Since time.Time `json:"since"`
	Root  string    `json:"root,omitempty"` // folder of the base image
	id    blob.ID
}

// putPin pins the image and takes away what earlier attempts at it have pinned:
// those that still write cannot commit any more.
func (r *repository) putPin(ctx context.Context, image string, root object.ID) (blob.ID, error) {
	older, err := r.pinBlobs(ctx, pinPrefix+blob.ID(image)+".")
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(pinned{Image: image, Since: r.repo.Time().UTC(), Root: root.String()})
	if err != nil {
		return "", fmt.Errorf("encode pin: %w", err)
	}
	var own [8]byte
	_, _ = rand.Read(own[:]) // never fails: the runtime ends the process instead
	id := pinPrefix + blob.ID(fmt.Sprintf("%s.%x", image, own))
	if err := r.store.PutBlob(ctx, id, blobBytes(b), blob.PutOptions{}); err != nil {
		return "", fmt.Errorf("pin image: %w", err)
	}
	for _, o := range older {
		if err := r.store.DeleteBlob(ctx, o); err != nil {
			return "", fmt.Errorf("take over pin: %w", err)
		}
	}
	return id, nil
}

func (r *repository) pinBlobs(ctx context.Context, prefix blob.ID) ([]blob.ID, error) {
	var all []blob.ID
	err := r.store.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		all = append(all, m.BlobID)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	return all, nil
}

// unpin takes a pin away. One that stays only delays a collection, which knows
// by its job that nobody writes the image any more.
func (i *imageWriter) unpin(ctx context.Context) {
	if i.pin == "" {
		return
	}
	if err := i.r.store.DeleteBlob(ctx, i.pin); err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
		i.r.cfg.Log.WarnContext(ctx, "pin of an image not removed", "image", i.draft.ImageID, "error", err)
	}
}

// stillPinned refuses to go on when another attempt has begun the image, or
// when a collection has taken this one for dead: what the image builds upon may
// be gone.
func (i *imageWriter) stillPinned(ctx context.Context) error {
	_, err := i.r.store.GetMetadata(ctx, i.pin)
	if errors.Is(err, blob.ErrBlobNotFound) {
		if gone := i.r.store.missing(ctx); gone != nil {
			return unreachable(i.r.store.location(), gone).Because(err)
		}
		return backup.Errorf(backup.Unavailable, "",
			"Another attempt has begun to write image %s, or a collection took this one for given up. Nothing of this attempt is kept.", i.draft.ImageID)
	}
	if err != nil {
		return fmt.Errorf("look for pin: %w", err)
	}
	return nil
}

// livePins lists the pins of images that are being written, and those that were
// left behind.
func (r *repository) livePins(ctx context.Context, now time.Time, alive func(image string) bool) (live, dead []pinned, err error) {
	ids, err := r.pinBlobs(ctx, pinPrefix)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		p, err := r.readPin(ctx, id)
		if errors.Is(err, blob.ErrBlobNotFound) {
			continue // its image has ended meanwhile
		}
		if err != nil {
			return nil, nil, err
		}
		age := now.Sub(p.Since)
		if alive == nil && age > pinAge || alive != nil && age > pinGrace && !alive(p.Image) {
			dead = append(dead, p)
		} else {
			live = append(live, p)
		}
	}
	return live, dead, nil
}

func (r *repository) readPin(ctx context.Context, id blob.ID) (pinned, error) {
	var b blobBuffer
	if err := r.store.GetBlob(ctx, id, 0, -1, &b); err != nil {
		return pinned{}, fmt.Errorf("read %s: %w", id, err)
	}
	p := pinned{id: id}
	if err := json.Unmarshal(b.Bytes(), &p); err != nil {
		return pinned{}, fmt.Errorf("read %s: %w", id, err)
	}
	return p, nil
}
