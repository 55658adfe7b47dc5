package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type imageCmd struct {
	List   imageList   `cmd:"" help:"List images, the newest first."`
	Show   imageShow   `cmd:"" help:"Show an image with its disks."`
	Delete imageDelete `cmd:"" help:"Delete images: those named, or those of a VM and a time."`

	Hold   imageHold   `cmd:"" help:"Keep an image, whatever its retention says, or release a hold."`
	Extend imageExtend `cmd:"" help:"Let an image end later."`

	Copy   imageCopy   `cmd:"" help:"Copy an image to another repository."`
	Copies imageCopies `cmd:"" help:"List the copies of an image in other repositories."`

	Verify  imageVerify  `cmd:"" help:"Read an image whole and compare every byte with its checksum."`
	Expired imageExpired `cmd:"" help:"List the images whose time is over: what the server deletes next, and what stays."`
}

// imageFilter chooses images.
type imageFilter struct {
	VM     string `name:"vm" as:"NAME" help:"Only images of this virtual machine, which may be gone."`
	After  string `as:"TIME" help:"Only those made at or after this time or date (UTC)."`
	Before string `as:"TIME" help:"Only those made before this time or date (UTC)."`
}

// params makes the filter a question to the server. A name that no VM has any
// more is the one that was noted with the image.
func (f imageFilter) params(ctx context.Context, c *api.ClientWithResponses) (p api.ListBackupImagesParams, err error) {
	p.Limit = pageSize
	if p.CreatedAfter, err = instant("after", f.After); err != nil {
		return p, err
	}
	if p.CreatedBefore, err = instant("before", f.Before); err != nil {
		return p, err
	}
	if f.VM == "" {
		return p, nil
	}
	p.VirtualMachineID, err = vmID(ctx, c, f.VM)
	if _, unnamed := errors.AsType[unknown](err); unnamed {
		p.VirtualMachineName, err = f.VM, nil
	}
	return p, err
}

func collectImages(ctx context.Context, c *api.ClientWithResponses, limit int, p api.ListBackupImagesParams) ([]json.RawMessage, error) {
	return collect(limit, func(cursor string) (answer, error) {
		p.Cursor = cursor
		return c.ListBackupImagesWithResponse(ctx, &p)
	})
}

type imageList struct {
	imageFilter
	Group      string   `as:"NAME" help:"Only those made for this group."`
	Schedule   string   `as:"NAME" help:"Only those made for this schedule."`
	RunID      string   `name:"run" as:"ID" help:"Only those of this run."`
	Status     string   `enum:",good,partial,damaged,expired" default:"" as:"STATUS" help:"good, partial, damaged or expired."`
	Repository string   `as:"NAME" help:"Only those in this repository."`
	Copies     bool     `help:"Also copies whose original is there. Without it they are listed with --repository only."`
	Label      []string `as:"KEY=VALUE" sep:"none" help:"Only those with this label; repeated, all must be there."`
	Limit      int      `as:"N" help:"No more than this many. Default: all."`
}

// Help is shown below the command's first line.
func (*imageList) Help() string {
	return examples("kura image list --vm erp --limit 1 -o json", "kura image list --after 2026-12-01 --status good")
}

// Run lists images.
func (l *imageList) Run(ctx context.Context, s *session) error {
	if _, err := pairs("label", l.Label); err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	p, err := l.params(ctx, c)
	if err != nil {
		return err
	}
	p.RunID, p.Status, p.Repository, p.Label = l.RunID, api.ImageStatus(l.Status), l.Repository, l.Label
	if l.Copies {
		p.Copies = &l.Copies
	}
	if p.GroupID, err = groupID(ctx, c, l.Group); err != nil {
		return err
	}
	if p.ScheduleID, err = scheduleID(ctx, c, l.Schedule); err != nil {
		return err
	}
	items, err := collectImages(ctx, c, l.Limit, p)
	if err != nil {
		return err
	}
	return showImages(s, items)
}

func showImages(s *session, items []json.RawMessage) error {
	return showAll(s, "images", items, []string{"START", "END", "SIZE", "DISKS", "STATUS", "VM", "EXPIRES", "ID"}, func(i api.BackupImage) []string {
		return []string{when(i.StartedAt), when(i.EndedAt), size(i.Sizes.Provisioned), disksOf(i), string(i.Status), i.VirtualMachine.Name, keptUntil(i), i.ID}
	})
}

// lacking says why the image has not all of a disk.
func lacking(d api.ImageDisk) string {
	if d.Damaged {
		return "damaged"
	}
	return d.SkippedReason
}

// disksOf says whether an image holds all disks of its VM.
func disksOf(i api.BackupImage) string {
	skipped := 0
	for _, d := range i.Disks {
		if d.SkippedReason != "" {
			skipped++
		}
	}
	if skipped == 0 {
		return fmt.Sprintf("all %d", len(i.Disks))
	}
	return fmt.Sprintf("%d of %d", len(i.Disks)-skipped, len(i.Disks))
}

func expiry(i api.BackupImage) string {
	if i.ExpiresAt.IsZero() {
		return "never"
	}
	return when(i.ExpiresAt)
}

type imageShow struct {
	ID string `arg:"" help:"The image's id."`
}

// Run shows an image.
func (i *imageShow) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	if err := needID("image", i.ID); err != nil {
		return err
	}
	raw, err := body(c.GetBackupImageWithResponse(ctx, i.ID))
	if err != nil {
		return err
	}
	return showOne(s, raw, imageRecord)
}

