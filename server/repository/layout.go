package repository

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/object"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// The names in an image's folder. Disks are disk-<key>.img.
const (
	manifestName = "vm.json"
	recipeName   = "restore.txt"
)

const diskPattern = "disk-%d.img"

func diskName(key int32) string { return fmt.Sprintf(diskPattern, key) }

const (
	// Small blocks store little of what has not changed and cost no more time
	// (docs/dev/defaults.md); large ones keep the lists and the index of huge
	// disks short.
	blockSmall  = 256 << 10
	blockMedium = 1 << 20
	blockLarge  = 4 << 20
	// mediumFrom and largeFrom are the capacities above which blocks are larger.
	mediumFrom = 1 << 40
	largeFrom  = 8 << 40
	// zeroRun is the longest entry for a range of zeroes: the greatest piece
	// that kopia stores without nesting.
	zeroRun = 8 << 20
	// sector is what capacities are multiples of.
	sector = 512
)

// splitters are kopia's fixed splitters that never split a block of their size.
var splitters = map[int64]string{blockSmall: "FIXED-256K", blockMedium: "FIXED-1M", blockLarge: "FIXED-4M", zeroRun: "FIXED-8M"}

func splitterOf(blockSize int64) string { return splitters[blockSize] }

// blockSizeFor chooses the block size of a disk. Along a chain of images it
// stays what it was, or no block would be found again.
func blockSizeFor(capacity int64, base *diskLayout) int64 {
	switch {
	case base != nil && splitterOf(base.BlockSize) != "":
		return base.BlockSize
	case capacity > largeFrom:
		return blockLarge
	case capacity > mediumFrom:
		return blockMedium
	default:
		return blockSmall
	}
}

// document is vm.json: the image's manifest and how its disks are laid out.
type document struct {
	backup.Manifest
	Layout layout `json:"layout"`
}

// layout is what a reader must know of the disks beyond their bytes.
type layout struct {
	Disks []diskLayout `json:"disks"`
}

// diskLayout is the layout of one disk.
type diskLayout struct {
	Key       int32       `json:"key"`
	File      string      `json:"file"`
	Capacity  int64       `json:"capacity"`
	BlockSize int64       `json:"block_size"`
	Zeroes    []object.ID `json:"zeroes"` // objects that hold nothing but zeroes
}

func (l layout) disk(key int32) *diskLayout {
	for i := range l.Disks {
		if l.Disks[i].Key == key {
			return &l.Disks[i]
		}
	}
	return nil
}

// parseDocument reads vm.json and refuses formats of a later kura.
func parseDocument(b []byte) (document, error) {
	var v struct {
		FormatVersion int `json:"format_version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return document{}, fmt.Errorf("parse %s: %w", manifestName, err)
	}
	if v.FormatVersion > backup.ManifestVersion {
		return document{}, backup.Errorf(backup.Conflict, "",
			"The image was written by a later kura (format %d, this one reads up to %d). Upgrade this kura to use it.",
			v.FormatVersion, backup.ManifestVersion)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return document{}, fmt.Errorf("parse %s: %w", manifestName, err)
	}
	if err := d.Layout.check(); err != nil {
		return document{}, fmt.Errorf("parse %s: %w", manifestName, err)
	}
	return d, nil
}

// maxCapacity is more than any disk has: vSphere ends at 62 TiB.
const maxCapacity = 1 << 50

// check refuses what no writer has laid out.
func (l layout) check() error {
	keys := map[int32]bool{}
	for _, d := range l.Disks {
		switch {
		case keys[d.Key]:
			return fmt.Errorf("disk %d is there twice", d.Key)
		case d.Capacity <= 0 || d.Capacity > maxCapacity:
			return fmt.Errorf("disk %d has a capacity of %d bytes", d.Key, d.Capacity)
		case splitterOf(d.BlockSize) == "":
			return fmt.Errorf("disk %d has blocks of %d bytes", d.Key, d.BlockSize)
		}
		keys[d.Key] = true
	}
	return nil
}

// file is one of an image's folder.
type file struct {
	Name     string    `json:"name"`
	ObjectID object.ID `json:"obj"`
}

// parseFolder reads the list of an image's files. It takes no more of it than
// is needed, and nothing that is null for an entry.
func parseFolder(b []byte) ([]file, error) {
	var dir struct {
		Entries []file `json:"entries"`
	}
	if err := json.Unmarshal(b, &dir); err != nil {
		return nil, fmt.Errorf("parse folder: %w", err)
	}
	return dir.Entries, nil
}

// The tags of an image's snapshot. The stock program shows them without "tag:".
const (
	tagImage        = "tag:kura-image"
	tagKind         = "tag:kura-kind"
	tagFormat       = "tag:kura-format"
	tagInstallation = "tag:kura-installation"
	tagParent       = "tag:kura-parent"
	tagGroup        = "tag:kura-group"
	tagSchedule     = "tag:kura-schedule"
	tagExpires      = "tag:kura-expires"

	kindImage = "image"
	// pin keeps the stock program's expiry away from our snapshots.
	pin = "kura"
	// sourceUser is the user in the name of an image's source.
	sourceUser = "kura"
)

func tagsOf(m backup.Manifest, parent string) map[string]string {
	t := map[string]string{
		tagImage:        m.Image.ID,
		tagKind:         kindImage,
		tagFormat:       fmt.Sprint(m.FormatVersion),
		tagInstallation: m.Installation,
	}
	set := func(key, value string) {
		if value != "" {
			t[key] = value
		}
	}
	set(tagParent, parent)
	set(tagGroup, m.Image.GroupID)
	set(tagSchedule, m.Image.ScheduleID)
	if e := m.Image.ExpiresAt; !e.IsZero() {
		set(tagExpires, e.UTC().Format(time.RFC3339))
	}
	return t
}

// recipe tells how to get the disks back without kura.
func recipe(at place, m backup.Manifest) string {
	t := m.Image.PointInTime.UTC().Truncate(time.Second)
	source := fmt.Sprintf("%s@%s:/%s", sourceUser, m.VCenterUUID, m.Image.VMInstanceUUID)
	return "kopia repository connect " + strings.Join(at.connect, " ") + "\n" +
		"kopia snapshot restore " + quote(source) + " " + quote("./"+m.Image.ID) +
		" --snapshot-time " + quote(t.Format("2006-01-02T15:04:05Z")) + "\n"
}

// quote makes one word of a shell of s.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
