package backup

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// A copy is the same image in a second repository. It is an image of its own,
// which says whose copy it is, so that it is restored, verified, expired and
// deleted like any other, and can be restored from its repository alone.

// CopyTarget says where the images of a schedule are copied to.
type CopyTarget struct {
	RepositoryID  string `json:"repository_id"`  // where asked for: name or id
	RetentionDays int    `json:"retention_days"` // from the start of the backup; 0 = never expires
}

// CopySpec is what a job of [KindCopy] was asked to do. Its ImageID is the
// original's.
type CopySpec struct {
	SourceID     string    `json:"source_id"` // image that is read: the original, or a copy of it
	RepositoryID string    `json:"repository_id"`
	ExpiresAt    time.Time `json:"expires_at,omitzero"` // zero = never
	Lock         bool      `json:"lock,omitempty"`
}

// CopyChoice says which copies belong to a list of images.
type CopyChoice uint8

// The choices.
const (
	CopiesAll   CopyChoice = iota
	CopiesAlone            // only those whose original is not in the catalogue any more
	CopiesNone
)

// CopyStatus tells how a copy stands.
type CopyStatus string

// The states of copies. The last three are those of their image.
const (
	CopyWaiting CopyStatus = "waiting"
	CopyCopying CopyStatus = "copying"
	CopyFailed  CopyStatus = "failed" // and is not tried again
	CopyGood    CopyStatus = "good"
	CopyPartial CopyStatus = "partial"
	CopyDamaged CopyStatus = "damaged"
)

// Copy is a copy of an image, or the job that makes one.
type Copy struct {
	OriginalID   string
	ID           string // the copy's own; "" = it is not there
	RepositoryID string
	Status       CopyStatus
	ExpiresAt    time.Time // zero = never
	LockedUntil  time.Time
	CopiedAt     time.Time
	JobID        string
	Message      string
	Asked        CopySpec // of one that is not there
}

// worth orders what there is of one image in one repository.
func (c Copy) worth() int {
	switch c.Status {
	case CopyGood, CopyPartial:
		return 3
	case CopyCopying, CopyWaiting:
		return 2
	case CopyDamaged:
		return 1
	case CopyFailed:
		return 0
	}
	return 0
}

