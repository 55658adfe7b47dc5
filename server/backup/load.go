package backup

import (
	"fmt"
	"time"
)

// DatastoreLoad is how a datastore stands at the moment.
type DatastoreLoad struct {
	Capacity int64
	Free     int64
	// Latency is how long the slower of reads and writes take, on the average of
	// the last moments, as a host sees it; 0 = not known.
	Latency time.Duration
}

// LoadLimits say when a backup leaves a datastore alone: while its snapshot
// stands the guest's writes go to it, and the reading slows the guests down
// (seed N57, N82, K15).
type LoadLimits struct {
	// MinFree is below how many free bytes a backup ends, before a guest is
	// stopped for want of space. 0 = 10 GiB, below 0 = never. It is never more
	// than a twentieth of the datastore.
	MinFree int64
	// MaxLatency is above which latency the reading pauses and no backup begins; 0 = none.
	MaxLatency time.Duration
	// MaxPause is for how long, in all, one backup waits for that; 0 = 2 min.
	MaxPause time.Duration
}

// Defaulted returns l with the defaults for what is not set.
func (l LoadLimits) Defaulted() LoadLimits {
	if l.MinFree == 0 {
		l.MinFree = 10 << 30
	}
	if l.MaxPause == 0 {
		l.MaxPause = 2 * time.Minute
	}
	return l
}

// minFreePart of a datastore is the most that is asked to be free of it.
const minFreePart = 20

// Full says why a datastore has too little left for a snapshot to stand there;
// nil = it has enough.
func (l LoadLimits) Full(name string, d DatastoreLoad) *Error {
	need := min(l.MinFree, d.Capacity/minFreePart)
	if l.MinFree < 0 || d.Capacity <= 0 || d.Free >= need {
		return nil
	}
	return Errorf(NoSpace, "", "Datastore %q has %s free of %s, less than the %s that a backup leaves it: the backup was given up, and its snapshot removed, before the datastore is full and its VMs stop. Free some space.",
		name, SizeText(d.Free), SizeText(d.Capacity), SizeText(need))
}

// Slow says whether a datastore answers too slowly.
func (l LoadLimits) Slow(d DatastoreLoad) bool { return l.MaxLatency > 0 && d.Latency > l.MaxLatency }

// SlowText says so for people.
func (l LoadLimits) SlowText(name string, d DatastoreLoad) string {
	return fmt.Sprintf("datastore %q answers in %s, and more than %s is too slow", name, d.Latency.Round(time.Millisecond), l.MaxLatency)
}
