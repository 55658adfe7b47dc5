package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// labCmd runs simulated vCenters, and their control, without a server.
type labCmd struct {
	Listen       string        `default:"127.0.0.1:8989" help:"Address of the vCenter; further ones take the ports after it."`
	Control      string        `default:"127.0.0.1:8990" help:"Address of the lab's control (plain HTTP)."`
	VMs          int           `name:"vms" default:"12" help:"Virtual machines of each vCenter, vm01 and on."`
	Hosts        int           `default:"2" help:"Hosts of each vCenter."`
	Datastores   int           `default:"2" help:"Datastores of each vCenter."`
	DiskSize     byteSize      `default:"64MiB" help:"Size of each disk, as 64MiB or 20GiB."`
	Fill         float64       `default:"0.5" help:"Share of each disk that holds data."`
	Seed         uint64        `default:"1" help:"Seed of the disks' content."`
	VCenters     int           `name:"vcenters" default:"1" help:"Number of vCenters."`
	UUID         string        `name:"uuid" help:"Instance UUID of the first vCenter; by default a new one at each start."`
	LeaseTimeout time.Duration `default:"5m" help:"How long a lease lives without progress."`
	Dir          string        `type:"path" help:"Where the disks' files are made; by default the system's temporary folder."`
	ReadyFile    string        `type:"path" help:"File to write, as JSON, when all is ready."`
}

// labReady is what the lab's ready file tells.
type labReady struct {
	Control  string         `json:"control"`
	VCenter  readyVCenter   `json:"vcenter"`
	VCenters []readyVCenter `json:"vcenters"`
}

// Run serves until it is interrupted.
func (c *labCmd) Run(ctx context.Context, out io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	log.SetOutput(io.Discard) // vcsim's remarks; slog is not concerned
	var labs []*lab.Lab
	defer func() {
		for _, l := range labs {
			err = errors.Join(err, l.Close())
		}
	}()
	for i := range c.VCenters {
		l, err := c.open(i)
		if err != nil {
			return err
		}
		labs = append(labs, l)
		fmt.Fprintf(out, "vCenter %s with %d VMs at %s\n", l.UUID(), len(l.VMs()), l.Endpoint())
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Control)
	if err != nil {
		return err
	}
	control := &http.Server{Handler: lab.Control(labs...), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(listener) }()
	at := "http://" + listener.Addr().String()
	fmt.Fprintf(out, "control at %s\n", at)
	if err := c.tell(at, labs); err != nil {
		return errors.Join(err, control.Close())
	}
	select {
	case err = <-ended:
		return err
	case <-ctx.Done():
		return control.Close()
	}
}

func (c *labCmd) open(i int) (*lab.Lab, error) {
	listen, err := nthPort(c.Listen, i)
	if err != nil {
		return nil, err
	}
	id := ""
	if i == 0 {
		id = c.UUID
	}
	vms := c.VMs
	if vms == 0 {
		vms = -1
	}
	l, err := lab.New(lab.Config{
		VMs: vms, Hosts: c.Hosts, Datastores: c.Datastores, DiskSize: int64(c.DiskSize), Fill: c.Fill, Seed: c.Seed, UUID: id,
		Listen: listen, Dir: c.Dir, LeaseTimeout: c.LeaseTimeout, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return nil, fmt.Errorf("start vCenter %d: %w", i+1, err)
	}
	return l, nil
}

func (c *labCmd) tell(control string, labs []*lab.Lab) error {
	if c.ReadyFile == "" || len(labs) == 0 {
		return nil
	}
	r := labReady{Control: control}
	for _, l := range labs {
		r.VCenters = append(r.VCenters, readyVCenter{Endpoint: l.Endpoint(), Username: l.User(), Password: l.Password(), Thumbprint: l.Thumbprint()})
	}
	r.VCenter = r.VCenters[0]
	return writeReady(c.ReadyFile, r)
}

// nthPort adds n to an address's port; port 0 is any free one.
func nthPort(address string, n int) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		return "", fmt.Errorf("port %q is not a number", port)
	}
	if p != 0 {
		p += n
	}
	return net.JoinHostPort(host, strconv.Itoa(p)), nil
}

// byteSize is a size on the command line: 512, 64MiB, 20GiB.
type byteSize int64

func (s *byteSize) UnmarshalText(text []byte) error {
	number := strings.TrimSpace(string(text))
	shift := 0
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n, ok := strings.CutSuffix(number, unit); ok {
			number, shift = n, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return fmt.Errorf("%q is not a size, as 64MiB or 20GiB", text)
	}
	*s = byteSize(n << shift)
	return nil
}