// CopiesOf tells of each of the images how its copies stand: one line for each
// repository, in the order of the repositories' ids.
func CopiesOf(ctx context.Context, tx Tx, ids []string) (map[string][]Copy, error) {
	of := map[string][]Copy{}
	if len(ids) == 0 {
		return of, nil
	}
	found, err := tx.Copies(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, c := range found {
		all := of[c.OriginalID]
		last := len(all) - 1
		switch {
		case last < 0 || all[last].RepositoryID != c.RepositoryID:
			of[c.OriginalID] = append(all, c)
		case c.worth() >= all[last].worth():
			all[last] = c
		}
	}
	return of, nil
}

// original is the id of the image that i is a copy of, or its own.
func (i Image) original() string { return cmp.Or(i.CopyOf, i.ID) }

// copyAttempts is how often a copy is tried: with the pauses between them for
// longer than a day, so that a site that was away for a night gets its copies.
const copyAttempts = 16

// copiesAtOnce is how many copies read one repository, or write one.
const copiesAtOnce = 2

// copyWish is a copy that somebody wants.
type copyWish struct {
	source  Image
	target  RepositoryRecord
	expires time.Time // zero = never
	lock    bool
}

// PlanCopies asks for the copies of an image that the backup job was told to
// have made.
func PlanCopies(ctx context.Context, tx Tx, j Job, i Image) error {
	var spec BackupSpec
	if err := json.Unmarshal(j.Spec, &spec); err != nil {
		return fmt.Errorf("spec of job %s: %w", j.ID, err)
	}
	if i.Status != ImageGood && i.Status != ImagePartial {
		return nil
	}
	for _, t := range spec.CopyTo {
		r, err := tx.Repository(ctx, t.RepositoryID)
		if CodeOf(err) == NotFound {
			continue
		}
		if err != nil {
			return err
		}
		w := copyWish{source: i, target: r, expires: ExpiresAt(i.StartedAt, t.RetentionDays), lock: spec.Lock}
		if over(w.expires, tx.Now()) {
			continue
		}
		if _, err := w.plan(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

func over(expires, now time.Time) bool { return !expires.IsZero() && !now.Before(expires) }

// plan finds the copy, or the job that makes one for long enough, or asks for
// that job. The job is empty where the copy is there.
func (w copyWish) plan(ctx context.Context, tx Tx) (Job, error) {
	there, err := w.there(ctx, tx)
	if err != nil {
		return Job{}, err
	}
	if there.ID != "" {
		return Job{}, w.keep(ctx, tx, there.ID)
	}
	if there.JobID != "" && laterEnd(there.Asked.ExpiresAt, w.expires).Equal(there.Asked.ExpiresAt) && (there.Asked.Lock || !w.lock) {
		return tx.Job(ctx, there.JobID)
	}
	return w.insert(ctx, tx)
}

// there is what the target holds, or will hold, of the image: good, or on its way.
func (w copyWish) there(ctx context.Context, tx Tx) (Copy, error) {
	id := w.source.original()
	copies, err := CopiesOf(ctx, tx, []string{id})
	if err != nil {
		return Copy{}, err
	}
	for _, c := range copies[id] {
		if c.RepositoryID == w.target.ID && c.worth() >= 2 {
			return c, nil
		}
	}
	return Copy{}, nil
}

// keep lets a copy that is there end no sooner than is wished.
func (w copyWish) keep(ctx context.Context, tx Tx, id string) error {
	i, err := tx.Image(ctx, id)
	if err != nil {
		return err
	}
	s := ImageShare{ExpiresAt: w.expires}
	if w.lock || !w.source.LockedUntil.IsZero() {
		s.LockedUntil = LockedUntil(w.expires)
	}
	i.keepFor(s)
	return tx.UpdateImage(ctx, i)
}

// insert asks for the job that makes the copy. Its keys let one copy of a VM at
// a time go to a repository, so that the next one finds what this one has sent,
// and few read or write the same repository.
func (w copyWish) insert(ctx context.Context, tx Tx) (Job, error) {
	from, err := tx.Repository(ctx, w.source.RepositoryID)
	if err != nil {
		return Job{}, err
	}
	j := newJob(tx.Now(), KindCopy)
	j.ImageID, j.VMID, j.VMName, j.VCenterID = w.source.original(), w.source.VMID, w.source.VMName, w.source.VCenterID
	j.Spec, _ = json.Marshal(CopySpec{SourceID: w.source.ID, RepositoryID: w.target.ID, ExpiresAt: w.expires, Lock: w.lock}) // plain values: cannot fail
	j.Needs = []string{reachRepository(from), reachRepository(w.target)}
	j.Keys = []JobKey{
		{Name: "copy:" + cmp.Or(w.source.VMInstanceUUID, j.ImageID) + "/" + w.target.ID, Weight: 1, Max: 1},
		{Name: "copy-from:" + from.ID, Weight: 1, Max: copiesAtOnce},
		{Name: "copy-to:" + w.target.ID, Weight: 1, Max: copiesAtOnce},
	}
	j.Unbooked = true // backups go first
	j.MaxAttempts = copyAttempts
	return j, tx.InsertJob(ctx, j)
}

// NewCopy is the image that a copy of source becomes.
func NewCopy(source Image, spec CopySpec) Image {
	c := source
	c.CopyOf, c.RepositoryID, c.Ref = source.original(), spec.RepositoryID, ""
	c.ExpiresAt, c.LockedUntil, c.VerifiedAt = spec.ExpiresAt, time.Time{}, time.Time{}
	c.HeldUntil, c.ExtendedUntil, c.StorageLockedUntil = time.Time{}, time.Time{}, time.Time{} // said of the original only
	if spec.Lock || !source.LockedUntil.IsZero() {
		c.LockedUntil = LockedUntil(c.ExpiresAt)
	}
	c.Sizes = Sizes{Provisioned: source.Sizes.Provisioned}
	return c
}

// KeepCopy makes a copy that is there last as long as the job asks for. ok =
// there was one, so that nothing needs to be copied.
func KeepCopy(ctx context.Context, tx Tx, source Image, spec CopySpec) (id string, ok bool, err error) {
	w := copyWish{source: source, target: RepositoryRecord{Meta: Meta{ID: spec.RepositoryID}}, expires: spec.ExpiresAt, lock: spec.Lock}
	c, err := w.there(ctx, tx)
	if err != nil || c.ID == "" {
		return "", false, err
	}
	return c.ID, true, w.keep(ctx, tx, c.ID)
}

// notCopied gives [InUse] while a copy is being made of the image.
func notCopied(ctx context.Context, tx Tx, i Image) error {
	sources, err := copySources(ctx, tx, i.VMID)
	if err == nil && sources[i.ID] != "" {
		return Errorf(InUse, "", "Image %s is being copied (job %s). Wait for it or cancel it.", i.ID, sources[i.ID])
	}
	return err
}

// copySources are the images that copies are made of, with the jobs: of a VM,
// or of all.
func copySources(ctx context.Context, tx Tx, vmID string) (map[string]string, error) {
	sources := map[string]string{}
	for f := (JobFilter{Kind: KindCopy, Active: true, VMID: vmID, Page: Page{Limit: 1000}}); ; {
		jobs, next, err := tx.Jobs(ctx, f)
		if err != nil {
			return nil, err
		}
		for _, j := range jobs {
			var spec CopySpec
			if err := json.Unmarshal(j.Spec, &spec); err != nil {
				return nil, fmt.Errorf("spec of job %s: %w", j.ID, err)
			}
			sources[spec.SourceID] = j.ID
		}
		if f.Cursor = next; next == "" {
			return sources, nil
		}
	}
}

// CopyBase finds the image of the same VM in the target that the copy builds
// upon, and the same image in the source's repository: what differs between
// that and the source is what has to be sent. Either is empty where it is not there.
func CopyBase(ctx context.Context, tx Tx, source Image, targetID string) (base, same Image, err error) {
	if source.VMID == "" {
		return base, same, nil
	}
	if base, err = tx.LastImage(ctx, source.VMID, targetID); err != nil {
		if CodeOf(err) == NotFound {
			err = nil
		}
		return Image{}, same, err
	}
	if same, err = tx.Image(ctx, base.original()); err == nil && readable(same, source.RepositoryID) {
		return base, same, nil
	}
	if err != nil && CodeOf(err) != NotFound {
		return base, Image{}, err
	}
	copies, err := CopiesOf(ctx, tx, []string{base.original()})
	if err != nil {
		return base, Image{}, err
	}
	for _, c := range copies[base.original()] {
		if c.ID != "" && c.RepositoryID == source.RepositoryID && c.worth() > 2 {
			same, err = tx.Image(ctx, c.ID)
			return base, same, err
		}
	}
	return base, Image{}, nil
}

func readable(i Image, repositoryID string) bool {
	return i.RepositoryID == repositoryID && (i.Status == ImageGood || i.Status == ImagePartial)
}