func imageRecord(i api.BackupImage) (r record) {
	r.add("id", i.ID)
	r.add("virtual machine", i.VirtualMachine.Name+" ("+i.VirtualMachine.ID+")")
	r.add("status", string(i.Status))
	r.add("message", i.Message)
	r.add("point in time", when(i.PointInTime))
	r.add("started", when(i.StartedAt))
	r.add("ended", when(i.EndedAt))
	r.add("expires", keptUntil(i))
	r.add("locked until", when(i.LockedUntil))
	r.add("locked by the storage until", when(i.StorageLockedUntil))
	r.add("consistency", string(i.Consistency))
	r.add("change detection", string(i.ChangeDetection))
	r.add("provisioned", size(i.Sizes.Provisioned))
	r.add("read", size(i.Sizes.Read))
	r.add("changed", size(i.Sizes.Changed))
	r.add("stored", size(i.Sizes.Stored))
	r.add("repository", i.Repository)
	r.add("copy of", i.CopyOf)
	r.add("vcenter id", i.VCenterID)
	r.add("schedule id", i.ScheduleID)
	r.add("group id", i.GroupID)
	r.add("run id", i.RunID)
	r.add("job id", i.JobID)
	r.add("verified", when(i.VerifiedAt))
	r.add("compared in full", when(i.LastFullCompareAt))
	for _, k := range keys(i.Labels) {
		r.add("label", k+"="+i.Labels[k])
	}
	disks := table{head: []string{"KEY", "LABEL", "SIZE", "READ", "CHANGED", "STORED", "FOUND BY", "COMPARED IN FULL", "SHA-256", "LACKS"}}
	for _, d := range i.Disks {
		disks.rows = append(disks.rows, []string{fmt.Sprint(d.Key), d.Label, size(d.Capacity), size(d.Read), size(d.Changed), size(d.Stored),
			string(d.ChangeDetection), when(d.LastFullCompareAt), d.SHA256, lacking(d)})
	}
	r.addTable("disks", disks)
	if len(i.Copies) > 0 {
		copies := table{head: copyHead}
		for _, c := range i.Copies {
			copies.rows = append(copies.rows, copyRow(c))
		}
		r.addTable("copies", copies)
	}
	if len(i.Holds) > 0 {
		holds := table{head: []string{"HOLD", "UNTIL", "REASON", "BY", "SINCE"}}
		for _, h := range i.Holds {
			holds.rows = append(holds.rows, []string{h.ID, holdEnd(h), h.Reason, h.CreatedBy, when(h.CreatedAt)})
		}
		r.addTable("holds", holds)
	}
	return r
}

type imageDelete struct {
	ID []string `arg:"" optional:"" help:"Ids of images."`
	imageFilter
	DryRun bool `help:"Only list what would be deleted."`
}

// Help is shown below the command's first line.
func (*imageDelete) Help() string {
	return "An image that is locked, held or being restored is refused; the others are deleted all the same, and the exit status is 1. The repository's maintenance gives the space back later.\n\n" +
		examples("kura image delete 01JDZK3Q8X4T9V2M6B7N5C1R0E", "kura image delete --vm erp --before 2026-06-01 --dry-run")
}

// Run deletes images.
func (d *imageDelete) Run(ctx context.Context, s *session) error {
	filtered := d.imageFilter != (imageFilter{})
	if filtered == (len(d.ID) > 0) {
		return usef("Name images by their ids, or choose them with --vm, --after and --before.")
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	items, err := d.chosen(ctx, c)
	if err != nil {
		return err
	}
	if d.DryRun || len(items) == 0 {
		return showImages(s, items)
	}
	gone := []json.RawMessage{}
	for _, raw := range items {
		image, err := decode[api.BackupImage](raw)
		if err != nil {
			return err
		}
		if _, err := body(c.DeleteBackupImageWithResponse(ctx, image.ID)); err != nil {
			if ctx.Err() != nil || unreachable(err) {
				return ctxErr(ctx, err)
			}
			fmt.Fprintf(s.stderr, "Image %s of %s stays.\n", image.ID, clean(image.VirtualMachine.Name))
			report(s.stderr, err)
			continue
		}
		gone = append(gone, raw)
		if s.cli.Output == "table" {
			s.say("Deleted image %s of %s, made %s.", image.ID, image.VirtualMachine.Name, when(image.StartedAt))
		}
	}
	if s.cli.Output == "json" {
		err = s.printJSON(map[string][]json.RawMessage{"items": gone})
	}
	if len(gone) < len(items) {
		return failf("%d of %s could not be deleted.", len(items)-len(gone), count(len(items), "image"))
	}
	return err
}

// chosen returns the images that the command line means.
func (d *imageDelete) chosen(ctx context.Context, c *api.ClientWithResponses) ([]json.RawMessage, error) {
	if len(d.ID) == 0 {
		p, err := d.params(ctx, c)
		if err != nil {
			return nil, err
		}
		return collectImages(ctx, c, 0, p)
	}
	var items []json.RawMessage
	for _, id := range d.ID {
		if err := needID("image", id); err != nil {
			return nil, err
		}
		raw, err := body(c.GetBackupImageWithResponse(ctx, id))
		if err != nil {
			return nil, err
		}
		items = append(items, raw)
	}
	return items, nil
}
