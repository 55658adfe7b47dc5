package backup

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// verifyDays is within how many days every image of a repository is read whole
// that does not say otherwise.
const verifyDays = 30

// readingsWaiting is how many readings of one repository may wait: they are
// asked for as they are done.
const readingsWaiting = 20

// VerifyImage asks for a reading of the image now, or finds the one that waits
// or runs. Errors: NotFound (also an image that is being deleted).
func (p *Planner) VerifyImage(ctx context.Context, id string) (Job, error) {
	return p.readImage(ctx, id, VerifySpec{})
}

// VerifySpec is what a job of [KindVerify] was asked to do besides.
type VerifySpec struct {
	SHA256 bool `json:"sha256,omitempty"` // tell the checksum of each disk
	// IfWhole: the image is damaged, and only read if all of it is there again.
	IfWhole bool `json:"if_whole,omitempty"`
}

// HashImage is [Planner.VerifyImage], and the image tells the SHA-256 of each
// of its disks afterwards: what was written does not tell it, as that would
// cost more than the writing.
func (p *Planner) HashImage(ctx context.Context, id string) (Job, error) {
	return p.readImage(ctx, id, VerifySpec{SHA256: true})
}

func (p *Planner) readImage(ctx context.Context, id string, spec VerifySpec) (Job, error) {
	var j Job
	err := p.Store.Update(ctx, func(tx Tx) error {
		i, err := tx.Image(ctx, id)
		if err != nil {
			return err
		}
		if i.Status == ImageExpired {
			return Errorf(NotFound, "", "Image %s is being deleted.", id)
		}
		if j, err = activeJob(ctx, tx, JobFilter{Kind: KindVerify, VMID: i.VMID}, id); err != nil {
			return err
		}
		var asked VerifySpec
		if j.ID != "" && (!spec.SHA256 || json.Unmarshal(j.Spec, &asked) == nil && asked.SHA256) {
			return nil
		}
		r, err := tx.Repository(ctx, i.RepositoryID)
		if err != nil {
			return err
		}
		j, err = insertReading(ctx, tx, r, i, spec)
		return err
	})
	if err == nil {
		p.wake()
	}
	return j, err
}

// planReadings asks for the readings that are due: of all images within
// VerifyDays, one after the other at equal distances, the longest unread first.
func planReadings(ctx context.Context, tx Tx, r RepositoryRecord) (jobs int, err error) {
	u, err := tx.Upkeep(ctx, r.ID)
	if err != nil {
		return 0, err
	}
	waiting, err := activeImages(ctx, tx, KindVerify)
	if err != nil || len(waiting) >= readingsWaiting {
		return 0, err
	}
	ids, all, err := tx.LongestUnread(ctx, r.ID, readingsWaiting+len(waiting))
	if err != nil {
		return 0, err
	}
	due := u.readings(tx.Now(), all, r.VerifyDays)
	for _, id := range ids {
		if jobs == min(due, readingsWaiting) {
			break
		}
		if waiting[id] {
			continue
		}
		i, err := tx.Image(ctx, id)
		if err != nil {
			return 0, err
		}
		if _, err := insertReading(ctx, tx, r, i, VerifySpec{}); err != nil {
			return 0, err
		}
		jobs++
	}
	return jobs, tx.SaveUpkeep(ctx, u)
}

// readings moves VerifiedUpTo to now and returns how many images are to be read
// for it. What a server that was away has not asked for is made up for one day.
func (u *Upkeep) readings(now time.Time, images, days int) int {
	if days <= 0 {
		days = verifyDays
	}
	since := now.Sub(u.VerifiedUpTo)
	if u.VerifiedUpTo.IsZero() || since < 0 || images == 0 {
		u.VerifiedUpTo = now
		return 0
	}
	distance := time.Duration(days) * 24 * time.Hour / time.Duration(images)
	if most := max(24*time.Hour, distance); since > most {
		u.VerifiedUpTo = now.Add(-most)
		since = most
	}
	n := int(since / max(distance, 1))
	u.VerifiedUpTo = u.VerifiedUpTo.Add(time.Duration(n) * distance)
	return n
}

// insertReading asks for the job that reads an image. One image of a repository
// is read at a time.
func insertReading(ctx context.Context, tx Tx, r RepositoryRecord, i Image, spec VerifySpec) (Job, error) {
	j := newJob(tx.Now(), KindVerify)
	j.ImageID, j.VMID, j.VMName, j.VCenterID = i.ID, i.VMID, i.VMName, i.VCenterID
	j.Needs = []string{reachRepository(r)}
	j.Keys = []JobKey{{Name: "verify:" + r.ID, Weight: 1, Max: 1}}
	if spec != (VerifySpec{}) {
		j.Spec, _ = json.Marshal(spec) // plain values: cannot fail
	}
	return j, tx.InsertJob(ctx, j)
}

// ReadDamaged asks for a look at the damaged images of a new image's VM, in the
// same repository: it may have brought what they lack.
func ReadDamaged(ctx context.Context, tx Tx, fresh Image) error {
	if fresh.Status == ImageDamaged {
		return nil
	}
	f := ImageFilter{RepositoryID: fresh.RepositoryID, VMID: fresh.VMID, Status: ImageDamaged, Page: Page{Limit: 1000}}
	damaged, _, err := tx.Images(ctx, f)
	if err != nil || len(damaged) == 0 {
		return err
	}
	waiting, err := activeImages(ctx, tx, KindVerify)
	if err != nil {
		return err
	}
	r, err := tx.Repository(ctx, fresh.RepositoryID)
	if err != nil {
		return err
	}
	for _, i := range damaged {
		if waiting[i.ID] {
			continue
		}
		if _, err := insertReading(ctx, tx, r, i, VerifySpec{IfWhole: true}); err != nil {
			return err
		}
	}
	return nil
}

// MarkHurt lists images as damaged that need what was found to be lost. It
// returns those of which that was not known.
func MarkHurt(ctx context.Context, tx Tx, repositoryID string, hurt []HurtImage) (news []Image, err error) {
	for _, h := range hurt {
		i, err := tx.Image(ctx, h.ID)
		if CodeOf(err) == NotFound || err == nil && (i.RepositoryID != repositoryID || i.Status == ImageExpired || i.Status == ImageDamaged) {
			continue
		}
		if err != nil {
			return nil, err
		}
		i.Verified(Verified{Message: h.Message, Damaged: h.Disks}, tx.Now())
		if err := tx.UpdateImage(ctx, i); err != nil {
			return nil, err
		}
		news = append(news, i)
	}
	return news, nil
}

// DamagedDisks are the labels of the disks of which something is lost.
func (i Image) DamagedDisks() (labels []string) {
	for _, d := range i.Disks {
		if d.Damaged {
			labels = append(labels, d.Label)
		}
	}
	return labels
}

// Verified notes in the image what a reading has found.
func (i *Image) Verified(v Verified, at time.Time) {
	for n := range i.Disks {
		i.Disks[n].Damaged = slices.Contains(v.Damaged, i.Disks[n].Key)
	}
	if v.Message != "" {
		i.Status, i.Message = ImageDamaged, v.Message
		return
	}
	i.VerifiedAt = at
	if i.Status != ImageDamaged {
		return
	}
	i.Status, i.Message = ImageGood, "" // what was lost is back
	for _, d := range i.Disks {
		if d.SkippedReason != "" {
			i.Status = ImagePartial
		}
	}
}
