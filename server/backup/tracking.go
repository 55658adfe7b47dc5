package backup

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
)

// Tracking is how a VM's changed block tracking stands.
type Tracking struct {
	On     bool   // the next snapshot's disks have change ids
	Fresh  bool   // it begins with the next snapshot
	Reason string // why it is not on
}

// DoubtReason is why what vSphere tells about the changes of a disk is not
// used: then all of the disk is read. The metrics count by it.
type DoubtReason string

// The reasons. Those for which [DoubtReason.Lasting] is true are kept in the
// image, so that the next backup resets the tracking.
const (
	DoubtOff      DoubtReason = "off"      // tracking is off, and could not be switched on
	DoubtFresh    DoubtReason = "fresh"    // it has just been switched on, or the image before was made without it
	DoubtBase     DoubtReason = "base"     // the image before does not hold the disk, or cannot be built upon
	DoubtCapacity DoubtReason = "capacity" // the disk's size has changed
	DoubtDisk     DoubtReason = "disk"     // another disk is in its place
	DoubtFile     DoubtReason = "file"     // it writes to another file, as after a revert, a move or somebody's snapshot
	DoubtEpoch    DoubtReason = "epoch"    // tracking has begun anew
	DoubtSnapshot DoubtReason = "snapshot" // tracking began while a snapshot stood
	DoubtDenied   DoubtReason = "denied"   // the account may not ask
	DoubtFault    DoubtReason = "fault"    // vSphere answered with a fault
	DoubtAnswer   DoubtReason = "answer"   // the answer contradicts itself
	DoubtLie      DoubtReason = "lie"      // a block that it called unchanged had changed
	DoubtBefore   DoubtReason = "before"   // one of the reasons above was found by the image before
)

// DoubtReasons lists all of them.
func DoubtReasons() []DoubtReason {
	return []DoubtReason{DoubtOff, DoubtFresh, DoubtBase, DoubtCapacity, DoubtDisk, DoubtFile, DoubtEpoch, DoubtSnapshot, DoubtDenied, DoubtFault, DoubtAnswer, DoubtLie, DoubtBefore}
}

// Lasting says whether the doubt stands until the tracking is reset.
func (r DoubtReason) Lasting() bool {
	switch r {
	case DoubtCapacity, DoubtSnapshot, DoubtFault, DoubtAnswer, DoubtLie:
		return true
	}
	return false
}

// Doubt is why a disk's changes are not taken from vSphere. As an error it is
// one that ends no backup.
type Doubt struct {
	Reason DoubtReason
	Text   string // for people; a phrase such as "its size has changed"
}

// Error implements error.
func (d *Doubt) Error() string { return d.Text }

// Doubtf makes a doubt.
func Doubtf(r DoubtReason, format string, args ...any) *Doubt {
	return &Doubt{Reason: r, Text: fmt.Sprintf(format, args...)}
}

// Epoch is the part of a change id that stays while tracking goes on.
func Epoch(changeID string) string {
	epoch, _, _ := strings.Cut(changeID, "/")
	return epoch
}

// Since says why the changes of the disk since an image cannot be had from
// vSphere; nil = they can be asked for.
func (d DiskDraft) Since(base ImageDisk) *Doubt {
	switch {
	case base.Key != d.Key || base.SkippedReason != "":
		return Doubtf(DoubtBase, "the image before does not hold the disk")
	case d.Capacity != base.Capacity:
		return Doubtf(DoubtCapacity, "the disk has %d bytes and had %d", d.Capacity, base.Capacity)
	case d.UUID != base.UUID:
		return Doubtf(DoubtDisk, "another disk is in its place")
	case base.TrackingDoubt != "":
		return Doubtf(DoubtBefore, "what vSphere told before could not be relied on: %s", base.TrackingDoubt.text())
	case d.ChangeID == "":
		return Doubtf(DoubtOff, "vSphere gave no change id")
	case d.Doubt != nil:
		return d.Doubt
	case base.ChangeID == "":
		return Doubtf(DoubtFresh, "it was off when the image before was made")
	case Epoch(d.ChangeID) != Epoch(base.ChangeID):
		return Doubtf(DoubtEpoch, "tracking has begun anew since the image before, as after a revert, a reset or a host's crash")
	case d.File != base.File:
		return Doubtf(DoubtFile, "the disk writes to another file than at the image before, as after a revert, a move or a snapshot of others")
	}
	return nil
}

