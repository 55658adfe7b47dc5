//go:build failpoints

package repository_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// ill is a way in which a storage behaves badly. What a storage tells of leaves
// everything as it should be; what it keeps to itself is found at the latest
// when it is read.
type ill struct {
	name   string
	fault  repository.Fault
	hidden bool
}

func ills() []ill {
	return []ill{
		{"an error, once", repository.Fault{Kind: repository.FaultError, Times: 1}, false},
		{"errors from then on", repository.Fault{Kind: repository.FaultError}, false},
		{"a delay of each call", repository.Fault{Kind: repository.FaultDelay, Wait: 2 * time.Millisecond}, false},
		{"an error, and half of the blob is there", repository.Fault{Kind: repository.FaultTear, Times: 1}, false},
		{"the disk is full", repository.Fault{Kind: repository.FaultFull}, false},
		{"a list without some items", repository.Fault{Kind: repository.FaultOmit, Times: 1}, false},
		{"other bytes, once", repository.Fault{Kind: repository.FaultOther, Times: 1}, false},
		{"half of a blob written, without a word", repository.Fault{Kind: repository.FaultHalf, Times: 1}, true},
		{"a blob lost as it was written, without a word", repository.Fault{Kind: repository.FaultLose, Times: 1}, true},
		{"a bit flipped as it was written", repository.Fault{Kind: repository.FaultFlip, Times: 1}, true},
	}
}

// patients are what a storage behaves badly in.
var patients = []struct {
	name string
	do   func(p *patient) error
}{
	{"open", (*patient).open},
	{"write", (*patient).write},
	{"read", (*patient).read},
	{"verify", (*patient).verify},
	{"delete", (*patient).delete},
	{"collect", (*patient).collect},
	{"copy", (*patient).copy},
}

// ward is a repository of which each patient gets a copy.
type ward struct {
	*site
	first, second, third *disk
	ref1, ref2, doomed   string
}

func newWard(t *testing.T) *ward {
	w := &ward{site: newSite(t), first: solid(rng(1), 1)}
	w.second = grown(w.first, 1, 2)
	w.third = grown(w.second, 2, 3)
	w.ref1, _ = take(t, w, draft("image-1"), w.first)
	w.doomed, _ = take(t, w, later("image-0", 1, ""), solid(rng(9), 1))
	w.ref2, _ = take(t, w, later("image-2", 2, w.ref1), w.second)
	must(0, w.Delete(t.Context(), w.doomed))(t)
	must(repository.CollectAtOnce(t.Context(), w.Repository, backup.Collection{}))(t) // it marks
	return w
}

// patient is a copy of the repository with a storage that behaves badly.
type patient struct {
	*ward
	t      testing.TB
	ctx    context.Context
	dir    string
	rec    backup.RepositoryRecord
	rs     *repository.Repositories
	r      backup.Repository
	faults *repository.Faults
	made   string // ref of the image that was written and found good
	gone   bool   // the first image was deleted, or was to be
}

func (w *ward) admit(t testing.TB, dir string) *patient {
	p := &patient{ward: w, t: t, dir: dir, rec: w.rec, rs: repository.New(repository.Config{Installation: "installation-1", Dir: dir + ".config"})}
	p.rs.Hasty()
	p.rs.Hurry(10*time.Millisecond, 50*time.Millisecond)
	p.rec.Settings = map[string]string{"path": dir}
	must(0, os.CopyFS(dir, os.DirFS(w.dir)))(t)
	p.faults = repository.FaultsAt(dir)
	return p
}

func (p *patient) open() error {
	rs := repository.New(repository.Config{Installation: "installation-1", Dir: p.dir + ".open"})
	rs.Hasty()
	defer func() { _ = rs.Close(p.t.Context()) }()
	r, err := rs.Repository(p.ctx, p.rec)
	if err != nil {
		return err
	}
	_, err = r.Images(p.ctx)
	return err
}

