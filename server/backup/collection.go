package backup

import (
	"context"
	"time"
)

// Collection asks a repository to free what no image needs any more.
type Collection struct {
	DryRun bool // look only
	// IndexOnly gathers the index, which grows with each backup, and frees nothing.
	IndexOnly bool
	// Alive says whether a job still writes the image of that id; nil = all are
	// written whose pin is there.
	Alive func(imageID string) bool
	// Listed tells the refs of the images that the catalogue lists as good or
	// partial. Where one of them is not in the repository's index nothing is freed:
	// what looks like rubbish may be theirs. nil = nobody knows.
	Listed func(ctx context.Context) ([]string, error)
}

// Collected tells what a collection did, or what it would do.
type Collected struct {
	Images     int   `json:"images"`
	Live       int64 `json:"live"`     // bytes that images need
	Marked     int64 `json:"marked"`   // bytes that no image needs, marked now
	MarkedN    int   `json:"marked_n"` // blocks of them
	Waiting    int64 `json:"waiting"`  // bytes marked before and not given up yet
	Recent     int64 `json:"recent"`   // bytes that no image needs, too young to be marked
	Restored   int   `json:"restored"` // blocks marked before that are needed again
	Freed      int64 `json:"freed"`    // bytes that the storage got back
	FreedPacks int   `json:"freed_packs"`
	Locked     int64 `json:"locked,omitempty"` // bytes that were given up and that the storage keeps until their lock ends
	Rewritten  int64 `json:"rewritten"`        // bytes moved out of packs that were mostly dead
	Abandoned  int   `json:"abandoned"`        // pins of dead jobs, taken away
	IndexBlobs int   `json:"index_blobs"`      // more than MaxIndexBlobs make the repository slow
	// GatheredAt is when the index was last gathered, or asked to be.
	GatheredAt time.Time `json:"gathered_at,omitzero"`
	// RestFrom is when a later collection can free what this one has marked;
	// zero = nothing is left.
	RestFrom time.Time `json:"rest_from,omitzero"`
	// Hurt are the images that need blocks which were found to be lost.
	Hurt []HurtImage `json:"-"`
}

// MaxIndexBlobs is the number of index blobs above which a repository needs
// looking after.
const MaxIndexBlobs = 1000

// Verification asks a repository to check an image.
type Verification struct {
	Read     bool             // read and check every byte; else only that all is there
	Rate     int64            // bytes read per second at most; 0 = no limit
	Progress func(done int64) // told the bytes read so far, one call at a time; nil = nobody asks
	Brief    bool             // what is wrong is known: it is not noted, and who else is hurt not looked for
}

// Verified tells how an image stands.
type Verified struct {
	Blocks  int
	Bytes   int64   // read
	Damaged []int32 // keys of the disks of which something is missing or wrong
	Files   []string
	Message string // what is wrong, for the user; "" = nothing
	// Hurt are the other images that need what this look has found to be lost
	// and nobody knew of before.
	Hurt []HurtImage
}

// HurtImage is an image that needs blocks which are lost.
type HurtImage struct {
	ID      string
	Disks   []int32 // keys of the disks
	Message string
}
