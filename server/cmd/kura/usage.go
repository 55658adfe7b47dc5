package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type usageCmd struct {
	From     string `as:"TIME" help:"From this UTC hour on, such as 2026-11-01; default the beginning of the running month."`
	To       string `as:"TIME" help:"Until this UTC hour; default now."`
	By       string `enum:"vm,schedule,group,repository,day,month" default:"vm" as:"NOUN" help:"What it is told for: vm, schedule, group, repository, day or month."`
	TimeZone string `as:"ZONE" help:"Also tell when days and months begin there, such as Asia/Tokyo."`
}

// Help is shown below the command's first line.
func (*usageCmd) Help() string {
	return "Images count in UTC hours, both ends rounded outward, from the start of the backup until they end or are deleted: 24 hours from 00:10 are 25. " +
		"GIB HOURS is the size of the VM's disks times the hours. Failed backups count nothing. -o csv prints a table for spreadsheets.\n\n" +
		examples("kura usage", "kura usage --from 2026-10-01 --to 2026-11-01 --by schedule", "kura usage --by day --time-zone Asia/Tokyo -o csv")
}

// Run tells the usage of images.
func (u *usageCmd) Run(ctx context.Context, s *session) error {
	from, err := instant("from", u.From)
	if err != nil {
		return err
	}
	to, err := instant("to", u.To)
	if err != nil {
		return err
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	p := api.GetUsageParams{From: from, To: to, GroupBy: api.UsageGroupBy(u.By), TimeZone: u.TimeZone}
	if s.cli.Output == "csv" {
		e := api.ExportUsageParams(p)
		text, err := body(c.ExportUsageWithResponse(ctx, &e))
		if err != nil {
			return err
		}
		_, err = s.stdout.Write(text)
		return err
	}
	raw, err := body(c.GetUsageWithResponse(ctx, &p))
	if err != nil {
		return err
	}
	if s.cli.Output == "json" {
		return s.printJSON(raw)
	}
	v, err := decode[api.Usage](raw)
	if err != nil {
		return err
	}
	return s.showUsage(v)
}

func (s *session) showUsage(v api.Usage) error {
	fmt.Fprintf(s.stdout, "%s to %s, in UTC hours.\n\n", hourName(v.From), hourName(v.To))
	if v.Total.Images == 0 {
		fmt.Fprintln(s.stdout, "No images were there.")
		return nil
	}
	t := table{head: []string{usageHeads[v.GroupBy], "IMAGES", "HOURS", "GIB HOURS", "DISKS", "READ", "CHANGED", "STORED", "SAVED", "LOCAL", "ID"}}
	ids, local := false, false
	for _, i := range v.Items {
		ids, local = ids || i.ID != "", local || !i.StartsAtLocal.IsZero()
		sum := api.UsageSum{Images: i.Images, ImageHours: i.ImageHours, GiBHours: i.GiBHours, ProvisionedBytes: i.ProvisionedBytes, ReadBytes: i.ReadBytes, ChangedBytes: i.ChangedBytes, StoredBytes: i.StoredBytes, Savings: i.Savings}
		t.rows = append(t.rows, append(usageCells(usageName(v.GroupBy, i), sum), localName(i), i.ID))
	}
	t.rows = append(t.rows, append(usageCells("total", v.Total), "", ""))
	if v.Vanished.Images > 0 {
		t.rows = append(t.rows, append(usageCells("of it, of VMs that are gone", v.Vanished), "", ""))
	}
	t.drop("ID", !ids)
	t.drop("LOCAL", !local)
	return t.print(s.stdout)
}

var usageHeads = map[api.UsageGroupBy]string{
	api.UsageGroupByVM: "VM", api.UsageGroupBySchedule: "SCHEDULE", api.UsageGroupByGroup: "GROUP", api.UsageGroupByRepository: "REPOSITORY",
	api.UsageGroupByDay: "DAY (UTC)", api.UsageGroupByMonth: "MONTH (UTC)",
}

// usageName says what an item is of.
func usageName(by api.UsageGroupBy, i api.UsageItem) string {
	name := cmp.Or(i.Name, i.ID)
	switch {
	case by == api.UsageGroupByDay:
		return i.StartsAt.UTC().Format(time.DateOnly)
	case by == api.UsageGroupByMonth:
		return i.StartsAt.UTC().Format("2006-01")
	case i.Vanished:
		return name + " (gone)"
	case name == "" && by == api.UsageGroupBySchedule:
		return "(by hand)"
	case name == "" && by == api.UsageGroupByGroup:
		return "(no group)"
	}
	return name
}

func localName(i api.UsageItem) string {
	if i.StartsAtLocal.IsZero() {
		return ""
	}
	return slotName(i.StartsAtLocal)
}

func usageCells(name string, u api.UsageSum) []string {
	return []string{
		name, strconv.FormatInt(u.Images, 10), strconv.FormatInt(u.ImageHours, 10), fmt.Sprintf("%.1f", u.GiBHours),
		size(u.ProvisionedBytes), size(u.ReadBytes), size(u.ChangedBytes), size(u.StoredBytes), fmt.Sprintf("%.1f %%", 100*u.Savings),
	}
}

func hourName(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
