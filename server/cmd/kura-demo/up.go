package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// upCmd runs a lab and a server with something in them until it is told to stop.
type upCmd struct {
	Listen    string `default:"127.0.0.1:8480" help:"Where the server answers."`
	Dir       string `help:"Folder for everything; default a temporary one that is removed at the end."`
	VMs       int    `name:"vms" default:"12" help:"How many VMs the lab has."`
	ReadyFile string `help:"File that is written when all is up: JSON with endpoint, token, control and vcenter."`
	HotAdd    bool   `help:"Run the server in one more VM of the lab, kura, so that disks are attached to that rather than exported."`
	Empty     bool   `help:"Add no vcenter, group and schedule."`
}

// Run serves until SIGINT or SIGTERM.
func (c *upCmd) Run(ctx context.Context, out io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, remove, err := folder(c.Dir)
	if err != nil {
		return err
	}
	defer remove()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	h, err := openHouse(ctx, dir, lab.Config{VMs: c.VMs}, server.Config{Listen: c.Listen, Log: log}, c.HotAdd)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := h.Close(); err == nil {
			err = cerr
		}
	}()
	if !c.Empty {
		if err := h.seed(ctx); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
	}
	r, err := h.ready()
	if err != nil {
		return err
	}
	if c.ReadyFile != "" {
		if err := writeReady(c.ReadyFile, r); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Remove(c.ReadyFile)) }()
	}
	fmt.Fprintf(out, "export KURA_ENDPOINT=%s KURA_TOKEN=%s\n", r.Endpoint, r.Token)
	fmt.Fprintf(out, "vCenter %s, user %s, password %s, thumbprint %s\nlab control %s\n", r.VCenter.Endpoint, r.VCenter.Username, r.VCenter.Password, r.VCenter.Thumbprint, r.Control)
	<-ctx.Done()
	return nil
}

// seed adds the lab as a vcenter, its gold VMs as a group, and a schedule, and
// makes a first image of each.
func (h *house) seed(ctx context.Context) error {
	p := h.server.Planner()
	v, err := p.CreateVCenter(ctx, backup.VCenter{Name: "lab", Endpoint: h.lab.Endpoint(), Username: h.lab.User(),
		Password: backup.Secret(h.lab.Password()), Thumbprint: h.lab.Thumbprint()})
	if err != nil {
		return err
	}
	if err := h.synced(ctx, v.ID); err != nil {
		return err
	}
	g, err := p.CreateGroup(ctx, backup.Group{Name: "gold", Selector: &backup.Selector{VCenterID: v.ID, Tags: []backup.Tag{{Category: "backup", Name: "gold"}}}})
	if err != nil {
		return err
	}
	s, err := p.CreateSchedule(ctx, backup.Schedule{Name: "nightly", Enabled: true, GroupID: g.ID, RetentionDays: 7, MaxDelayHours: backup.DefaultMaxDelayHours,
		Recurrence: backup.Recurrence{Kind: backup.Daily, TimeZone: "Asia/Tokyo", Hour: 2}})
	if err != nil {
		return err
	}
	_, err = p.RunSchedule(ctx, s.ID)
	return err
}

func (h *house) synced(ctx context.Context, id string) error {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		v, err := h.server.VCenter(ctx, id)
		if err != nil {
			return err
		}
		switch v.SyncState {
		case backup.SyncReady:
			return nil
		case backup.SyncFailed:
			return fmt.Errorf("inventory of the lab: %s", v.SyncError)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}