// write takes an image as a backup does, which looks at it afterwards.
func (p *patient) write() error {
	return p.fill(p.r, later("image-3", 3, p.ref2), p.third, func(w backup.DiskWriter) error { return p.third.send(w, 256*kib) })
}

func (p *patient) fill(r backup.Repository, d backup.ImageDraft, k *disk, send func(backup.DiskWriter) error) error {
	w, err := r.Begin(p.ctx, d)
	if err != nil {
		return err
	}
	defer w.Abort(p.ctx)
	draft := k.DiskDraft
	if draft.FromBase && !w.HasBase(k.Key, k.Capacity) {
		draft.FromBase, k = false, whole(k)
		send = func(w backup.DiskWriter) error { return k.send(w, 256*kib) }
	}
	dw, err := w.Disk(p.ctx, draft)
	if err == nil {
		err = send(dw)
	}
	if err == nil {
		_, err = dw.Close(p.ctx)
	}
	if err != nil {
		return err
	}
	i, err := w.Commit(p.ctx, backup.Manifest{Image: backup.Image{PointInTime: d.PointInTime, Status: backup.ImageGood}})
	if err != nil {
		return err
	}
	v, err := r.Verify(p.ctx, i.Ref, backup.Verification{})
	if err == nil && v.Message != "" {
		err = backup.Errorf(backup.RepositoryDamaged, "", "%s", v.Message)
	}
	if err == nil {
		p.made = i.Ref
	}
	return err
}

func (p *patient) read() error {
	b, err := bytesOf(p.ctx, p.r, p.ref2, p.second)
	if err == nil && !slices.Equal(b, p.second.bytes) {
		p.t.Errorf("other bytes were read, and nobody said so")
	}
	return err
}

func (p *patient) verify() error {
	v, err := p.r.Verify(p.ctx, p.ref2, backup.Verification{Read: true})
	if err == nil && v.Message != "" {
		err = backup.Errorf(backup.RepositoryDamaged, "", "%s", v.Message)
	}
	return err
}

func (p *patient) delete() error {
	p.gone = true
	return p.r.Delete(p.ctx, p.ref1)
}

func (p *patient) collect() error {
	_, err := repository.CollectAtOnce(p.ctx, p.r, backup.Collection{})
	return err
}

// copy copies an image as an image of its own, beside the first.
func (p *patient) copy() error {
	d := later("image-3", 3, "")
	d.InstanceUUID = "copied"
	k := whole(p.second)
	i, err := p.r.Image(p.ctx, p.ref2)
	if err != nil {
		return err
	}
	from, err := i.Disk(p.ctx, k.Key)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	return p.fill(p.r, d, k, func(w backup.DiskWriter) error {
		b := make([]byte, k.Capacity)
		if _, err := from.ReadAt(b, 0); err != nil {
			return err
		}
		_, err := w.WriteAt(b, 0)
		return err
	})
}

// bytesOf reads a disk of an image.
func bytesOf(ctx context.Context, r backup.Repository, ref string, k *disk) ([]byte, error) {
	i, err := r.Image(ctx, ref)
	if err != nil {
		return nil, err
	}
	d, err := i.Disk(ctx, k.Key)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	b := make([]byte, k.Capacity)
	_, err = d.ReadAt(b, 0)
	return b, err
}

