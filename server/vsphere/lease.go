package vsphere

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// lease is an NFC lease: vSphere's permission to stream the disks of one VM,
// which lasts as long as its holder shows signs of life.
type lease struct {
	s    *Session
	ref  ref
	info types.HttpNfcLeaseInfo

	percent atomic.Int32
	end     sync.Once
	stop    context.CancelFunc
	done    chan struct{}
}

// openLease waits until the lease is ready and keeps it alive from then on.
func (s *Session) openLease(ctx context.Context, r ref) (*lease, error) {
	l := &lease{s: s, ref: r, done: make(chan struct{})}
	var state types.HttpNfcLeaseState
	var failed *types.LocalizedMethodFault
	err := s.wait(ctx, r, []string{"state", "info", "error"}, func(changes []types.PropertyChange) bool {
		for _, c := range changes {
			switch v := c.Val.(type) {
			case types.HttpNfcLeaseState:
				state = v
			case types.HttpNfcLeaseInfo:
				l.info = v
			case types.LocalizedMethodFault:
				failed = &v
			}
		}
		return failed != nil || state == types.HttpNfcLeaseStateError || (state == types.HttpNfcLeaseStateReady && l.info.Lease != (ref{}))
	})
	switch {
	case err != nil:
	case failed != nil:
		err = &task.Error{LocalizedMethodFault: failed}
	case state != types.HttpNfcLeaseStateReady:
		err = fmt.Errorf("the lease is in state %s", state)
	}
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	if err != nil {
		close(l.done)
		l.abort(ctx)
		return nil, err
	}
	for _, u := range l.info.DeviceUrl {
		if where, err := s.soap.ParseURL(u.Url); err == nil {
			s.trust.pin(where.Host, u.SslThumbprint)
		}
	}
	go l.keepAlive(alive)
	return l, nil
}

// keepAlive reports progress often enough that vSphere does not end the lease.
// One refused report does not end it: the next may pass.
func (l *lease) keepAlive(ctx context.Context) {
	defer close(l.done)
	every := 30 * time.Second
	if t := time.Duration(l.info.LeaseTimeout) * time.Second; t > 0 {
		every = min(every, t/4)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := methods.HttpNfcLeaseProgress(ctx, l.s.client, &types.HttpNfcLeaseProgress{This: l.ref, Percent: l.percent.Load()})
		if err != nil && ctx.Err() == nil {
			l.s.log.WarnContext(ctx, "lease could not be kept alive", "lease", l.ref.Value, "error", err)
		}
	}
}

// complete ends the lease well. Later calls of it and of abort do nothing.
func (l *lease) complete(ctx context.Context) (err error) {
	l.finally(ctx, func(ctx context.Context) {
		_, err = methods.HttpNfcLeaseComplete(ctx, l.s.client, &types.HttpNfcLeaseComplete{This: l.ref})
	})
	return err
}

// abort ends the lease; one of an import takes its half-made VM along.
func (l *lease) abort(ctx context.Context) {
	l.finally(ctx, func(ctx context.Context) {
		if _, err := methods.HttpNfcLeaseAbort(ctx, l.s.client, &types.HttpNfcLeaseAbort{This: l.ref}); err != nil {
			l.s.log.WarnContext(ctx, "lease could not be aborted", "lease", l.ref.Value, "error", err)
		}
	})
}

// finally runs fn once, even though the caller's context may have ended.
func (l *lease) finally(ctx context.Context, fn func(context.Context)) {
	l.end.Do(func() {
		l.stop()
		<-l.done
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.s.config.CallTimeout)
		defer cancel()
		fn(ctx)
	})
}

// url is where a device's stream is. A host given as "*" is the one we speak to.
func (l *lease) url(u types.HttpNfcLeaseDeviceUrl) (*url.URL, error) {
	return l.s.soap.ParseURL(u.Url)
}

// deviceKey is how vSphere names a device in a lease: "/vm-42/ParaVirtualSCSIController0:1".
var deviceKey = regexp.MustCompile(`([A-Za-z]+)(\d+):(\d+)$`)

// urlsByDisk finds for each disk its stream. vSphere names the controller and
// the unit; other endpoints name the disk's file. Nothing is guessed: a disk
// that is not named is not found.
func urlsByDisk(urls []types.HttpNfcLeaseDeviceUrl, devices object.VirtualDeviceList) map[int32]types.HttpNfcLeaseDeviceUrl {
	out := map[int32]types.HttpNfcLeaseDeviceUrl{}
	var disks []*types.VirtualDisk
	for _, d := range devices {
		if disk, ok := d.(*types.VirtualDisk); ok {
			disks = append(disks, disk)
		}
	}
	var streams []types.HttpNfcLeaseDeviceUrl
	for _, u := range urls {
		if u.Disk == nil || *u.Disk {
			streams = append(streams, u)
		}
	}
	for _, u := range streams {
		for _, disk := range disks {
			if names(u.Key, disk, devices) || names(u.ImportKey, disk, devices) || (u.TargetId != "" && path.Base(datastorePath(fileOf(disk))) == u.TargetId) {
				out[disk.Key] = u
			}
		}
	}
	if len(disks) == 1 && len(streams) == 1 {
		out[disks[0].Key] = streams[0]
	}
	return out
}

func names(key string, disk *types.VirtualDisk, devices object.VirtualDeviceList) bool {
	m := deviceKey.FindStringSubmatch(key)
	if m == nil || disk.UnitNumber == nil || m[3] != strconv.Itoa(int(*disk.UnitNumber)) {
		return false
	}
	c, ok := devices.FindByKey(disk.ControllerKey).(types.BaseVirtualController)
	return ok && m[2] == strconv.Itoa(int(c.GetVirtualController().BusNumber)) && m[1] == reflect.TypeOf(c).Elem().Name()
}

func datastorePath(file string) string {
	var p object.DatastorePath
	p.FromString(file)
	return p.Path
}

// broken is a stream that ended before its time: the peer or the network is at fault, so a new try may help.
func broken(doing string, cause error) error {
	return backup.Errorf(backup.Unavailable, "", "The stream broke off while kura tried to %s.", doing).Because(cause)
}

func statusError(res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	return fmt.Errorf("%s: %s", res.Status, text)
}
