package vsphere

import (
	"context"
	"crypto/sha1" // what vSphere's manifest holds
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/time/rate"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
)

// nfcSource reads a snapshot's disks over an export lease.
type nfcSource struct {
	s      *Session
	lease  *lease
	vm     string
	disks  map[int32]stream
	total  int64
	read   atomic.Int64
	failed atomic.Bool
}

type stream struct {
	label    string
	capacity int64
	from     types.HttpNfcLeaseDeviceUrl
}

// openNFC opens an export lease of the snapshot, with a stream for each disk.
func (s *Session) openNFC(ctx context.Context, snap backup.Snapshot, keys []int32) (*nfcSource, error) {
	doing := "export the VM " + snap.MOID
	at := ref{Type: "VirtualMachineSnapshot", Value: snap.Ref}
	var held mo.VirtualMachineSnapshot
	if err := s.read(ctx, at, []string{"config.hardware.device"}, &held); err != nil {
		return nil, s.problem(doing, err)
	}
	n := &nfcSource{s: s, vm: snap.MOID, disks: map[int32]stream{}}
	var res *types.ExportSnapshotResponse
	err := s.insist(ctx, s.config.GiveUp, func() (err error) {
		res, err = methods.ExportSnapshot(ctx, s.client, &types.ExportSnapshot{This: at})
		return err
	})
	if err == nil {
		n.lease, err = s.openLease(ctx, res.Returnval)
	}
	if err != nil {
		return nil, s.problem(doing, err)
	}
	urls := urlsByDisk(n.lease.info.DeviceUrl, held.Config.Hardware.Device)
	for _, key := range keys {
		u, ok := urls[key]
		disk, isDisk := find(held.Config.Hardware.Device, key)
		if !ok || !isDisk {
			n.lease.abort(ctx)
			return nil, fmt.Errorf("the export lease of %s has no stream for disk %d among its %d", snap.MOID, key, len(n.lease.info.DeviceUrl))
		}
		n.disks[key] = stream{label: label(disk), capacity: capacity(disk), from: u}
		n.total += capacity(disk)
	}
	return n, nil
}

func find(devices []types.BaseVirtualDevice, key int32) (*types.VirtualDisk, bool) {
	for _, d := range devices {
		if disk, ok := d.(*types.VirtualDisk); ok && disk.Key == key {
			return disk, true
		}
	}
	return nil, false
}

// Transport implements [backup.DiskSource].
func (n *nfcSource) Transport() backup.Transport { return backup.TransportNFC }

// CanReadAreas implements [backup.DiskSource]: a stream is of the whole disk.
func (n *nfcSource) CanReadAreas() bool { return false }

// ReadAreas implements [backup.DiskSource].
func (n *nfcSource) ReadAreas(context.Context, int32, iter.Seq[backup.Extent], io.WriterAt) (int64, error) {
	return 0, errors.New("an export lease sends whole disks, no areas of them")
}

// Close implements [backup.DiskSource].
func (n *nfcSource) Close(ctx context.Context) error {
	if broken := n.failed.Load() || ctx.Err() != nil; broken {
		n.lease.abort(ctx)
		return nil
	}
	return n.s.problem("complete the export of the VM "+n.vm, n.lease.complete(ctx))
}

// ReadDisk implements [backup.DiskSource].
func (n *nfcSource) ReadDisk(ctx context.Context, key int32, w io.WriterAt) (int64, error) {
	d, ok := n.disks[key]
	if !ok {
		return 0, fmt.Errorf("disk %d of %s was not opened", key, n.vm)
	}
	read, err := n.copy(ctx, d, w)
	if err != nil {
		n.failed.Store(true)
	}
	return read, err
}

func (n *nfcSource) copy(ctx context.Context, d stream, w io.WriterAt) (int64, error) {
	doing := fmt.Sprintf("read %q of the VM %s", d.label, n.vm)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(n.s.config.Stall, func() { cancel(errStall) })
	res, err := n.get(ctx, d)
	silence.Stop()
	if err == nil {
		defer func() { _ = res.Body.Close() }()
	}
	if errors.Is(context.Cause(ctx), errStall) {
		return 0, broken(doing, errStall)
	}
	if err != nil {
		return 0, n.s.problem(doing, err)
	}
	sum, size := sha1.New(), new(counter)
	in := &flow{ctx: ctx, r: res.Body, speed: n.s.speed, stall: n.s.config.Stall, cancel: cancel}
	r, err := vmdk.NewReader(io.TeeReader(in, io.MultiWriter(sum, size)))
	if err != nil {
		return 0, n.streamProblem(ctx, doing, err)
	}
	if r.Capacity() != d.capacity {
		return 0, fmt.Errorf("%s: the stream is of a disk of %d bytes, not of %d", doing, r.Capacity(), d.capacity)
	}
	out := &ascending{w: w}
	for {
		off, data, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out.total, n.streamProblem(ctx, doing, err)
		}
		if err := out.write(data, off); err != nil {
			return out.total, fmt.Errorf("%s: %w", doing, err)
		}
		n.lease.percent.Store(int32(n.read.Add(int64(len(data))) * 100 / max(n.total, 1)))
	}
	if err := out.flush(); err != nil {
		return out.total, fmt.Errorf("%s: %w", doing, err)
	}
	return out.total, n.compare(ctx, d, hex.EncodeToString(sum.Sum(nil)), int64(*size))
}

