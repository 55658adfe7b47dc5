package vsphere

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// maxFile bounds the small files that are read whole; an NVRAM has 264 KiB or less.
const maxFile = 16 << 20

// fileURL is where vSphere serves a datastore's file. datacenter is an inventory path.
func (s *Session) fileURL(datacenter, file string) (string, error) {
	var p object.DatastorePath
	if !p.FromString(file) {
		return "", fmt.Errorf("%q is no datastore path", file)
	}
	u := s.soap.URL()
	u.Path = "/folder/" + p.Path
	u.RawQuery = url.Values{"dcPath": {strings.TrimPrefix(datacenter, "/")}, "dsName": {p.Datastore}}.Encode()
	return u.String(), nil
}

// readFile reads a small file of a datastore.
func (s *Session) readFile(ctx context.Context, datacenter, file string) ([]byte, error) {
	res, err := s.fileRequest(ctx, http.MethodGet, datacenter, file, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(res.Body, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", file, err)
	case len(content) > maxFile:
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxFile)
	}
	return content, nil
}

// writeFile replaces a small file of a datastore.
func (s *Session) writeFile(ctx context.Context, datacenter, file string, content []byte) error {
	res, err := s.fileRequest(ctx, http.MethodPut, datacenter, file, content)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// fileRequest asks with the session's cookie, once more after logging in anew when that has ended.
func (s *Session) fileRequest(ctx context.Context, method, datacenter, file string, content []byte) (*http.Response, error) {
	where, err := s.fileURL(datacenter, file)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.CallTimeout, errNoAnswer)
	for again := false; ; again = true {
		generation := s.login.generation.Load()
		req, err := http.NewRequestWithContext(ctx, method, where, bytes.NewReader(content))
		if err != nil {
			cancel()
			return nil, err
		}
		res, err := s.http().Do(req)
		if err != nil {
			cancel()
			return nil, err
		}
		if res.StatusCode/100 == 2 {
			res.Body = &closing{res.Body, cancel}
			return res, nil
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized || again {
			cancel()
			return nil, fmt.Errorf("%s %s: %s", strings.ToLower(method), file, res.Status)
		}
		if err := s.login.again(ctx, generation); err != nil {
			cancel()
			return nil, err
		}
	}
}

// closing ends a request's context with its body.
type closing struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *closing) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

// moveDisk gives a virtual disk another name on the same or another datastore.
func (s *Session) moveDisk(ctx context.Context, datacenter ref, from, to string) error {
	res, err := methods.MoveVirtualDisk_Task(ctx, s.client, &types.MoveVirtualDisk_Task{
		This: *s.client.ServiceContent.VirtualDiskManager, SourceName: from, SourceDatacenter: &datacenter, DestName: to, DestDatacenter: &datacenter,
	})
	if err == nil {
		_, err = s.finish(ctx, res.Returnval)
	}
	return s.problem(fmt.Sprintf("move the disk %s to %s", from, to), err)
}

// deleteDisk removes a virtual disk's files. One that is not there is no error.
func (s *Session) deleteDisk(ctx context.Context, datacenter ref, file string) error {
	res, err := methods.DeleteVirtualDisk_Task(ctx, s.client, &types.DeleteVirtualDisk_Task{
		This: *s.client.ServiceContent.VirtualDiskManager, Name: file, Datacenter: &datacenter,
	})
	if err == nil {
		_, err = s.finish(ctx, res.Returnval)
	}
	if _, none := faultOf[*types.FileNotFound](err); none {
		return nil
	}
	return s.problem("delete the disk "+file, err)
}

// setDiskUUID gives a virtual disk the backing UUID of another.
func (s *Session) setDiskUUID(ctx context.Context, datacenter ref, file, uuid string) error {
	_, err := methods.SetVirtualDiskUuid(ctx, s.client, &types.SetVirtualDiskUuid{
		This: *s.client.ServiceContent.VirtualDiskManager, Name: file, Datacenter: &datacenter, Uuid: spacedUUID(uuid),
	})
	return s.problem("set the UUID of the disk "+file, err)
}

// spacedUUID is a UUID as SetVirtualDiskUuid wants it: "60 00 c2 9f ... -0a ...".
func spacedUUID(uuid string) string {
	hex := strings.ToLower(strings.NewReplacer("-", "", " ", "").Replace(uuid))
	var b strings.Builder
	for i := 0; i+2 <= len(hex); i += 2 {
		switch {
		case i == 16:
			b.WriteByte('-')
		case i > 0:
			b.WriteByte(' ')
		}
		b.WriteString(hex[i : i+2])
	}
	return b.String()
}
