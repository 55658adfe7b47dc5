package server_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// kuraStep is one step of Kura's repository, in a process of its own.
// KURA_PEERS_PROFILE names a file for its CPU profile.
func kuraStep(b *testing.B, step string) {
	dir := os.Getenv("KURA_PEERS_DIR")
	rec := backup.RepositoryRecord{Name: "peer", Kind: repository.KindFilesystem, Compression: os.Getenv("KURA_PEERS_COMPRESSION"), Password: "peer",
		Settings: map[string]string{"path": filepath.Join(dir, "repo")}}
	rec.ID = "peer"
	all := repository.New(repository.Config{Installation: "peer", Dir: filepath.Join(dir, "cache")})
	if path := os.Getenv("KURA_PEERS_PROFILE"); path != "" {
		f, err := os.Create(path + "." + step)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			b.Fatal(err)
		}
		defer pprof.StopCPUProfile()
	}
	err := kuraDo(b.Context(), all, rec, dir, step)
	if err := errors.Join(err, all.Close(b.Context())); err != nil {
		b.Fatal(err)
	}
}

func kuraDo(ctx context.Context, all *repository.Repositories, rec backup.RepositoryRecord, dir, step string) error {
	if step == "create" {
		_, err := all.Create(ctx, rec)
		return err
	}
	r, err := all.Repository(ctx, rec)
	if err != nil {
		return err
	}
	switch step {
	case "backup":
		return kuraBackup(ctx, r, dir, false)
	case "changed":
		return kuraBackup(ctx, r, dir, true)
	case "restore":
		return kuraRestore(ctx, r, dir)
	}
	return fmt.Errorf("no step %q", step)
}

// kuraBackup reads the whole disk, or what has changed of it, as a vSphere
// export does.
func kuraBackup(ctx context.Context, r backup.Repository, dir string, changed bool) error {
	last, err := os.ReadFile(filepath.Join(dir, "last"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Open(filepath.Join(dir, "source", disk))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	extents := []extent{{0, info.Size()}}
	if changed {
		if extents, err = changedExtents(dir); err != nil {
			return err
		}
	}
	now := time.Now()
	w, err := r.Begin(ctx, backup.ImageDraft{ImageID: backup.NewID(now), VCenterUUID: "peer", InstanceUUID: "peer", VMName: "peer", PointInTime: now, BaseRef: string(last)})
	if err != nil {
		return err
	}
	defer w.Abort(ctx)
	d, err := w.Disk(ctx, backup.DiskDraft{Key: 2000, Label: "Hard disk 1", Capacity: info.Size(), UUID: "peer", FromBase: changed})
	if err != nil {
		return err
	}
	if err := pump(ctx, f, d, extents); err != nil {
		return err
	}
	written, err := d.Close(ctx)
	if err != nil {
		return err
	}
	image, err := w.Commit(ctx, backup.Manifest{FormatVersion: backup.ManifestVersion, Image: backup.Image{StartedAt: now, PointInTime: now, Disks: []backup.ImageDisk{written}}})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "last"), []byte(image.Ref), 0o600)
}

// pump reads the extents while those before are written: a backup's bytes come
// from elsewhere, too.
func pump(ctx context.Context, from io.ReaderAt, to io.WriterAt, extents []extent) error {
	type piece struct {
		off int64
		b   []byte
	}
	ready, free := make(chan piece), make(chan []byte, 4)
	for range cap(free) {
		free <- make([]byte, 1<<20)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(ready)
		for _, e := range extents {
			for end := e.Off + e.N; e.Off < end; {
				var b []byte
				select {
				case b = <-free:
				case <-ctx.Done():
					return ctx.Err()
				}
				p := piece{e.Off, b[:min(int64(cap(b)), end-e.Off)]}
				if _, err := from.ReadAt(p.b, p.off); err != nil {
					return err
				}
				select {
				case ready <- p:
				case <-ctx.Done():
					return ctx.Err()
				}
				e.Off += int64(len(p.b))
			}
		}
		return nil
	})
	g.Go(func() error {
		for p := range ready {
			if _, err := to.WriteAt(p.b, p.off); err != nil {
				return err
			}
			free <- p.b[:cap(p.b)]
		}
		return nil
	})
	return g.Wait()
}

// changedExtents are the disk's changes, ascending and apart.
func changedExtents(dir string) (merged []extent, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "extents.json"))
	if err != nil {
		return nil, err
	}
	var all []extent
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b extent) int { return cmp.Compare(a.Off, b.Off) })
	for _, e := range all {
		if n := len(merged) - 1; n >= 0 && e.Off <= merged[n].Off+merged[n].N {
			merged[n].N = max(merged[n].N, e.Off+e.N-merged[n].Off)
			continue
		}
		merged = append(merged, e)
	}
	return merged, nil
}

func kuraRestore(ctx context.Context, r backup.Repository, dir string) (err error) {
	last, err := os.ReadFile(filepath.Join(dir, "last"))
	if err != nil {
		return err
	}
	image, err := r.Image(ctx, string(last))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	d, err := image.Disk(ctx, 2000)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := os.MkdirAll(filepath.Join(dir, "target"), 0o700); err != nil {
		return err
	}
	// Past the page cache: nobody reads the disk soon.
	f, err := os.OpenFile(filepath.Join(dir, "target", disk), os.O_CREATE|os.O_WRONLY|unix.O_DIRECT, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return errors.Join(f.Truncate(d.Capacity()), writeUsed(f, d), f.Sync())
}

// writeUsed writes what is not zero of a disk, of which the pieces are aligned
// as direct writes must be.
func writeUsed(to io.WriterAt, d backup.DiskReader) error {
	const piece, writers = 4 << 20, 2
	memory, err := unix.Mmap(-1, 0, writers*piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(memory) }() // the process ends
	free := make(chan []byte, writers)
	for i := range writers {
		free <- memory[i*piece : (i+1)*piece]
	}
	var g errgroup.Group
	g.SetLimit(writers)
	for start, n := d.Next(0); n > 0; start, n = d.Next(start + n) {
		n = min(n, piece)
		g.Go(func() error {
			buf := <-free
			defer func() { free <- buf }()
			if _, err := d.ReadAt(buf[:n], start); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			_, err := to.WriteAt(buf[:n], start)
			return err
		})
	}
	return g.Wait()
}
