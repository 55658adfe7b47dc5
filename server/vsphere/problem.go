package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// faultOf returns the first fault of type T in err's chain. A task's error and
// a call's look alike to it.
func faultOf[T types.BaseMethodFault](err error) (T, bool) {
	var f T
	if err == nil {
		return f, false
	}
	_, ok := fault.As(err, &f)
	return f, ok
}

// problem is the one place where what vSphere, the network or TLS say becomes
// an error that a user can act on. doing is a phrase such as "read the VM vm-42".
func (s *Session) problem(doing string, err error) error {
	if err == nil || backup.AsError(err) != nil {
		return err
	}
	if u, ok := errors.AsType[*untrusted](err); ok {
		return u.problem()
	}
	if cancelled(err) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if e := s.fault(doing, err); e != nil {
		return e.Because(err)
	}
	if unreachable(err) {
		return backup.Errorf(backup.VCenterUnreachable, "", "%s did not answer while kura tried to %s.", s.host, doing).Because(err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// fault translates vSphere's own faults; nil when there is none in err.
func (s *Session) fault(doing string, err error) *backup.Error {
	var cause types.BaseMethodFault
	text, ok := fault.As(err, &cause)
	if !ok {
		return nil
	}
	if text == "" {
		text = strings.TrimPrefix(err.Error(), "ServerFaultCode: ")
	}
	switch f := cause.(type) {
	case *types.InvalidLogin:
		return backup.Errorf(backup.VCenterDenied, "password", "%s refuses the user %q: wrong user name or password.", s.host, s.user)
	case *types.NotAuthenticated:
		return backup.Errorf(backup.VCenterDenied, "username", "%s ended the session of %q while kura tried to %s.", s.host, s.user, doing)
	case *types.NoPermission:
		return backup.Errorf(backup.VCenterDenied, "username", "The account %q lacks %s, which is needed to %s.", s.user, privileges(f), doing)
	case *types.ManagedObjectNotFound:
		if f.Obj.Type == "VirtualMachine" {
			return backup.Errorf(backup.VMGone, "", "The VM %s is not in the inventory of %s any more.", f.Obj.Value, s.host)
		}
	case *types.NoDiskSpace:
		return backup.Errorf(backup.NoSpace, "", "The datastore %s is full: vSphere could not %s.", f.Datastore, doing)
	case *types.InsufficientStorageSpace, *types.InsufficientStorageIops:
		return backup.Errorf(backup.NoSpace, "", "There is too little storage to %s: %s", doing, text)
	case *types.DuplicateName:
		return backup.Errorf(backup.Conflict, "", "vSphere could not %s: the name %q is taken.", doing, f.Name)
	case *types.FileAlreadyExists:
		return backup.Errorf(backup.Conflict, "", "vSphere could not %s: the file %s exists.", doing, f.File)
	case *types.TaskInProgress, *types.ConcurrentAccess, *types.FileLocked:
		return backup.Errorf(backup.VMBusy, "", "vSphere could not %s because another operation runs on the VM.", doing)
	case *types.HostNotConnected, *types.HostNotReachable, *types.HostCommunication, *types.InvalidHostConnectionState:
		return backup.Errorf(backup.Unavailable, "", "The VM's host does not answer: vSphere could not %s.", doing)
	}
	return backup.Errorf(backup.Internal, "", "vSphere could not %s: %s", doing, sentence(text))
}

func privileges(f *types.NoPermission) string {
	var names []string
	for _, e := range f.MissingPrivileges {
		names = append(names, e.PrivilegeIds...)
	}
	if len(names) == 0 && f.PrivilegeId != "" {
		names = []string{f.PrivilegeId}
	}
	switch len(names) {
	case 0:
		return "a privilege"
	case 1:
		return "the privilege " + names[0]
	}
	return "the privileges " + strings.Join(names, ", ")
}

func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

// unreachable says whether the peer or the way to it is at fault.
func unreachable(err error) bool {
	if errors.Is(err, errNoAnswer) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return true
	}
	for _, code := range []int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests} {
		if rest.IsStatusError(err, code) {
			return true
		}
	}
	return false
}

// cancelled says whether the caller gave up, as against a call that took too long.
func cancelled(err error) bool {
	return (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) && !errors.Is(err, errNoAnswer)
}

func invalid(field, format string, args ...any) error {
	return backup.Errorf(backup.Invalid, field, format, args...)
}