func (n *nfcSource) get(ctx context.Context, d stream) (*http.Response, error) {
	u, err := n.lease.url(d.from)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := n.s.http().Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer func() { _ = res.Body.Close() }()
		return nil, broken("open the stream of "+d.label, statusError(res))
	}
	return res, nil
}

// streamProblem tells our own giving up from the peer's.
func (n *nfcSource) streamProblem(ctx context.Context, doing string, err error) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errStall):
		return broken(doing, errStall)
	case cause != nil:
		return fmt.Errorf("%s: %w", doing, cause)
	case errors.Is(err, vmdk.ErrInvalid):
		return fmt.Errorf("%s: %w", doing, err)
	}
	return broken(doing, err)
}

// compare holds what came against what the endpoint says that it sent, where it says so.
func (n *nfcSource) compare(ctx context.Context, d stream, sum string, size int64) error {
	res, err := methods.HttpNfcLeaseGetManifest(ctx, n.s.client, &types.HttpNfcLeaseGetManifest{This: n.lease.ref})
	if err != nil {
		n.s.log.DebugContext(ctx, "no manifest of the lease", "vm", n.vm, "error", err)
		return ctx.Err()
	}
	for _, e := range res.Returnval {
		if e.Key != d.from.Key {
			continue
		}
		want := e.Sha1
		if want == "" && strings.EqualFold(e.ChecksumType, string(types.HttpNfcLeaseManifestEntryChecksumTypeSha1)) {
			want = e.Checksum
		}
		if want != "" && !strings.EqualFold(want, sum) {
			return broken(fmt.Sprintf("read %q of the VM %s", d.label, n.vm), fmt.Errorf("%d bytes with SHA-1 %s arrived, %d with %s were sent", size, sum, e.Size, want))
		}
	}
	return nil
}

// ascending joins neighbouring pieces into writes of up to a MiB, and holds
// the stream to its order: a grain that comes too late would be lost.
type ascending struct {
	w     io.WriterAt
	buf   []byte
	off   int64 // of buf
	next  int64
	total int64
}

func (a *ascending) write(p []byte, off int64) error {
	if off < a.next {
		return fmt.Errorf("the stream goes back from %d to %d: %w", a.next, off, vmdk.ErrInvalid)
	}
	if off != a.off+int64(len(a.buf)) || len(a.buf)+len(p) > cap(a.buf) {
		if err := a.flush(); err != nil {
			return err
		}
		a.off = off
	}
	if a.buf == nil {
		a.buf = make([]byte, 0, max(burst, len(p)))
	}
	a.buf = append(a.buf, p...)
	a.next = off + int64(len(p))
	a.total += int64(len(p))
	return nil
}

func (a *ascending) flush() error {
	if len(a.buf) == 0 {
		return nil
	}
	_, err := a.w.WriteAt(a.buf, a.off)
	a.off += int64(len(a.buf))
	a.buf = a.buf[:0]
	return err
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// errStall means that a peer sent or took nothing for too long.
var errStall = errors.New("not a byte came or went for too long")

// flow is a peer's stream within the bandwidth, given up when the peer stalls.
// Time that we spend ourselves between reads is not the peer's.
type flow struct {
	ctx    context.Context
	r      io.Reader
	speed  *rate.Limiter
	stall  time.Duration
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (f *flow) Read(p []byte) (int, error) {
	if len(p) > burst {
		p = p[:burst]
	}
	if f.timer == nil {
		f.timer = time.AfterFunc(f.stall, func() { f.cancel(errStall) })
	} else {
		f.timer.Reset(f.stall)
	}
	n, err := f.r.Read(p)
	f.timer.Stop()
	if n > 0 {
		if err := f.speed.WaitN(f.ctx, n); err != nil {
			return n, err
		}
	}
	return n, err
}
