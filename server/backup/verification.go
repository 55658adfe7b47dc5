package backup

import (
	"context"
	"encoding/json"
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

// Verified notes in the image what a reading has found.
func (i *Image) Verified(v Verified, at time.Time) {
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
