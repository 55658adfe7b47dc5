package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// login is the way of every SOAP call: it bounds the call's time, and when the
// session has ended it logs in again, once for all callers, and repeats the call.
type login struct {
	inner   soap.RoundTripper
	manager types.ManagedObjectReference
	user    *url.Userinfo
	timeout time.Duration
	retry   time.Duration // first wait before a question is asked again

	turn       chan struct{} // held by who logs in; guards denied and deniedAt
	denied     error         // the last login was refused
	deniedAt   time.Time
	generation atomic.Int64 // counts logins
	answered   atomic.Int64 // when the peer answered last, Unix nanoseconds
}

// errNoAnswer means that a call took longer than a call may.
var errNoAnswer = errors.New("no answer in time")

// deniedFor is how long a refused login is not repeated, so that a wrong
// password does not lock the account.
const deniedFor = time.Minute

func (l *login) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	generation := l.generation.Load()
	err := l.read(ctx, req, res)
	if !ended(err, res) {
		return err
	}
	if err := l.again(ctx, generation); err != nil {
		return err
	}
	forget(res)
	return l.call(ctx, req, res)
}

// forget clears what an earlier try left in an answer.
func forget(res soap.HasFault) { reflect.ValueOf(res).Elem().SetZero() }

// read makes the call, and makes it again when a busy vcenter did not answer a
// question. Calls that change anything are made once.
func (l *login) read(ctx context.Context, req, res soap.HasFault) error {
	err := l.call(ctx, req, res)
	if _, question := req.(*methods.RetrievePropertiesExBody); !question {
		return err
	}
	for n := 0; n < rereads && err != nil && unreachable(err) && !errors.Is(err, errNoAnswer) && ctx.Err() == nil; n++ {
		t := time.NewTimer(l.retry << n)
		select {
		case <-ctx.Done():
		case <-t.C:
			forget(res)
			err = l.call(ctx, req, res)
		}
		t.Stop()
	}
	return err
}

// rereads is how often a question is asked again.
const rereads = 2

// ended says whether the session was found dead. Property collectors answer
// that with a fault for each property instead of one for the call.
func ended(err error, res soap.HasFault) bool {
	if err != nil {
		_, ended := faultOf[*types.NotAuthenticated](err)
		return ended
	}
	body, ok := res.(*methods.RetrievePropertiesExBody)
	if !ok || body.Res == nil || body.Res.Returnval == nil {
		return false
	}
	for _, o := range body.Res.Returnval.Objects {
		for _, m := range o.MissingSet {
			if _, ended := m.Fault.Fault.(*types.NotAuthenticated); ended {
				return true
			}
		}
	}
	return false
}

func (l *login) call(ctx context.Context, req, res soap.HasFault) error {
	timeout := l.timeout
	if w, ok := req.(*methods.WaitForUpdatesExBody); ok && w.Req.Options != nil && w.Req.Options.MaxWaitSeconds != nil {
		timeout += time.Duration(*w.Req.Options.MaxWaitSeconds) * time.Second
	}
	bounded, cancel := context.WithTimeoutCause(ctx, timeout, errNoAnswer)
	defer cancel()
	err := l.inner.RoundTrip(bounded, req, res)
	if err == nil || soap.IsSoapFault(err) {
		l.answered.Store(time.Now().UnixNano())
	} else if ctx.Err() == nil && errors.Is(context.Cause(bounded), errNoAnswer) {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return err
}

// again logs in, unless that has happened since the caller's session was found dead.
func (l *login) again(ctx context.Context, generation int64) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	if l.generation.Load() != generation {
		return nil
	}
	if l.denied != nil && time.Since(l.deniedAt) < deniedFor {
		return l.denied
	}
	password, _ := l.user.Password()
	_, err := methods.Login(ctx, bare{l}, &types.Login{This: l.manager, UserName: l.user.Username(), Password: password, Locale: "en_US"})
	if _, refused := faultOf[*types.InvalidLogin](err); refused {
		l.denied, l.deniedAt = err, time.Now()
	}
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	l.denied = nil
	l.generation.Add(1)
	return nil
}

// idle is the time since the peer answered.
func (l *login) idle() time.Duration {
	return time.Since(time.Unix(0, l.answered.Load()))
}

// bare calls without logging in again.
type bare struct{ l *login }

func (b bare) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	return b.l.call(ctx, req, res)
}
