package lab

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
	"github.com/vmware/govmomi/vim25/types"
)

var (
	errCut   = errors.New("the lab cut the stream")
	errShort = errors.New("the lab ended the stream early")
)

// serveLease moves the bytes of a lease's disk. The URL is secret: no session is asked for.
func (l *Lab) serveLease(w http.ResponseWriter, r *http.Request) {
	le, name := l.leases.of(r.URL.Path)
	if le == nil || le.over() {
		http.NotFound(w, r)
		return
	}
	le.mu.Lock()
	d, ok := le.disks[name]
	le.mu.Unlock()
	switch {
	case !ok:
		http.NotFound(w, r)
	case r.Method == http.MethodGet && le.snap != nil:
		l.export(r.Context(), w, le, d)
	case (r.Method == http.MethodPost || r.Method == http.MethodPut) && le.snap == nil:
		l.upload(w, r, le, d)
	default:
		http.Error(w, "an export is read by GET, an import written by POST", http.StatusMethodNotAllowed)
	}
}

// export serves a disk as a streamOptimized VMDK, chunked and of unknown length as ESXi does.
func (l *Lab) export(ctx context.Context, w http.ResponseWriter, le *lease, d leaseDisk) {
	w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	sum := sha1.New()
	out := &wire{w: w, stream: l.newStream(le, "export_cut", "export_short"), total: &l.traffic}
	if f := l.faults.take("export_corrupt", le.machine(), le.vmName, false); f != nil {
		out.corrupt = &f.After
	}
	populated, err := sendDisk(io.MultiWriter(sum, out), d.link)
	switch {
	case errors.Is(err, errShort):
		return
	case err != nil:
		l.log.InfoContext(ctx, "export broke off", "vm", le.vmName, "bytes", out.done, "error", err)
		panic(http.ErrAbortHandler)
	}
	le.noteSum(d, hex.EncodeToString(sum.Sum(nil)), out.done, populated)
}

func (le *lease) noteSum(d leaseDisk, sum string, size, populated int64) {
	le.mu.Lock()
	defer le.mu.Unlock()
	d.link.disk.mu.RLock()
	defer d.link.disk.mu.RUnlock()
	le.sums = append(le.sums, types.HttpNfcLeaseManifestEntry{
		Key: d.key, Sha1: sum, Size: size, Disk: true, Capacity: d.link.disk.capacity, PopulatedSize: populated,
	})
}

func sendDisk(w io.Writer, k *link) (populated int64, err error) {
	k.disk.mu.RLock()
	capacity := k.disk.capacity
	k.disk.mu.RUnlock()
	v, err := vmdk.NewWriter(w, capacity)
	if err != nil {
		return 0, err
	}
	b := make([]byte, blockSize)
	for n := range k.allocated(0) {
		size, err := k.ReadAt(b, n*blockSize)
		if err != nil && !isEOF(err) {
			return 0, err
		}
		if err := v.WriteGrain(n, b[:size]); err != nil {
			return 0, err
		}
		populated += int64(size)
	}
	return populated, v.Close()
}

// upload takes a streamOptimized VMDK into a disk.
func (l *Lab) upload(w http.ResponseWriter, r *http.Request, le *lease, d leaseDisk) {
	sum := sha1.New()
	in := &intake{r: r.Body, stream: l.newStream(le, "upload_cut", "")}
	var populated int64
	var err error
	if l.faults.full(le.machine(), le.vmName) {
		err = errNoSpace
	} else {
		populated, err = takeDisk(io.TeeReader(in, sum), d.link)
	}
	switch {
	case errors.Is(err, errCut):
		panic(http.ErrAbortHandler)
	case errors.Is(err, errNoSpace):
		le.fail(&types.NoDiskSpace{FileFault: types.FileFault{File: d.key}, Datastore: d.link.space.name})
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case err != nil:
		l.log.InfoContext(r.Context(), "upload failed", "vm", le.vmName, "bytes", in.done, "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		le.noteSum(d, hex.EncodeToString(sum.Sum(nil)), in.done, populated)
		w.WriteHeader(http.StatusCreated)
	}
}

func takeDisk(r io.Reader, k *link) (populated int64, err error) {
	v, err := vmdk.NewReader(r)
	if err != nil {
		return 0, err
	}
	k.disk.mu.RLock()
	capacity := k.disk.capacity
	k.disk.mu.RUnlock()
	if v.Capacity() > capacity {
		return 0, fmt.Errorf("a stream of %d bytes for a disk of %d", v.Capacity(), capacity)
	}
	for {
		off, grain, err := v.Next()
		if isEOF(err) {
			return populated, nil
		}
		if err != nil {
			return 0, err
		}
		if _, err := k.WriteAt(grain, off); err != nil {
			return 0, err
		}
		populated += int64(len(grain))
	}
}

// stream is what faults do to the bytes of one transfer.
type stream struct {
	le     *lease
	done   int64  // bytes so far
	cut    *int64 // where the connection breaks
	short  *int64 // where the stream ends as if it were whole
	expire *int64 // where the lease dies
	stall  *armed // where it stands still, and for how long
}

func (l *Lab) newStream(le *lease, cut, short string) stream {
	s := stream{le: le}
	at := func(kind string) *int64 {
		if kind == "" {
			return nil
		}
		if f := l.faults.take(kind, le.machine(), le.vmName, false); f != nil {
			return &f.After
		}
		return nil
	}
	s.cut, s.short, s.expire = at(cut), at(short), at("lease_expire")
	s.stall = l.faults.take("stream_stall", le.machine(), le.vmName, false)
	return s
}

// wait stands still once, where stream_stall asks for it.
func (s *stream) wait(end int64) {
	if s.stall == nil || end <= s.stall.After {
		return
	}
	t := time.NewTimer(s.stall.Delay)
	defer t.Stop()
	s.stall = nil
	select {
	case <-t.C:
	case <-s.le.done:
	}
}

// pass says how many of n bytes may go on, and what comes then.
func (s *stream) pass(n int) (int, error) {
	s.wait(s.done + int64(n))
	select {
	case <-s.le.done:
		return 0, errCut
	default:
	}
	end := s.done + int64(n)
	switch {
	case s.cut != nil && end > *s.cut:
		return int(max(*s.cut-s.done, 0)), errCut
	case s.short != nil && end > *s.short:
		return int(max(*s.short-s.done, 0)), errShort
	case s.expire != nil && end > *s.expire:
		s.le.expire()
		<-s.le.done
		return 0, errCut
	}
	return n, nil
}

// wire is an export's way out.
type wire struct {
	w http.ResponseWriter
	stream
	corrupt *int64 // offset of the byte that arrives changed
	total   *atomic.Int64
}

func (o *wire) Write(p []byte) (int, error) {
	n, stop := o.pass(len(p))
	p = p[:n]
	if o.corrupt != nil && *o.corrupt >= o.done && *o.corrupt < o.done+int64(n) {
		p = append([]byte(nil), p...)
		p[*o.corrupt-o.done] ^= 0x20
	}
	k, err := o.w.Write(p)
	o.done += int64(k)
	o.total.Add(int64(k))
	if err == nil {
		err = stop
	}
	if err != nil && !errors.Is(err, errShort) {
		// What was written so far shall arrive before the connection breaks.
		_ = http.NewResponseController(o.w).Flush()
	}
	return k, err
}

// intake is an upload's way in.
type intake struct {
	r io.Reader
	stream
}

func (i *intake) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	k, stop := i.pass(n)
	i.done += int64(k)
	if stop != nil {
		return k, stop
	}
	return n, err
}
