package repository

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"time"

	"github.com/kopia/kopia/repo"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// Config says how repositories are opened.
type Config struct {
	Installation string // id of this installation, for the owner's mark
	Dir          string // for kopia's configuration files and caches
	Log          *slog.Logger
	Now          func() time.Time // nil = time.Now
	// Workers is how many blocks of an image are packed, or read ahead, at the
	// same time. 0 = one more than there are processors, at most 8.
	Workers int
	// CacheBytes is the size of each of kopia's two caches on disk. 0 = none,
	// which is right for repositories on disks of this machine.
	CacheBytes int64
	// LookupEnv reads the server's environment, for secrets of storages that are
	// given by name. nil = none can be.
	LookupEnv func(name string) (string, bool)
}

// Repositories opens repositories and keeps them open. It implements
// [backup.Repositories].
type Repositories struct {
	cfg Config

	mu     sync.Mutex // guards open, closed and calls
	open   map[string]*slot
	calls  map[string]*calls // by the record's id
	closed bool

	// onStore lets tests hold the storage before it is used.
	onStore func(*fileStore)
	// hasty lets tests leave out what makes a folder survive a power cut.
	hasty bool
	// patience with remote storages, and with writes that must not be left half
	// done; tests have less.
	patience   patience
	settleTime time.Duration
}

// slot is the place of one repository, by its record's id.
type slot struct {
	mu      sync.Mutex // held while it is opened; guards the rest
	current *opened
	retired []*opened // of earlier settings or another password; closed at the end
}

// opened is a repository that is open.
type opened struct {
	repo      repo.DirectRepository
	manifests catalogue
	whole     *wholeReads // what kopia reads through
	seen      presence
	store     storage
	kind      string
	settings  map[string]string
	password  backup.Secret
	readOnly  bool
	owner     string // the installation, if it is another one
	uniqueID  string

	settleTime time.Duration
}

var _ backup.Repositories = (*Repositories)(nil)

// New returns a Repositories, which opens nothing yet.
func New(c Config) *Repositories {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Workers <= 0 {
		c.Workers = min(runtime.GOMAXPROCS(0)+1, 8)
	}
	return &Repositories{cfg: c, open: map[string]*slot{}, calls: map[string]*calls{}, patience: defaultPatience(), settleTime: settleTime}
}

// Repository returns the opened repository of rec. What the record changes is
// in force at the next call.
func (rs *Repositories) Repository(ctx context.Context, rec backup.RepositoryRecord) (backup.Repository, error) {
	if err := check(rec); err != nil {
		return nil, err
	}
	sl, err := rs.slot(rec.ID)
	if err != nil {
		return nil, err
	}
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if o := sl.current; o != nil && o.fits(rec) {
		same, err := rs.unchanged(ctx, o)
		if err != nil {
			return nil, err
		}
		if same {
			return &repository{opened: o, rec: rec, cfg: rs.cfg}, nil
		}
		o.store.freeze() // another installation writes now, or did so until now
	}
	o, err := rs.openRecord(ctx, rec)
	if err != nil {
		return nil, err
	}
	if sl.current != nil {
		sl.retired = append(sl.retired, sl.current)
	}
	sl.current = o
	return &repository{opened: o, rec: rec, cfg: rs.cfg}, nil
}

// unchanged says whether an opened repository is there and belongs to whom it
// belonged when it was opened.
func (rs *Repositories) unchanged(ctx context.Context, o *opened) (bool, error) {
	if err := o.store.missing(ctx); err != nil {
		return false, unreachable(o.store.location(), err).Because(err)
	}
	m, err := readMark(ctx, o.store)
	if err != nil {
		return false, explain(ctx, o.store, "look whose the repository is", err)
	}
	return m.foreign(rs.cfg.Installation) == o.owner, nil
}

// Close closes all repositories. Nothing may be in use any more.
func (rs *Repositories) Close(ctx context.Context) error {
	rs.mu.Lock()
	slots := rs.open
	rs.open, rs.closed = map[string]*slot{}, true
	rs.mu.Unlock()
	var all []error
	for id, sl := range slots {
		sl.mu.Lock()
		for _, o := range append(sl.retired, sl.current) {
			if o == nil {
				continue
			}
			if err := o.repo.Close(ctx); err != nil {
				all = append(all, fmt.Errorf("close repository %s: %w", id, err))
			}
		}
		sl.current, sl.retired = nil, nil
		sl.mu.Unlock()
	}
	return errors.Join(all...)
}

