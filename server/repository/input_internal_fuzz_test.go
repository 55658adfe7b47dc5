package repository

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// FuzzDocuments: vm.json and the folder of an image are read or refused, and
// what is read of vm.json is written as it was.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`{"format_version":1,"image":{"id":"01JDZK3Q8X4T9V2M6B7N5C1R0E","disks":[{"key":2000}]},"layout":{"disks":[{"key":2000,"file":"disk-2000.img","capacity":1024,"block_size":262144}]}}`))
	f.Add([]byte(`{"format_version":2}`))
	f.Add([]byte(`{"layout":{"disks":[{"key":1,"capacity":9223372036854775807,"block_size":262144},{"key":1}]}}`))
	f.Add([]byte(`{"entries":[null,{"name":"vm.json","obj":"Ix00"},{"name":"../../etc/passwd","obj":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if files, err := parseFolder(b); err == nil && len(files) > len(b) {
			t.Errorf("%d files of %d bytes", len(files), len(b))
		}
		d, err := parseDocument(b)
		if err != nil {
			return
		}
		for _, l := range d.Layout.Disks {
			if l.blocks() <= 0 || l.blocks() > maxCapacity/blockSmall || l.length(l.blocks()-1) <= 0 {
				t.Errorf("disk %+v has %d blocks", l, l.blocks())
			}
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := parseDocument(text)
		if err != nil || again.Image.ID != d.Image.ID || !reflect.DeepEqual(again.Layout, d.Layout) {
			t.Errorf("%s is read as %+v, %v", text, again, err)
		}
		_ = recipe(folderPlace("/srv/kura"), d.Manifest)
		_ = tagsOf(d.Manifest, "parent")
	})
}

// listText is the text of a list of blocks, as kopia would give it.
type listText struct{ *bytes.Reader }

func (listText) Close() error    { return nil }
func (l listText) Length() int64 { return l.Size() }

// FuzzBlockLists: a list of blocks is refused or covers its disk once, without a
// gap, and takes no more memory than its text is long.
func FuzzBlockLists(f *testing.F) {
	const zero, data = "0123456789abcdef", "fedcba9876543210"
	for _, text := range []string{
		`{"s":0,"l":262144,"o":"` + data + `"},{"s":262144,"l":262144,"o":"` + zero + `"},{"s":524288,"l":512,"o":"` + data + `"}`,
		`{"s":0,"l":524800,"o":"` + zero + `"}`, `{"s":9999999999999999999,"l":1,"o":""}`, `{"s":0,"l":0,"o":"` + data + `"}`, ``,
	} {
		f.Add([]byte(entriesHead+text+entriesTail), int64(524800), int64(1))
	}
	f.Add([]byte(entriesHead+`{"s":0,"l":1125899906842624,"o":"`+zero+`"}`+entriesTail), int64(maxCapacity), int64(maxCapacity-1))
	id, err := object.ParseID(zero)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte, capacity, at int64) {
		l := diskLayout{Key: 1, Capacity: capacity, BlockSize: blockSmall, Zeroes: []object.ID{id}}
		if (layout{Disks: []diskLayout{l}}).check() != nil {
			return
		}
		m := &blockMap{layout: l, list: listText{bytes.NewReader(text)}}
		if err := m.scan(t.Context()); err == nil {
			if len(m.used) > len(text) {
				t.Errorf("a list of %d bytes takes %d words", len(text), len(m.used))
			}
			d := newDiskReader(t.Context(), &repository{opened: &opened{kind: KindFilesystem}, cfg: Config{Workers: 1}}, m)
			start, n := d.Next(at)
			if at >= 0 && at < capacity && start < at || start+n > capacity || start < 0 || n < 0 {
				t.Errorf("after %d of %d comes %d at %d", at, capacity, n, start)
			}
			if n > 0 {
				if _, err := m.content(start / l.BlockSize); err != nil && !strings.Contains(err.Error(), "block") && !strings.Contains(err.Error(), "ID") && !strings.Contains(err.Error(), "malformed") {
					t.Errorf("the used block at %d has no name: %v", start, err)
				}
			}
			d.cancel()
		}
		split(t, text, l, zero)
	})
}

// split takes the text for a chunk of a list, the first one and a later one.
func split(t *testing.T, text []byte, l diskLayout, zero string) {
	for n := range 2 {
		head, err := headOf(text, n)
		if err != nil {
			continue
		}
		b := &blockList{layout: l, zero: map[string]bool{zero: true}}
		c := &chunkEntries{n: n, head: text[:head], text: text[head:], own: len(text) - head}
		if b.split(c) != nil {
			continue
		}
		for i, s := range c.spans {
			if s.start < 0 || s.length <= 0 || s.end() > l.Capacity || i > 0 && s.start != c.spans[i-1].end() || s.from >= s.to || s.to > len(c.text) {
				t.Errorf("chunk %d of %q has the piece %+v", n, text, s)
			}
		}
	}
}

// oneContent is an index with one content.
type oneContent struct {
	content.Reader
	bytes []byte
}

func (o oneContent) GetContent(context.Context, content.ID) ([]byte, error) { return o.bytes, nil }

// FuzzManifests: contents that should hold manifests are read or refused, and
// so is each manifest in them.
func FuzzManifests(f *testing.F) {
	f.Add([]byte(`{"entries":[{"id":"a","labels":{"type":"snapshot","tag:kura-kind":"image","tag:kura-image":"i"},"modified":"2026-12-01T00:00:00Z","data":{"rootEntry":{"obj":"k00"}}}]}`), true)
	f.Add([]byte(`{"entries":[{"id":"a","labels":null,"data":null},null,{"deleted":true}]}`), true)
	f.Add([]byte("\x1f\x8b"), false)
	f.Fuzz(func(t *testing.T, b []byte, pack bool) {
		if pack {
			var z bytes.Buffer
			w := gzip.NewWriter(&z)
			_, err := w.Write(b)
			if err != nil || w.Close() != nil {
				t.Fatal(err)
			}
			b = z.Bytes()
		}
		read, err := readManifests(t.Context(), oneContent{bytes: b}, []content.ID{content.EmptyID})
		if err != nil {
			return
		}
		c := catalogue{}
		c.merge(nil)
		for _, all := range read {
			for _, s := range all {
				if !s.isSnapshot {
					continue
				}
				if m, err := s.parse(); err == nil {
					_ = m.RootObjectID()
				}
				_, _ = s.root() // it may be refused
			}
		}
	})
}

// FuzzSettings: settings of a storage are refused for one of them, or can be
// written down: each on lines of its own, and as one word of a shell.
func FuzzSettings(f *testing.F) {
	for _, kind := range []string{KindFilesystem, KindS3, KindSFTP, KindWebDAV} {
		f.Add(kind, "path", "/srv/kura", "endpoint", "s3.example.com", "bucket", "kura")
	}
	f.Add(KindFilesystem, "path", "/srv/a'b; $(reboot)\npassword: x", "", "", "", "")
	f.Add(KindS3, "prefix", "a\u2028/", "lock_mode", "governance", "lock_days", "99999999999999999999")
	f.Add(KindSFTP, "host", "-oProxyCommand=x", "port", "0x16", "known_hosts", "\n\n@revoked")
	f.Add(KindWebDAV, "url", "https://[::1", "ca_certificate", "-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----", "http_password", "env:PATH")
	rs := New(Config{Installation: "i", Now: func() time.Time { return time.Unix(1_800_000_000, 0) }})
	whole := map[string]map[string]string{
		KindFilesystem: {"path": "/srv/kura"}, KindS3: {"endpoint": "h", "bucket": "b", "access_key_id": "a", "secret_access_key": "s"},
		KindSFTP: {"host": "h", "user": "u", "path": "/p", "private_key": "file:/k", "known_hosts": "h ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS"}, KindWebDAV: {"url": "https://h/k"},
	}
	f.Fuzz(func(t *testing.T, kind, k1, v1, k2, v2, k3, v3 string) {
		settings := map[string]string{}
		for k, v := range whole[kind] {
			settings[k] = v
		}
		for k, v := range map[string]string{k1: v1, k2: v2, k3: v3} {
			if k != "" {
				settings[k] = v
			}
		}
		rec := backup.RepositoryRecord{Name: "r", Kind: kind, Settings: settings, Password: "p", Compression: "s2"}
		if err := check(rec); err != nil {
			if e := backup.AsError(err); e == nil || e.Code != backup.Invalid || e.Field != "kind" && !strings.HasPrefix(e.Field, "settings.") {
				t.Errorf("%s %q: %v", kind, settings, err)
			}
			return
		}
		sheet, err := rs.RecoverySheet(rec, "")
		if err != nil {
			return // a reference that leads nowhere
		}
		lines := strings.Split(sheet.Reveal(), "\n")
		passwords := 0
		for _, line := range lines {
			if strings.HasPrefix(line, "password: ") {
				passwords++
			}
		}
		if passwords != 1 || strings.ContainsAny(sheet.Reveal(), "\x00\x1b\v\f") {
			t.Errorf("the sheet of %q is\n%q", settings, sheet.Reveal())
		}
		at, _, err := rs.whereabouts(rec)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range at.connect {
			if strings.ContainsAny(strings.ReplaceAll(unquoted(t, word), "-", ""), "\x00\r\n") {
				t.Errorf("a word of the command is %q", word)
			}
		}
	})
}

// unquoted is what a shell makes of a word.
func unquoted(t *testing.T, word string) string {
	if !strings.HasPrefix(word, "'") {
		if strings.ContainsAny(word, " '\"\\$`;&|<>(){}*?#~!\t\n") {
			t.Errorf("a shell takes %q for more than a word", word)
		}
		return word
	}
	text, ok := strings.CutSuffix(word[1:], "'")
	if parts := strings.Split(text, `'\''`); !ok || strings.Contains(strings.Join(parts, ""), "'") {
		t.Errorf("%q is not one quoted word", word)
	}
	return strings.ReplaceAll(text, `'\''`, "'")
}

// FuzzMarks: what lies beside kopia's files and says whose the repository is
// may be anything.
func FuzzMarks(f *testing.F) {
	f.Add([]byte(`{"installation":"i","before":[null,{"installation":"j"}]}`))
	f.Add([]byte(`{"Image":"i","Since":"2026-12-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := oneBlob{bytes: b}
		if m, err := readMark(t.Context(), s); err == nil && m != nil {
			if owner := m.foreign("i"); (owner == "") != (m.Installation == "i") && m.Installation != "" {
				t.Errorf("%s is owned by %q", b, owner)
			}
		}
		r := &repository{opened: &opened{store: s}}
		if p, err := r.readPin(t.Context(), "pin"); err == nil && p.id != "pin" {
			t.Errorf("%s is the pin %+v", b, p)
		}
	})
}

// oneBlob is a storage with one blob.
type oneBlob struct {
	storage
	bytes []byte
}

func (o oneBlob) GetBlob(_ context.Context, _ blob.ID, _, _ int64, w blob.OutputBuffer) error {
	_, err := io.Copy(w, bytes.NewReader(o.bytes))
	return err
}
