package backup

import (
	"context"
	"fmt"
	"slices"
)

// maxCopyTargets is how many repositories a schedule's images are copied to.
const maxCopyTargets = 3

// CopyRequest asks for a copy of one image.
type CopyRequest struct {
	ImageID       string
	Repository    string // name or id
	RetentionDays *int   // from the start of the backup, 0 = never; nil = as long as the image itself
}

// CopyImage asks for a copy of the image in another repository, or finds the
// job that makes it. Errors: NotFound, Invalid, Conflict (it is there already,
// the repository is read-only), RepositoryDamaged.
func (p *Planner) CopyImage(ctx context.Context, r CopyRequest) (Job, error) {
	var j Job
	err := p.Store.Update(ctx, func(tx Tx) error {
		w, err := p.wish(ctx, tx, r)
		if err != nil {
			return err
		}
		there, err := w.there(ctx, tx)
		switch {
		case err != nil:
			return err
		case there.ID != "":
			return Errorf(Conflict, "repository", "Repository %s has a copy of the image already: %s.", w.target.Name, there.ID)
		case there.JobID != "":
			j, err = tx.Job(ctx, there.JobID)
			return err
		}
		j, err = w.insert(ctx, tx)
		return err
	})
	if err != nil {
		return Job{}, fmt.Errorf("copy image %s: %w", r.ImageID, err)
	}
	p.wake()
	return j, nil
}

// wish checks what is asked for.
func (p *Planner) wish(ctx context.Context, tx Tx, r CopyRequest) (w copyWish, err error) {
	if w.source, err = tx.Image(ctx, r.ImageID); err != nil {
		return w, err
	}
	switch i := w.source; i.Status {
	case ImageGood, ImagePartial:
	case ImageExpired:
		return w, Errorf(NotFound, "", "Image %s is being deleted.", i.ID)
	default:
		return w, Errorf(RepositoryDamaged, "", "Image %s is %s, so it is not copied. Choose another image of %q.", i.ID, i.Status, i.VMName)
	}
	if w.target, err = FindRepository(ctx, tx, r.Repository); err != nil {
		return w, at("repository", err)
	}
	if err := p.takesCopies("repository", w.target); err != nil {
		return w, err
	}
	if w.target.ID == w.source.RepositoryID {
		return w, Errorf(Conflict, "repository", "The image itself is in repository %s: name another one.", w.target.Name)
	}
	if root, err := tx.Image(ctx, w.source.original()); err == nil && root.RepositoryID == w.target.ID && root.Status != ImageExpired {
		return w, Errorf(Conflict, "repository", "Repository %s has the image already: it is a copy of %s there.", w.target.Name, root.ID)
	} else if err != nil && CodeOf(err) != NotFound {
		return w, err
	}
	w.expires = w.source.ExpiresAt
	if r.RetentionDays != nil {
		if err := p.profile().Check("retention_days", OneTime, *r.RetentionDays); err != nil {
			return w, err
		}
		w.expires = ExpiresAt(w.source.StartedAt, *r.RetentionDays)
	}
	if over(w.expires, tx.Now()) {
		return w, Errorf(Invalid, "retention_days", "The copy would have ended at %s already: retention runs from the start of the backup. Give more days.", w.expires.UTC().Format("2006-01-02 15:04 UTC"))
	}
	return w, nil
}

// takesCopies refuses a repository that is not written to from here.
func (p *Planner) takesCopies(field string, r RepositoryRecord) error {
	if r.ReadOnly || r.Foreign(p.Installation) {
		return Errorf(Invalid, field, "Repository %s is only read from here, so nothing is copied to it. Name another one.", r.Name)
	}
	return nil
}

// Copies tells how the copies of an image stand. Errors: NotFound.
func (p *Planner) Copies(ctx context.Context, id string) (all []Copy, err error) {
	err = p.Store.View(ctx, func(tx Tx) error {
		i, err := tx.Image(ctx, id)
		if err != nil {
			return err
		}
		of, err := CopiesOf(ctx, tx, []string{i.original()})
		all = of[i.original()]
		return err
	})
	return all, err
}

// copyTo puts the ids of the repositories in place of their names.
func (p *Planner) copyTo(ctx context.Context, tx Tx, s *Schedule) error {
	s.CopyTo = slices.Clone(s.CopyTo)
	for n := range s.CopyTo {
		t := &s.CopyTo[n]
		if t.RepositoryID == "" {
			return Errorf(Invalid, "copy_to.repository", "Each copy_to names its repository.")
		}
		r, err := FindRepository(ctx, tx, t.RepositoryID)
		if err == nil {
			err = p.takesCopies("copy_to.repository", r)
		}
		if err != nil {
			return at("copy_to.repository", err)
		}
		if r.ID == s.RepositoryID {
			return Errorf(Invalid, "copy_to.repository", "Repository %s is where the schedule's images are made: copy_to names others.", r.Name)
		}
		t.RepositoryID = r.ID
	}
	return nil
}

// validCopies checks where images are copied to.
func (s Schedule) validCopies(p RetentionProfile) error {
	if n := len(s.CopyTo); n > maxCopyTargets {
		return Errorf(Invalid, "copy_to", "A schedule copies its images to at most %d repositories, got %d.", maxCopyTargets, n)
	}
	for n, t := range s.CopyTo {
		if slices.ContainsFunc(s.CopyTo[:n], func(o CopyTarget) bool { return o.RepositoryID == t.RepositoryID }) {
			return Errorf(Invalid, "copy_to.repository", "copy_to names each repository once, and one twice.")
		}
		if err := p.Check("copy_to.retention_days", s.Recurrence.Kind, t.RetentionDays); err != nil {
			return err
		}
	}
	return nil
}
