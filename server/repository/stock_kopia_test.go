package repository_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
)

// stock is the stock kopia program as a stranger has it: it knows a
// repository's password and the credentials of its storage, and nothing of kura.
type stock struct {
	t   testing.TB
	dir string // where it is called
	env []string
}

func newStock(t testing.TB, s *site) *stock {
	t.Helper()
	k := &stock{t: t, dir: t.TempDir()}
	write := func(name, text string) string {
		path := filepath.Join(k.dir, name)
		must(0, os.WriteFile(path, []byte(text), 0o600))(t)
		return path
	}
	program := must(s3test.Program("kopia"))(t)
	k.env = append(os.Environ(),
		"PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"), "HOME="+k.dir, "XDG_CACHE_HOME="+filepath.Join(k.dir, "cache"),
		"KOPIA_CONFIG_PATH="+filepath.Join(k.dir, "kopia.config"), "KOPIA_LOG_DIR="+filepath.Join(k.dir, "log"),
		"KOPIA_PASSWORD="+s.rec.Password.Reveal(), "KOPIA_CHECK_FOR_UPDATES=false")
	switch v := s.rec.Settings; s.rec.Kind {
	case repository.KindS3:
		k.env = append(k.env, "AWS_ACCESS_KEY_ID="+v["access_key_id"], "AWS_SECRET_ACCESS_KEY="+v["secret_access_key"],
			"SSL_CERT_FILE="+write("ca.pem", v["ca_certificate"]))
	case repository.KindWebDAV:
		k.env = append(k.env, "KOPIA_WEBDAV_PASSWORD="+v["http_password"], "SSL_CERT_FILE="+write("ca.pem", v["ca_certificate"]))
	case repository.KindSFTP: // the recipe names the files
		write("KEY", v["private_key"])
		write("KNOWN_HOSTS", v["known_hosts"])
	}
	return k
}

// run gives lines to a shell, ends with the first that fails, and returns what they print.
func (k *stock) run(lines string) string {
	k.t.Helper()
	out, err := k.try(lines)
	if err != nil {
		k.t.Fatalf("%s%v\n%s", lines, err, out)
	}
	return out
}

// try is run for lines of which one may fail.
func (k *stock) try(lines string) (string, error) {
	k.t.Helper()
	c := exec.CommandContext(k.t.Context(), "/bin/sh", "-e")
	c.Dir, c.Env, c.Stdin = k.dir, k.env, strings.NewReader(lines)
	var out strings.Builder
	var said strings.Builder
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		return out.String() + said.String(), err
	}
	return out.String(), nil
}

// kept is an image and what its disks hold.
type kept struct {
	id, ref string
	disks   []*disk
}

// follows writes what the recipe inside an image says to a shell, and compares
// the disks that are in the folder then.
func (k *stock) follows(r backup.Repository, i kept) {
	k.t.Helper()
	image := must(r.Image(k.t.Context(), i.ref))(k.t)
	recipe := string(must(image.File(k.t.Context(), "restore.txt"))(k.t))
	k.run(recipe)
	folder := filepath.Join(k.dir, i.id)
	for _, d := range i.disks {
		got := must(os.ReadFile(filepath.Join(folder, fmt.Sprintf("disk-%d.img", d.Key))))(k.t)
		sameBytes(k.t, fmt.Sprintf("%s: disk %d by the stock program", i.id, d.Key), got, d.bytes)
	}
	var manifest backup.Manifest
	must(0, json.Unmarshal(must(os.ReadFile(filepath.Join(folder, "vm.json")))(k.t), &manifest))(k.t)
	if manifest.Image.ID != i.id {
		k.t.Errorf("vm.json is of image %q, want %q", manifest.Image.ID, i.id)
	}
	removeAll(k.t, folder)
}