// after looks at the repository once the storage behaves well again. It returns
// whether all is as it should be; "" = it is.
func (p *patient) after() string {
	ctx, cancel := context.WithTimeout(p.t.Context(), 5*time.Second)
	defer cancel()
	rs := repository.New(repository.Config{Installation: "installation-1", Dir: p.dir + ".after"})
	rs.Hasty()
	defer func() { _ = rs.Close(p.t.Context()) }()
	r, err := rs.Repository(ctx, p.rec)
	if err != nil {
		return fmt.Sprint("it does not open: ", backup.CodeOf(err))
	}
	all, err := r.Images(ctx)
	if err != nil {
		return fmt.Sprint("its images cannot be listed: ", backup.CodeOf(err))
	}
	want := map[string]*disk{"image-1": p.first, "image-2": p.second, "image-3": p.third}
	listed, hurt := map[string]bool{}, ""
	for _, m := range all {
		k := want[m.Image.ID]
		if m.VCenterUUID != "" && m.Image.VMInstanceUUID == "copied" {
			k = p.second
		}
		listed[m.Image.Ref] = true
		b, err := bytesOf(ctx, r, m.Image.Ref, k)
		v, verr := r.Verify(ctx, m.Image.Ref, backup.Verification{Read: true})
		switch {
		case err == nil && !slices.Equal(b, k.bytes):
			p.t.Errorf("%s restores with other bytes", m.Image.ID)
		case verr != nil:
			hurt = fmt.Sprintf("%s cannot be verified: %v", m.Image.ID, verr)
		case (err == nil) != !slices.Contains(v.Damaged, k.Key):
			p.t.Errorf("%s reads with %v, and its verification says %+v", m.Image.ID, err, v)
		case v.Message != "":
			hurt = m.Image.ID + " is damaged, and its verification says so"
		}
	}
	must := []string{p.made, p.ref2}
	if !p.gone {
		must = append(must, p.ref1)
	}
	for _, ref := range must {
		if ref != "" && !listed[ref] {
			hurt = "an image is not there"
		}
	}
	return hurt
}

// outcome of a patient.
type outcome struct {
	reached bool
	err     error
	after   string
}

// suffer lets the patient do something, of whose calls the n-th meets the ill.
func (p *patient) suffer(i ill, n int, do func(*patient) error) (o outcome) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	p.ctx = ctx
	defer func() { _ = p.rs.Close(p.t.Context()) }()
	p.r = must(p.rs.Repository(ctx, p.rec))(p.t)
	f := i.fault
	f.After, f.Room = n, int64(n)*7000
	if f.Kind == repository.FaultFull {
		f.After = 0
	}
	if f.Kind == repository.FaultError && f.Times == 0 { // kopia tries some things for as long as it may
		f.Then = sync.OnceFunc(func() { time.AfterFunc(200*time.Millisecond, cancel) })
	}
	p.faults.Arm(f)
	o.err = do(p)
	met, _ := p.faults.Clear()
	o.reached = met > 0
	o.after = p.after()
	return o
}

// TestWhatAStorageDoesWrong lets a storage behave badly in each way, in all that
// is done with a repository, at each of its calls (in everyday runs at some). What
// comes of it stands in docs/dev/reliability.md.
func TestWhatAStorageDoesWrong(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	stride := 60
	if os.Getenv("KURA_TORTURE") == "full" {
		stride = 1
	}
	found := &chart{cells: map[string]map[string]int{}}
	t.Run("each", func(t *testing.T) {
		for _, i := range ills() {
			for _, what := range patients {
				t.Run(i.name+" in "+what.name, func(t *testing.T) {
					t.Parallel()
					begin := 0
					if stride > 1 {
						begin = rand.IntN(30) // not all operations have so many calls
					}
					for n := begin; n < 200; n += stride {
						p := w.admit(t, filepath.Join(t.TempDir(), "repository"))
						o := p.suffer(i, n, what.do)
						if !o.reached {
							break
						}
						if !i.hidden && o.after != "" {
							t.Errorf("call %d (%v): %s", n, o.err, o.after)
						}
						found.note(i.name, what.name, o)
						if i.fault.Kind == repository.FaultDelay { // of this call and all after it
							break
						}
					}
				})
			}
		}
	})
	if found.runs < len(patients) {
		t.Errorf("%d runs in all: too few to show anything", found.runs)
	}
	if stride == 1 { // in fewer runs not all comes up, and on a busy machine some calls end by their time
		found.compare(t)
	}
}

