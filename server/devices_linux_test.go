package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// serveDevices lets server processes read the devices of a VM of the lab, as if
// they ran in it, and returns the address of the socket at which it does.
func serveDevices(t *testing.T, l *lab.Lab, vm string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		d, err := l.OpenDevice(r.Context(), vm, strings.TrimPrefix(r.URL.Path, "/"), true)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusNotFound)
			return
		}
		if err := serveDevice(rw, r, d); err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
		}
	})}
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(func() { _ = s.Close() })
	return socket
}

func serveDevice(rw http.ResponseWriter, r *http.Request, d *lab.Device) error {
	size, err := d.Size()
	if err != nil {
		return err
	}
	off, _ := strconv.ParseInt(r.URL.Query().Get("off"), 10, 64)
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	switch r.Method {
	case http.MethodHead:
		rw.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		return nil
	case http.MethodPut:
		p, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = d.WriteAt(p, off)
		}
		return err
	}
	p := make([]byte, n)
	k, err := d.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = rw.Write(p[:k])
	return err
}

// remoteDevices opens what serveDevices serves.
type remoteDevices struct{ http.Client }

func newRemoteDevices(socket string) *remoteDevices {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &remoteDevices{http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 32, DisableCompression: true}}}
}

// open is what a server's configuration asks for.
func (r *remoteDevices) open(_ context.Context, uuid string, _ bool) (server.Device, error) {
	dev := &remoteDevice{r, "http://lab/" + uuid}
	res, err := dev.do(http.MethodHead, "", nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("device %s: %w", uuid, fs.ErrNotExist)
	}
	return dev, nil
}

type remoteDevice struct {
	r   *remoteDevices
	url string
}

func (d *remoteDevice) do(method, query string, body []byte) (*http.Response, error) {
	req, err := http.NewRequest(method, d.url+query, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return d.r.Do(req)
}

func (d *remoteDevice) ReadAt(p []byte, off int64) (int, error) {
	res, err := d.do(http.MethodGet, fmt.Sprintf("?off=%d&n=%d", off, len(p)), nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return 0, syscall.EIO
	}
	n, err := io.ReadFull(res.Body, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (d *remoteDevice) WriteAt(p []byte, off int64) (int, error) {
	res, err := d.do(http.MethodPut, fmt.Sprintf("?off=%d", off), p)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return 0, syscall.EIO
	}
	return len(p), nil
}

func (d *remoteDevice) Size() (int64, error) {
	res, err := d.do(http.MethodHead, "", nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	return res.ContentLength, nil
}

func (d *remoteDevice) Sync() error  { return nil }
func (d *remoteDevice) Close() error { return nil }

// cpu is the time that the process has had of a processor.
func (p *process) cpu() time.Duration {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name before may hold anything
	f := strings.Fields(rest)
	user, uerr := strconv.ParseInt(f[11], 10, 64)
	system, serr := strconv.ParseInt(f[12], 10, 64)
	if err := errors.Join(uerr, serr); err != nil {
		p.t.Fatal(err)
	}
	return time.Duration(user+system) * (time.Second / 100)
}

// forgetPeak begins a new peak of the process's memory.
func (p *process) forgetPeak() {
	p.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		p.t.Fatal(err)
	}
}

// peak is the most memory that the process has held, in bytes.
func (p *process) peak() int64 {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return n << 10
}
