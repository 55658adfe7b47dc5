package handler

import (
	"context"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// DiagnoseVCenter implements the operation.
func (h *handler) DiagnoseVCenter(ctx context.Context, q api.DiagnoseVCenterRequestObject) (api.DiagnoseVCenterResponseObject, error) {
	d, err := h.Planner.Diagnose(ctx, q.ID, backup.DoctorOptions{
		Window: time.Duration(q.Body.WindowSeconds) * time.Second, Rate: q.Body.BytesPerSecond, SkipRepositories: q.Body.SkipRepositories,
	})
	if err != nil {
		return nil, err
	}
	return api.DiagnoseVCenter200JSONResponse(diagnosisOut(d)), nil
}

func diagnosisOut(d backup.Diagnosis) api.Diagnosis {
	out := api.Diagnosis{VCenterID: d.VCenterID, At: utc(d.At), Status: api.FindingStatus(d.Worst()), Findings: each(d.Findings, func(f backup.Finding) api.Finding {
		return api.Finding{Check: f.Check, Status: api.FindingStatus(f.Severity), Seen: f.Seen, Why: f.Why, Remedy: f.Remedy, Objects: f.Objects}
	})}
	if len(d.Sizing.Rows) > 0 {
		s := sizingOut(d.Sizing)
		out.Sizing = &s
	}
	return out
}

func sizingOut(s backup.Sizing) api.Sizing {
	return api.Sizing{
		WindowSeconds: seconds(s.Window), LeaseCapSeconds: seconds(s.LeaseCap), BytesPerSecond: s.Rate, Measured: s.Measured, Scheduled: s.Scheduled,
		Read: s.Read, NightSeconds: seconds(s.Night),
		VirtualMachines: each(s.Rows, func(r backup.SizingRow) api.SizingRow {
			return api.SizingRow{
				VirtualMachineID: r.VMID, MOID: r.MOID, Name: r.Name, Transport: api.Transport(r.Transport), Provisioned: r.Provisioned, Read: r.Read, BytesPerSecond: r.Rate,
				Measured: r.Measured, Seconds: seconds(r.Takes), LeaseSeconds: seconds(r.Lease), Scheduled: r.Scheduled, BookedSeconds: seconds(r.Booked), Misfit: r.Misfit,
			}
		}),
	}
}

// seconds rounds up, so that what takes any time is not said to take none.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