// agrees lets the stock program list and read everything there is.
func (k *stock) agrees(images []kept) {
	k.t.Helper()
	var listed []struct {
		Tags map[string]string `json:"tags"`
	}
	must(0, json.Unmarshal([]byte(k.run("kopia snapshot list --all --json\n")), &listed))(k.t)
	var got, want []string
	for _, l := range listed {
		got = append(got, l.Tags["tag:kura-image"])
	}
	for _, i := range images {
		want = append(want, i.id)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		k.t.Errorf("the stock program lists %v, want %v", got, want)
	}
	k.run("kopia snapshot verify --verify-files-percent=100\nkopia content verify --full\nkopia maintenance info\n")
}

// seed:N6 seed:A63
func TestTheStockProgramRestoresWhatKuraWrote(t *testing.T) {
	t.Parallel()
	onEachStorage(t, func(t *testing.T, p peer) {
		s := siteAt(t, p)
		images := chain(t, s)
		k := newStock(t, s)
		for _, i := range images {
			k.follows(s, i)
		}
		before := blobs(t, s)
		k.agrees(images)
		if lost := missing(before, blobs(t, s)); len(lost) > 0 {
			t.Errorf("reading by the stock program has removed %v", lost)
		}
		must(0, s.Delete(t.Context(), images[0].ref))(t)
		var c backup.Collected
		for range 3 { // the first marks, the second gives up, the third removes
			now := must(repository.CollectAtOnce(t.Context(), s.Repository, backup.Collection{}))(t)
			c.Marked, c.Freed = c.Marked+now.Marked, c.Freed+now.Freed
		}
		if c.Marked == 0 || c.Freed == 0 {
			t.Errorf("the collections marked %d and freed %d bytes, want some", c.Marked, c.Freed)
		}
		images = images[1:]
		after := newStock(t, s)
		for _, i := range images {
			after.follows(s, i)
		}
		after.agrees(images)
		k.agrees(images) // what it keeps of before does no harm
		next := images[len(images)-1].disks[0].clone()
		next.FromBase, next.ranges = false, [][2]int64{{0, next.Capacity}}
		last := draft("image-9")
		last.PointInTime = last.PointInTime.AddDate(0, 1, 0)
		ref, _ := take(t, s, last, next)
		compare(t, s.again(), ref, next)
	})
}

// chain takes a full image of two disks, and two that build upon it: of the
// second everything is read, of the third what has changed.
func chain(t testing.TB, s *site) (images []kept) {
	t.Helper()
	small := sparse(rng(7), 2001, mib+1536)
	d := sparse(rng(1), 2000, 6*mib+512)
	base := ""
	for n := range 3 {
		if n > 0 {
			d = d.clone()
			fill(rng(uint64(n)), d.bytes[n*2*mib:n*2*mib+64*kib])
			d.ranges = [][2]int64{{0, d.Capacity}}
		}
		if n == 2 {
			d.FromBase, d.ranges = true, [][2]int64{{4 * mib, 4*mib + 64*kib}}
			small = &disk{DiskDraft: small.DiskDraft, bytes: small.bytes}
			small.FromBase = true
		}
		next := draft(fmt.Sprint("image-", n+1))
		next.BaseRef, next.PointInTime = base, next.PointInTime.Add(time.Duration(n)*time.Hour)
		base, _ = take(t, s, next, d, small)
		images = append(images, kept{next.ImageID, base, []*disk{d, small}})
	}
	return images
}

// blobs names what the storage of a site holds.
func blobs(t testing.TB, s *site) (names []string) {
	t.Helper()
	st := must(repository.OpenStorage(t.Context(), s.rs, s.rec))(t)
	defer st.Close(t.Context())
	must(0, st.ListBlobs(t.Context(), "", func(m blob.Metadata) error {
		names = append(names, string(m.BlobID))
		return nil
	}))(t)
	return names
}

// missing names what is in before and not in after.
func missing(before, after []string) []string {
	return slices.DeleteFunc(slices.Clone(before), func(name string) bool { return slices.Contains(after, name) })
}