func (rs *Repositories) slot(id string) (*slot, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.closed {
		return nil, errors.New("repositories are closed")
	}
	if rs.open[id] == nil {
		rs.open[id] = &slot{}
	}
	return rs.open[id], nil
}

// fits says whether the opened repository still is the one of the record.
func (o *opened) fits(rec backup.RepositoryRecord) bool {
	return o.kind == rec.Kind && maps.Equal(o.settings, rec.Settings) && o.readOnly == rec.ReadOnly &&
		(o.password == rec.Password || rec.NextPassword != "" && o.password == rec.NextPassword)
}

func (rs *Repositories) opening(rec backup.RepositoryRecord, s storage) opening {
	return opening{
		id: rec.ID, storage: s, password: rec.Password, next: rec.NextPassword, dir: rs.cfg.Dir,
		cache: rs.cfg.CacheBytes, now: rs.cfg.Now, log: rs.cfg.Log,
	}
}

// openRecord opens the repository of a record; once more where its lock had to
// be set, which kopia heeds from the opening on.
func (rs *Repositories) openRecord(ctx context.Context, rec backup.RepositoryRecord) (*opened, error) {
	o, err := rs.openOnce(ctx, rec)
	if err != nil {
		return nil, err
	}
	changed, err := keepLock(ctx, o, rec)
	if err == nil && !changed {
		return o, nil
	}
	if err = errors.Join(err, o.repo.Close(context.WithoutCancel(ctx))); err != nil {
		return nil, err
	}
	return rs.openOnce(ctx, rec)
}

func (rs *Repositories) openOnce(ctx context.Context, rec backup.RepositoryRecord) (*opened, error) {
	s, err := rs.openStorage(ctx, rec, false)
	if err != nil {
		return nil, err
	}
	o, err := rs.openOn(ctx, rec, s)
	if err != nil {
		if cerr := s.Close(context.WithoutCancel(ctx)); cerr != nil {
			rs.cfg.Log.WarnContext(ctx, "closing a storage failed", "location", s.location(), "error", cerr)
		}
		return nil, err
	}
	return o, nil
}

func (rs *Repositories) openOn(ctx context.Context, rec backup.RepositoryRecord, s storage) (*opened, error) {
	if _, err := s.GetMetadata(ctx, formatBlob); err != nil {
		return nil, unreachable(s.location(), err).Because(err)
	}
	o := &opened{store: s, whole: &wholeReads{storage: s}, seen: presence{paged: listsInPages(s)}, kind: rec.Kind, settings: maps.Clone(rec.Settings), readOnly: rec.ReadOnly, settleTime: rs.settleTime}
	if err := rs.claim(ctx, o); err != nil {
		return nil, explain(ctx, s, "open repository", err)
	}
	r, _, used, err := rs.opening(rec, o.whole).openAny(ctx)
	if err != nil {
		return nil, explainRead(ctx, s, "open repository", err)
	}
	o.repo, o.uniqueID, o.password = r, uniqueID(r), used
	if rec.UniqueID != "" && rec.UniqueID != o.uniqueID {
		if err := r.Close(ctx); err != nil {
			rs.cfg.Log.WarnContext(ctx, "closing a wrong repository failed", "path", s.location(), "error", err)
		}
		return nil, strange(rec, s)
	}
	return o, nil
}

func strange(rec backup.RepositoryRecord, s storage) error {
	return backup.Errorf(backup.RepositoryUnreachable, "",
		"Another repository than %s lies at %s; is the right disk mounted, the right place named?", rec.Name, s.location())
}

// claim looks whose the repository is, and notes that it is in use.
func (rs *Repositories) claim(ctx context.Context, o *opened) error {
	m, err := readMark(ctx, o.store)
	if err != nil {
		return err
	}
	if o.owner = m.foreign(rs.cfg.Installation); o.owner != "" {
		o.store.freeze()
		return nil
	}
	if m.InUse || o.readOnly {
		return nil
	}
	m.InUse = true
	if err := writeMark(ctx, o.store, *m); err != nil && !isFull(err) { // a full disk can be read
		return err
	}
	return nil
}
