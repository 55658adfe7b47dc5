package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/vmdk"
)

// upload streams a disk of an image into a disk of an import lease. It makes
// the request itself: govmomi's way hangs without, and can crash with, a
// progress report.
func (l *lease) upload(ctx context.Context, to types.HttpNfcLeaseDeviceUrl, disk backup.DiskReader, progress func(n int64)) error {
	u, err := l.url(to)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pr, pw := io.Pipe()
	body := &body{l: l, ctx: ctx, w: pw, timer: time.AfterFunc(l.s.config.Stall, func() { cancel(errStall) })}
	body.timer.Stop()
	defer body.timer.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), pr)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	written := make(chan error, 1)
	go func() {
		err := encode(body, disk, progress)
		body.timer.Reset(l.s.config.Stall) // for the answer
		_ = pw.CloseWithError(err)         // nil ends the request's body well
		written <- err
	}()
	answer := l.send(req)
	_ = pr.CloseWithError(errAnswered) // ends the writer when the peer answered early
	wrote := <-written
	switch {
	case wrote != nil && !errors.Is(wrote, errAnswered) && ctx.Err() == nil && !errors.Is(wrote, io.ErrClosedPipe):
		return wrote
	case errors.Is(context.Cause(ctx), errStall):
		return broken("send a disk", errStall)
	case answer == nil && wrote != nil:
		return broken("send a disk", errors.New("vSphere was content before all was sent"))
	}
	return answer
}

var errAnswered = errors.New("the peer has answered")

func (l *lease) send(req *http.Request) error {
	res, err := l.s.http().Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode/100 == 2:
		return nil
	case res.StatusCode == http.StatusInsufficientStorage:
		return backup.Errorf(backup.NoSpace, "", "The datastore filled up while a disk was sent.").Because(statusError(res))
	}
	return broken("send a disk", statusError(res))
}

// encode writes the image's disk as a VMDK stream. What may be zero is left out.
func encode(w io.Writer, disk backup.DiskReader, progress func(n int64)) error {
	out, err := vmdk.NewWriter(w, disk.Capacity())
	if err != nil {
		return err
	}
	buf := make([]byte, burst)
	var done int64 // nothing before it is still to be sent
	for {
		start, n := disk.Next(done)
		if n == 0 {
			return out.Close()
		}
		// Ranges need not lie on grains; a grain is sent whole or not at all.
		from := max(start/vmdk.GrainSize*vmdk.GrainSize, done)
		to := min((start+n+vmdk.GrainSize-1)/vmdk.GrainSize*vmdk.GrainSize, disk.Capacity())
		for from < to {
			p := buf[:min(int64(len(buf)), to-from)]
			if k, err := disk.ReadAt(p, from); k < len(p) {
				return fmt.Errorf("read the image at %d: %w", from, errors.Join(err, io.ErrUnexpectedEOF))
			}
			if _, err := out.WriteAt(p, from); err != nil {
				return err
			}
			from += int64(len(p))
			progress(int64(len(p)))
		}
		done = max(done, to)
		if done >= disk.Capacity() {
			return out.Close()
		}
	}
}

// body is the request's body within the bandwidth. While a write is under way
// the peer's patience is measured; while we read the image it is not.
type body struct {
	l     *lease
	ctx   context.Context
	w     io.Writer
	timer *time.Timer
}

func (b *body) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		k := min(burst, len(p)-done)
		if err := b.l.s.speed.WaitN(b.ctx, k); err != nil {
			return done, err
		}
		b.timer.Reset(b.l.s.config.Stall)
		n, err := b.w.Write(p[done : done+k])
		done += n
		if err != nil {
			return done, err
		}
		b.timer.Stop()
	}
	return done, nil
}
