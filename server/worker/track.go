package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// diskPlan is how one disk is going to be read, and what came of it.
type diskPlan struct {
	draft  backup.DiskDraft
	base   backup.ImageDisk // in the image before; zero = it is not there
	based  bool             // the repository can build upon that
	detect backup.ChangeDetection
	doubt  *backup.Doubt // why changes are not taken from vSphere; nil = they are, or there is nothing to change
	told   *blockSet     // what vSphere says has changed; nil = it was not asked
	due    bool          // read in full because it is time
	missed missed
	read   int64
}

// missed are the changed blocks that vSphere did not tell of.
type missed struct {
	blocks int
	first  int64
}

// track makes sure that the snapshot which is going to be made has change ids
// that are of use, as far as that can be had.
func (b *backupJob) track(ctx context.Context) error {
	b.begin(ctx, "looking at changed block tracking")
	set := b.session.TrackChanges
	if b.trackingBroken() {
		set = func(ctx context.Context, moid string) (backup.Tracking, error) {
			return b.session.ResetTracking(ctx, moid, b.marker())
		}
	}
	var err error
	if b.tracking, err = set(ctx, b.vm.MOID); err != nil {
		return fmt.Errorf("changed block tracking: %w", err)
	}
	if b.tracking.Reason != "" {
		b.log.InfoContext(ctx, "changed block tracking stays as it is", "on", b.tracking.On, "reason", b.tracking.Reason)
	}
	return nil
}

// trackingBroken says whether what vSphere would tell is known to be of no use
// until the tracking begins anew: it lied before, or a disk was resized.
func (b *backupJob) trackingBroken() bool {
	return slices.ContainsFunc(b.base.Disks, func(d backup.ImageDisk) bool {
		resized := slices.ContainsFunc(b.machine.Disks, func(m backup.VMDisk) bool { return m.Key == d.Key && m.Capacity != d.Capacity })
		return d.TrackingDoubt != "" || resized && d.ChangeID != ""
	})
}