// TestAPartOfAnIndexBlobIsRemoved: a storage that keeps half of a blob whose
// writing has failed leaves a repository that everyone can open.
func TestAPartOfAnIndexBlobIsRemoved(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for _, what := range patients {
		p := w.admit(t, filepath.Join(t.TempDir(), "repository"))
		o := p.suffer(ill{name: "half of an index blob", fault: repository.Fault{Kind: repository.FaultTear, Of: "x", Times: 1}}, 0, what.do)
		if o.reached && o.err == nil || o.after != "" {
			t.Errorf("%s: met %t, ended with %v; then %s", what.name, o.reached, o.err, o.after)
		}
		if what.name == "write" && !o.reached {
			t.Error("writing met nothing")
		}
	}
}

// What comes of it, in the words of the page.
const (
	isDone    = "done"
	isRefused = "refused"
	isDamaged = "an image is found damaged"
	isMissing = "an image is missing"
	isShut    = "the repository is shut"
)

// kinds sum an outcome up.
func (o outcome) kinds() []string {
	kinds := []string{isDone}
	if o.err != nil {
		kinds[0] = isRefused
	}
	switch {
	case o.after == "":
	case strings.Contains(o.after, "damaged, and"):
		kinds = append(kinds, isDamaged)
	case strings.Contains(o.after, "not there"):
		kinds = append(kinds, isMissing)
	default:
		kinds = append(kinds, isShut)
	}
	return kinds
}

// chart is what came of all that was tried.
type chart struct {
	mu    sync.Mutex // guards the rest
	cells map[string]map[string]int
	runs  int
}

func (c *chart) note(ill, doing string, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs++
	name := ill + " in " + doing
	if c.cells[name] == nil {
		c.cells[name] = map[string]int{}
	}
	for _, k := range o.kinds() {
		c.cells[name][k]++
	}
}

func (c *chart) cell(ill, doing string) string {
	seen := c.cells[ill+" in "+doing]
	var words []string
	for _, k := range []string{isDone, isRefused, isDamaged, isMissing, isShut} {
		if seen[k] > 0 {
			words = append(words, k)
		}
	}
	if len(words) == 0 {
		return "-"
	}
	text := strings.Join(words, "; ")
	return strings.Replace(text, isDone+"; "+isRefused, isDone+" or "+isRefused, 1)
}

const (
	page      = "../../docs/dev/reliability.md"
	pageBegin = "<!-- generated: KURA_TORTURE=full KURA_UPDATE_DOCS=1 go test -tags failpoints ./server/repository -run TestWhatAStorageDoesWrong -->\n"
	pageEnd   = "<!-- end -->\n"
)

// compare holds what was found against the page, or writes it there.
func (c *chart) compare(t *testing.T) {
	b := string(must(os.ReadFile(page))(t))
	before, rest, begins := strings.Cut(b, pageBegin)
	table, after, ends := strings.Cut(rest, pageEnd)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", page)
	}
	if os.Getenv("KURA_UPDATE_DOCS") != "" {
		must(0, os.WriteFile(page, []byte(before+pageBegin+c.table()+pageEnd+after), 0o600))(t)
		return
	}
	told := map[string]string{}
	for line := range strings.Lines(table) {
		if f := strings.Split(strings.Trim(line, "|\n"), "|"); len(f) == len(patients)+1 {
			for n, p := range patients {
				told[strings.TrimSpace(f[0])+" in "+p.name] = f[n+1]
			}
		}
	}
	for name, seen := range c.cells {
		for k := range seen {
			if !strings.Contains(told[name], k) {
				t.Errorf("%s: %s. The page says:%s", name, k, told[name])
			}
		}
	}
}

func (c *chart) table() string {
	var s strings.Builder
	s.WriteString("| fault |")
	for _, p := range patients {
		s.WriteString(" " + p.name + " |")
	}
	s.WriteString("\n|---" + strings.Repeat("|---", len(patients)) + "|\n")
	for _, i := range ills() {
		s.WriteString("| " + i.name + " |")
		for _, p := range patients {
			s.WriteString(" " + c.cell(i.name, p.name) + " |")
		}
		s.WriteString("\n")
	}
	fmt.Fprintf(&s, "\n%d runs. No image was ever restored with other bytes than it was made of.\n", c.runs)
	return s.String()
}