// text is the lasting doubt in a few words.
func (r DoubtReason) text() string {
	switch r {
	case DoubtCapacity:
		return "the disk had been resized"
	case DoubtSnapshot:
		return "tracking had begun while a snapshot stood"
	case DoubtFault:
		return "it answered with a fault"
	case DoubtAnswer:
		return "its answer contradicted itself"
	case DoubtLie:
		return "it left out a block that had changed"
	}
	return string(r)
}

// A disk that was read in part is read in full again between compareFrom and
// compareBy after the last time.
const (
	compareFrom = 28 * 24 * time.Hour
	compareBy   = 35 * 24 * time.Hour
)

// CompareDue says how much a disk wants to be read in full.
type CompareDue int

// The degrees.
const (
	CompareNot  CompareDue = iota
	CompareMay             // where the day's budget allows it
	CompareMust            // with the next image it would be too late
)

// DueForCompare says whether a disk is to be read in full by the image that is
// made now. base is the image before; disks of one age take turns by the day.
func (d ImageDisk) DueForCompare(base Image, now time.Time) CompareDue {
	age, gap := now.Sub(d.FullCompareAt), now.Sub(base.StartedAt)
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%s/%d", base.VMInstanceUUID, d.Key) // never fails
	turn := time.Duration(h.Sum32()%7) * 24 * time.Hour
	switch {
	case age+gap > compareBy || d.FullCompareAt.IsZero():
		return CompareMust
	case age >= compareFrom+turn:
		return CompareMay
	}
	return CompareNot
}

// errOverBudget rolls a reservation back.
var errOverBudget = errors.New("the day's budget is used up")

// Compared is what one disk takes of the bytes that may be read on a day to
// compare disks in full. What is not settled counts for as long as its job
// runs: of a job that was killed it is free again.
type Compared struct {
	Day     string // see [CompareDay]
	JobID   string
	Disk    int32
	Bytes   int64
	Settled bool // so many were read
}

// ReserveCompare takes c out of the day's budget, and says whether there was as
// much left; a budget of 0 has no end.
func ReserveCompare(ctx context.Context, s Store, c Compared, budget int64) (bool, error) {
	err := s.Update(ctx, func(tx Tx) error {
		total, err := tx.SaveCompared(ctx, c)
		if err == nil && budget > 0 && total > budget {
			err = errOverBudget
		}
		return err
	})
	if errors.Is(err, errOverBudget) {
		return false, nil
	}
	return err == nil, err
}

// CompareDay names the day whose budget is meant.
func CompareDay(now time.Time) string { return now.UTC().Format(time.DateOnly) }

// Worse is how the changes of two disks together were found.
func (c ChangeDetection) Worse(other ChangeDetection) ChangeDetection {
	for _, worst := range []ChangeDetection{DetectFull, DetectCompare, DetectCBT} {
		if c == worst || other == worst {
			return worst
		}
	}
	return c
}

// Summarize fills in what the image's disks say about how changes were found.
func (i *Image) Summarize() {
	i.ChangeDetection, i.FullCompareAt = "", time.Time{}
	first := true
	for _, d := range i.Disks {
		if d.SkippedReason != "" {
			continue
		}
		i.ChangeDetection = i.ChangeDetection.Worse(d.ChangeDetection)
		if first || d.FullCompareAt.Before(i.FullCompareAt) {
			i.FullCompareAt = d.FullCompareAt
		}
		first = false
	}
	if first { // a VM without disks is read in full soon enough
		i.ChangeDetection = DetectFull
	}
}
