package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/failpoint"
)

// verify reads an image whole and notes what it has found.
func (a *attempt) verify(ctx context.Context) (ending, error) {
	a.begin(ctx, "reading the image")
	var spec backup.VerifySpec
	if len(a.job.Spec) > 0 {
		if err := json.Unmarshal(a.job.Spec, &spec); err != nil {
			return ending{}, fmt.Errorf("spec: %w", err)
		}
	}
	image, record, err := a.storedImage(ctx)
	if backup.CodeOf(err) == backup.NotFound || err == nil && image.Status == backup.ImageExpired {
		return ending{state: backup.JobSkipped, message: "The image was deleted."}, nil
	}
	if err != nil {
		return ending{}, err
	}
	repo, err := a.Repositories.Repository(ctx, record)
	if err != nil {
		return ending{}, err
	}
	v := backup.Verified{}
	if spec.IfWhole {
		v, err = repo.Verify(ctx, image.Ref, backup.Verification{Brief: true})
	}
	if err == nil && v.Message != "" {
		return ending{state: backup.JobSkipped, message: "What the image lacks is not stored again. " + v.Message, imageID: image.ID}, nil
	}
	if err == nil {
		failpoint.Hit("verify.reading")
		v, err = repo.Verify(ctx, image.Ref, backup.Verification{Read: true, Rate: a.VerifyRate, Progress: a.progress})
	}
	if backup.CodeOf(err) == backup.NotFound {
		v, err = backup.Verified{Message: "The image is not in its repository any more."}, nil
	}
	if err != nil {
		return ending{}, fmt.Errorf("verify image %s: %w", image.ID, err)
	}
	var sums map[int32]string
	if spec.SHA256 && v.Message == "" {
		if sums, err = a.hashes(ctx, repo, image); err != nil {
			return ending{}, fmt.Errorf("hash image %s: %w", image.ID, err)
		}
	}
	return a.verified(ctx, image, v, sums)
}

// verified ends a reading: the image, and those that lack the same, are listed
// as what they are.
func (a *attempt) verified(ctx context.Context, image backup.Image, v backup.Verified, sums map[int32]string) (ending, error) {
	if err := a.markHurt(ctx, image.RepositoryID, v.Hurt); err != nil {
		return ending{}, err
	}
	e := ending{state: backup.JobSucceeded, imageID: image.ID}
	switch {
	case v.Message != "":
		a.log.ErrorContext(ctx, "image is damaged", "image", image.ID, "files", v.Files)
		e = ending{state: backup.JobFailed, code: backup.RepositoryDamaged, message: v.Message, imageID: image.ID}
	case image.Status == backup.ImageDamaged:
		a.log.InfoContext(ctx, "image is healed", "image", image.ID)
		a.say("The image was damaged and is whole again: %s were read.", backup.SizeText(v.Bytes))
	default:
		a.say("%s were read; %d blocks are whole.", backup.SizeText(v.Bytes), v.Blocks)
	}
	failpoint.Hit("verify.read")
	e.also = func(tx backup.Tx) error {
		i, err := tx.Image(ctx, image.ID)
		if backup.CodeOf(err) == backup.NotFound || err == nil && i.Status == backup.ImageExpired {
			return nil // deleted while it was read
		}
		if err != nil {
			return err
		}
		i.Verified(v, tx.Now())
		for n := range i.Disks {
			i.Disks[n].SHA256 = cmp.Or(sums[i.Disks[n].Key], i.Disks[n].SHA256)
		}
		return tx.UpdateImage(ctx, i)
	}
	return e, nil
}

// notChecked is said of an image that could not be checked.
const notChecked = "The image could not be checked after it was written (%s)."

// checkImage looks, right after the commit, whether all of the image is there.
// What is missing makes the image damaged and the job fail: another try would
// build upon the same lost blocks.
func (a *attempt) checkImage(ctx context.Context, repo backup.Repository, i *backup.Image) {
	if ctx.Err() != nil {
		return
	}
	a.begin(ctx, "checking the image")
	v, err := repo.Verify(ctx, i.Ref, backup.Verification{})
	if err != nil {
		a.log.WarnContext(ctx, "image not checked", "image", i.ID, "error", err)
		a.say(notChecked, because(err))
		return
	}
	if v.Message != "" {
		a.log.ErrorContext(ctx, "image is damaged", "image", i.ID, "files", v.Files)
		i.Verified(v, a.Now())
	}
	if err := a.markHurt(ctx, i.RepositoryID, v.Hurt); err != nil { // the next collection does so
		a.log.WarnContext(ctx, "hurt images not listed as damaged", "error", err)
	}
}
