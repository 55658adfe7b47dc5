package main

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type imageHold struct {
	ID      string `arg:"" help:"The image's id."`
	Until   string `as:"TIME" help:"Keep it until this time or date (UTC). Default: until the hold is released."`
	Reason  string `as:"TEXT" help:"Why; told to whoever wants to delete the image."`
	Change  string `as:"HOLD_ID" xor:"hold" help:"Give this hold the end and the reason that are told, in place of a new one."`
	Release string `as:"HOLD_ID" xor:"hold" help:"Release this hold instead. The image has its retention back."`
}

// Help is shown below the command's first line.
func (*imageHold) Help() string {
	return "A hold keeps one image, whatever its retention says. An image may have several: it stays until the last is over or released. " +
		"An image whose time is over when its last hold is released goes with the next expiry.\n\n" +
		examples(`kura image hold 01JDZK3Q8X4T9V2M6B7N5C1R0E --until 2027-04-01 --reason audit`, "kura image hold 01JDZK3Q8X4T9V2M6B7N5C1R0E --release 01JDZK3Q8X4T9V2M6B7N5C1R0P")
}

// Run holds an image or releases a hold.
func (h *imageHold) Run(ctx context.Context, s *session) error {
	if h.Release != "" && (h.Until != "" || h.Reason != "") {
		return usef("--release takes neither --until nor --reason.")
	}
	until, err := instant("until", h.Until)
	if err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	if err := needID("image", h.ID); err != nil {
		return err
	}
	if h.Release != "" {
		return h.release(ctx, s, c)
	}
	if h.Change != "" {
		if err := needID("hold", h.Change); err != nil {
			return err
		}
		raw, err := body(c.ChangeImageHoldWithResponse(ctx, h.ID, h.Change, api.ImageHold{Until: until, Reason: h.Reason}))
		if err != nil {
			return err
		}
		return showOne(s, raw, holdRecord)
	}
	raw, err := body(c.HoldBackupImageWithResponse(ctx, h.ID, &api.HoldBackupImageParams{IdempotencyKey: newKey()}, api.ImageHold{Until: until, Reason: h.Reason}))
	if err != nil {
		return err
	}
	return showOne(s, raw, holdRecord)
}

func (h *imageHold) release(ctx context.Context, s *session, c *api.ClientWithResponses) error {
	if err := needID("hold", h.Release); err != nil {
		return err
	}
	raw, err := body(c.ReleaseImageHoldWithResponse(ctx, h.ID, h.Release))
	if err != nil {
		return err
	}
	if s.cli.Output == "json" {
		return s.printJSON(raw)
	}
	released, err := decode[api.HoldReleased](raw)
	if err == nil {
		s.say("Released hold %s. %s", h.Release, released.Message)
	}
	return err
}

func holdRecord(h api.ImageHold) (r record) {
	r.add("id", h.ID)
	r.add("image id", h.ImageID)
	r.add("until", holdEnd(h))
	r.add("reason", h.Reason)
	r.add("created by", h.CreatedBy)
	r.add("created", when(h.CreatedAt))
	return r
}

func holdEnd(h api.ImageHold) string {
	if h.Until.IsZero() {
		return "until it is released"
	}
	return when(h.Until)
}

type imageExtend struct {
	ID            string `arg:"" help:"The image's id."`
	RetentionDays int    `as:"N" xor:"end" help:"Keep it for so many days from the start of its backup."`
	ExpiresAt     string `as:"TIME" xor:"end" help:"Keep it until this time or date (UTC)."`
	Never         bool   `xor:"end" help:"Never let it expire. An image that is locked until it expires can then never be deleted."`
}

// Help is shown below the command's first line.
func (*imageExtend) Help() string {
	return "Needs the retention profile general; a hold keeps an image under each. An image never ends sooner by this. A lock that lasts until it expires goes on doing so.\n\n" +
		examples("kura image extend 01JDZK3Q8X4T9V2M6B7N5C1R0E --retention-days 366")
}

// Run lets an image end later.
func (e *imageExtend) Run(ctx context.Context, s *session) error {
	x := api.ImageExtension{}
	switch {
	case e.Never:
		x.RetentionDays = new(0)
	case e.RetentionDays > 0:
		x.RetentionDays = &e.RetentionDays
	case e.ExpiresAt == "":
		return usef("Say how long to keep the image, by --retention-days, --expires-at or --never.")
	}
	var err error
	if x.ExpiresAt, err = instant("expires-at", e.ExpiresAt); err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	if err := needID("image", e.ID); err != nil {
		return err
	}
	raw, err := body(c.ExtendBackupImageWithResponse(ctx, e.ID, x))
	if err != nil {
		return err
	}
	return showOne(s, raw, imageRecord)
}

// keptUntil is when an image goes, with what keeps it longer.
func keptUntil(i api.BackupImage) string {
	switch {
	case i.Held && i.HeldUntil.IsZero():
		return expiry(i) + " (held)"
	case i.Held:
		return fmt.Sprintf("%s (held until %s)", expiry(i), when(i.HeldUntil))
	}
	return expiry(i)
}