// plan decides for each disk how its changes are found.
func (b *backupJob) plan(ctx context.Context, w backup.ImageWriter, keys []int32) ([]*diskPlan, error) {
	var plans []*diskPlan
	for _, d := range b.snap.Disks {
		if !slices.Contains(keys, d.Key) {
			continue
		}
		p := &diskPlan{draft: d, detect: backup.DetectFull, based: w.HasBase(d.Key, d.Capacity)}
		if i := slices.IndexFunc(b.base.Disks, func(o backup.ImageDisk) bool { return o.Key == d.Key }); i >= 0 {
			p.base = b.base.Disks[i]
		}
		if p.based {
			p.detect = backup.DetectCompare
		}
		if p.base.Key == d.Key && p.base.SkippedReason == "" { // a disk that is new has nothing to be compared with
			if err := b.ask(ctx, w, p); err != nil {
				return nil, err
			}
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// ask asks vSphere what has changed on a disk, unless the answer could not be
// relied on.
func (b *backupJob) ask(ctx context.Context, w backup.ImageWriter, p *diskPlan) error {
	p.doubt = p.draft.Since(p.base)
	switch {
	case p.doubt == nil && !p.based:
		p.doubt = backup.Doubtf(backup.DoubtBase, "the image before cannot be built upon")
	case p.doubt == nil && b.tracking.Fresh:
		p.doubt = backup.Doubtf(backup.DoubtFresh, "it had been switched off, and was switched on just now")
	case p.doubt != nil && p.doubt.Reason == backup.DoubtOff && b.tracking.Reason != "":
		p.doubt = backup.Doubtf(backup.DoubtOff, "%s", b.tracking.Reason)
	case p.doubt == nil:
		told := newBlockSet(w.BlockSize(p.draft.Key, p.draft.Capacity), p.draft.Capacity)
		err := b.session.ChangedAreas(ctx, b.snap, p.draft.Key, p.base.ChangeID, func(e backup.Extent) error {
			told.add(e)
			return nil
		})
		if doubt, ok := errors.AsType[*backup.Doubt](err); ok {
			p.doubt = doubt
			return nil
		}
		if err != nil {
			return fmt.Errorf("changed areas of %s: %w", p.draft.Label, err)
		}
		p.told, p.detect = told, backup.DetectCBT
	}
	return nil
}

// becomesDue has a disk read in full where it is time and, before it is too
// late, the day's budget allows it.
func (b *backupJob) becomesDue(ctx context.Context, p *diskPlan) error {
	switch p.base.DueForCompare(b.base, b.image.StartedAt) {
	case backup.CompareNot:
		return nil
	case backup.CompareMust:
		p.due = true
		_, err := backup.ReserveCompare(ctx, b.Store, b.compared(p, p.draft.Capacity), 0)
		return b.budgeted(p, err)
	}
	var err error
	p.due, err = backup.ReserveCompare(ctx, b.Store, b.compared(p, p.draft.Capacity), b.CompareBudget)
	return b.budgeted(p, err)
}

// compared is what a disk takes of the day's budget.
func (b *backupJob) compared(p *diskPlan, bytes int64) backup.Compared {
	return backup.Compared{Day: backup.CompareDay(b.image.StartedAt), JobID: b.job.ID, Disk: p.draft.Key, Bytes: bytes}
}

func (b *backupJob) budgeted(p *diskPlan, err error) error {
	if err != nil {
		return fmt.Errorf("budget of the day's compares: %w", err)
	}
	if p.due {
		p.detect = backup.DetectCompare
	}
	return nil
}

// settleBudget notes what a compare that was due has read.
func (b *backupJob) settleBudget(ctx context.Context, p *diskPlan) {
	if !p.due {
		return
	}
	c := b.compared(p, p.read)
	c.Settled = true
	err := b.Store.Update(ctx, func(tx backup.Tx) error {
		_, err := tx.SaveCompared(ctx, c)
		return err
	})
	if err != nil { // the budget is a guide: no reason to fail
		b.log.WarnContext(ctx, "budget of the day's compares not settled", "error", err)
	}
}

// enter puts a disk that was written into the image.
func (b *backupJob) enter(p *diskPlan, disk backup.ImageDisk) {
	disk.Read, disk.File, disk.ChangeDetection = p.read, p.draft.File, p.detect
	disk.FullCompareAt = b.image.StartedAt
	if p.detect == backup.DetectCBT {
		disk.FullCompareAt = p.base.FullCompareAt
	}
	disk.TrackingDoubt = p.lasting()
	b.image.Disks = append(b.image.Disks, disk)
	b.image.Sizes.Provisioned += p.draft.Capacity
	b.image.Sizes.Read += p.read
}

// lasting is the doubt that the next image must know of.
func (p *diskPlan) lasting() backup.DoubtReason {
	if p.draft.ChangeID == "" {
		return ""
	}
	same := backup.Epoch(p.draft.ChangeID) == backup.Epoch(p.base.ChangeID)
	switch {
	case p.draft.Doubt != nil:
		return p.draft.Doubt.Reason
	case p.missed.blocks > 0:
		return backup.DoubtLie
	case same && p.doubt != nil && p.doubt.Reason.Lasting():
		return p.doubt.Reason
	case same:
		return p.base.TrackingDoubt
	}
	return ""
}

// tell says once, for all disks, why what vSphere tells of changes was not used.
func (b *backupJob) tell(plans []*diskPlan) {
	var texts, lies, due []string
	for _, p := range plans {
		if p.due {
			due = append(due, p.draft.Label)
		}
		if p.doubt != nil {
			texts = append(texts, p.doubt.Text)
			b.distrust(p.doubt.Reason)
		}
		if p.missed.blocks > 0 && p.doubt == nil {
			lies = append(lies, fmt.Sprintf("%s: %d of %d bytes each, the first at %d", p.draft.Label, p.missed.blocks, p.told.size, p.missed.first))
			b.distrust(backup.DoubtLie)
		}
	}
	if len(due) > 0 {
		b.say("Compared in full, as every disk is at least every 35 days: %s.", strings.Join(due, ", "))
	}
	if len(lies) > 0 {
		b.say("CBT left out blocks that had changed (%s). They are in the image: all blocks were compared. The next backup resets the tracking.", strings.Join(lies, "; "))
	}
	switch {
	case b.base.Ref == "" && b.tracking.Reason != "" && !b.tracking.On:
		b.say("CBT cannot be switched on (%s), so every backup compares all blocks.", b.tracking.Reason)
	case len(texts) == 0:
	case len(texts) == len(plans) && len(slices.Compact(slices.Sorted(slices.Values(texts)))) == 1:
		b.say("CBT not usable (%s); compared all blocks.", texts[0])
	default:
		for i, p := range slices.DeleteFunc(slices.Clone(plans), func(p *diskPlan) bool { return p.doubt == nil }) {
			texts[i] = p.draft.Label + ": " + texts[i]
		}
		b.say("CBT not usable (%s); compared all blocks.", strings.Join(texts, "; "))
	}
}

func (b *backupJob) distrust(r backup.DoubtReason) {
	if b.OnDistrust != nil {
		b.OnDistrust(r)
	}
}

// baseLess says whether the image could not be kept because of the one that it
// was built upon. Then all is written anew, by this attempt and those after it.
func (b *backupJob) baseLess(ctx context.Context, err error) bool {
	code := backup.CodeOf(err)
	refused := code == backup.RepositoryDamaged || errors.Is(err, errAtCommit) && (code == backup.Unavailable || code == backup.Conflict)
	if err == nil || ctx.Err() != nil || b.base.Ref == "" || !refused {
		return false
	}
	b.say("The image before could not be built upon (%s), so all blocks are stored anew.", because(err))
	b.log.WarnContext(ctx, "base image dropped", "ref", b.base.Ref, "error", err)
	b.base, b.note.NoBase = backup.Image{}, true
	if err := b.remember(ctx); err != nil {
		b.log.WarnContext(ctx, "dropped base not noted", "error", err)
	}
	return true
}

// errAtCommit marks what the repository refused when an image was complete.
var errAtCommit = errors.New("the image was not kept")
