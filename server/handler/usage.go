package handler

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// GetUsage implements the operation.
func (h *handler) GetUsage(ctx context.Context, q api.GetUsageRequestObject) (api.GetUsageResponseObject, error) {
	out, err := h.usage(ctx, q.Params)
	return api.GetUsage200JSONResponse(out), err
}

// ExportUsage implements the operation.
func (h *handler) ExportUsage(ctx context.Context, q api.ExportUsageRequestObject) (api.ExportUsageResponseObject, error) {
	u, err := h.usage(ctx, api.GetUsageParams(q.Params))
	if err != nil {
		return nil, err
	}
	table, err := usageTable(u)
	return api.ExportUsage200TextCsvResponse{Body: bytes.NewReader(table), ContentLength: int64(len(table))}, err
}

func (h *handler) usage(ctx context.Context, p api.GetUsageParams) (api.Usage, error) {
	loc, err := usageZone(p.TimeZone)
	if err == nil {
		err = errors.Join(tellable("from", p.From), tellable("to", p.To))
	}
	if err != nil {
		return api.Usage{}, err
	}
	r, err := h.Planner.Usage(ctx, backup.UsageQuery{From: p.From, To: p.To, By: backup.UsageBy(p.GroupBy)})
	if err != nil {
		return api.Usage{}, err
	}
	return api.Usage{
		From: r.From, To: r.To, GroupBy: api.UsageGroupBy(r.By), Total: usageSum(r.Total), Vanished: usageSum(r.Vanished),
		Items: each(r.Items, func(i backup.UsageItem) api.UsageItem {
			s := usageSum(i.Usage)
			out := api.UsageItem{
				ID: i.ID, Name: i.Name, Vanished: i.Vanished, StartsAt: i.From, EndsAt: i.To,
				Images: s.Images, ImageHours: s.ImageHours, GiBHours: s.GiBHours,
				ProvisionedBytes: s.ProvisionedBytes, ReadBytes: s.ReadBytes, ChangedBytes: s.ChangedBytes, StoredBytes: s.StoredBytes, Savings: s.Savings,
			}
			if loc != nil && !i.From.IsZero() {
				out.StartsAtLocal = i.From.In(loc)
			}
			return out
		}),
	}, nil
}

// usageZone is the zone that days are also told in; nil = none.
func usageZone(name string) (*time.Location, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // none is asked for
	}
	r := backup.Recurrence{TimeZone: name}
	return r.Location()
}

func usageSum(u backup.Usage) api.UsageSum {
	return api.UsageSum{
		Images: u.Images, ImageHours: u.Hours, GiBHours: u.GiBHours(),
		ProvisionedBytes: u.Sizes.Provisioned, ReadBytes: u.Sizes.Read, ChangedBytes: u.Sizes.Changed, StoredBytes: u.Sizes.Stored, Savings: u.Savings(),
	}
}

// usageHead names the columns; programs rely on them.
var usageHead = []string{
	"group_by", "id", "name", "starts_at", "starts_at_local", "ends_at", "vanished",
	"images", "image_hours", "gib_hours", "provisioned_bytes", "read_bytes", "stored_bytes", "savings", "changed_bytes",
}

func usageTable(u api.Usage) ([]byte, error) {
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	w.UseCRLF = true
	lines := [][]string{usageHead}
	for _, i := range u.Items {
		vanished := ""
		if u.GroupBy == api.UsageGroupByVM {
			vanished = strconv.FormatBool(i.Vanished)
		}
		lines = append(lines, []string{
			string(u.GroupBy), i.ID, harmless(i.Name), timeCell(i.StartsAt), timeCell(i.StartsAtLocal), timeCell(i.EndsAt), vanished,
			strconv.FormatInt(i.Images, 10), strconv.FormatInt(i.ImageHours, 10), decimal(i.GiBHours),
			strconv.FormatInt(i.ProvisionedBytes, 10), strconv.FormatInt(i.ReadBytes, 10), strconv.FormatInt(i.StoredBytes, 10), decimal(i.Savings),
			strconv.FormatInt(i.ChangedBytes, 10),
		})
	}
	err := w.WriteAll(lines)
	return text.Bytes(), err
}

// harmless keeps a spreadsheet from running a name as a formula: whoever may
// name a VM must not reach into the accounts.
func harmless(name string) string {
	name = strings.TrimSpace(oneLine(name))
	if strings.HasPrefix(name, "=") || strings.HasPrefix(name, "+") || strings.HasPrefix(name, "-") || strings.HasPrefix(name, "@") {
		return "'" + name
	}
	return name
}

func timeCell(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

// decimal never uses an exponent, which some spreadsheets round.
func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
