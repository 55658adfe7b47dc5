package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// house is a lab and a server in this process.
type house struct {
	dir     string
	lab     *lab.Lab
	control *http.Server
	at      string // of the lab's control
	server  *server.Server
	stop    context.CancelFunc
	ended   chan error
}

// proxyVM is the VM of the lab in which the server runs, where it runs in one.
const proxyVM = "kura"

// inside lets the server run in a VM of the lab, to which disks are attached.
func (h *house) inside(ctx context.Context, sc *server.Config) (err error) {
	if _, err := h.lab.AddVM(ctx, lab.VMSpec{Name: proxyVM}); err != nil {
		return err
	}
	sc.ProxyUUID, err = h.lab.MakeProxy(proxyVM)
	sc.OpenDevice = func(ctx context.Context, uuid string, writable bool) (server.Device, error) {
		return h.lab.OpenDevice(ctx, proxyVM, uuid, writable)
	}
	return err
}

// openHouse starts both below dir and waits until the server answers; inhabited,
// it runs in a VM of the lab.
func openHouse(ctx context.Context, dir string, lc lab.Config, sc server.Config, inhabited bool) (h *house, err error) {
	h = &house{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	lc.Dir = filepath.Join(dir, "lab")
	if err := os.MkdirAll(lc.Dir, 0o700); err != nil {
		return h, err
	}
	if h.lab, err = lab.New(lc); err != nil {
		return h, fmt.Errorf("start the lab: %w", err)
	}
	if inhabited {
		if err := h.inside(ctx, &sc); err != nil {
			return h, fmt.Errorf("move the server into the lab: %w", err)
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return h, err
	}
	h.control, h.at = &http.Server{Handler: h.lab.ControlHandler(), ReadHeaderTimeout: 10 * time.Second}, "http://"+l.Addr().String()
	go func() {
		if err := h.control.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "kura-demo: lab control ended:", err)
		}
	}()
	sc.Data = filepath.Join(dir, "data")
	if h.server, err = server.New(ctx, sc); err != nil {
		return h, fmt.Errorf("start the server: %w", err)
	}
	rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop, h.ended = stop, make(chan error, 1)
	go func() { h.ended <- h.server.Run(rctx) }()
	return h, nil
}

// folder returns dir, or a temporary one when that is "", and what to call when
// it is done with: it removes a temporary one.
func folder(dir string) (string, func(), error) {
	if dir != "" {
		return dir, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "kura-demo-*")
	return dir, func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "kura-demo:", err)
		}
	}, err
}

// Close ends both. It is safe on a half-opened house.
func (h *house) Close() error {
	var errs []error
	if h.stop != nil {
		h.stop()
		errs = append(errs, <-h.ended)
	}
	if h.server != nil {
		errs = append(errs, h.server.Close())
	}
	if h.control != nil {
		errs = append(errs, h.control.Close())
	}
	if h.lab != nil {
		errs = append(errs, h.lab.Close())
	}
	return errors.Join(errs...)
}

func (h *house) token() (string, error) {
	b, err := os.ReadFile(h.server.OperatorTokenFile())
	return strings.TrimSpace(string(b)), err
}

// ready is what a ready file tells.
type ready struct {
	Endpoint string       `json:"endpoint"`
	Token    string       `json:"token"`
	Control  string       `json:"control"`
	VCenter  readyVCenter `json:"vcenter"`
}

type readyVCenter struct {
	Endpoint   string `json:"endpoint"`
	Username   string `json:"username"`
	Password   string `json:"password"`
	Thumbprint string `json:"thumbprint"`
}

func (h *house) ready() (ready, error) {
	token, err := h.token()
	return ready{Endpoint: h.server.URL(), Token: token, Control: h.at,
		VCenter: readyVCenter{Endpoint: h.lab.Endpoint(), Username: h.lab.User(), Password: h.lab.Password(), Thumbprint: h.lab.Thumbprint()}}, err
}

// writeReady writes v to file, whole or not at all.
func writeReady(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
