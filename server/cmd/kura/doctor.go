package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type doctorCmd struct {
	VCenter          string        `arg:"" optional:"" name:"vcenter" help:"Name or id; all vcenters if none is given."`
	Window           time.Duration `as:"8h" help:"Into which the backups of a night should fit; default 8h."`
	Rate             int64         `as:"BYTES" help:"Bytes per second of one VM to reckon with, instead of what its backups were measured at."`
	SkipRepositories bool          `help:"Write nothing to the repositories; their speed is not measured then."`
	Prove            string        `as:"VM" help:"Make the whole round trip on this VM instead: two backups, a restore as a new VM, the comparison of what came back. What that makes is removed at its end. The vcenter, if given, is where to look for the name."`
	InPlace          bool          `help:"With --prove: restore the VM in place as well, which powers it off and overwrites it."`
	RoleFile         string        `as:"FILE" help:"Write the least-privilege role for vSphere to FILE and end: as JSON if its name ends in .json, else as a script of govc; - is stdout. No server is asked."`
}

// doctorPatience is how long an answer may take: with thousands of VMs the
// server has much to read.
const doctorPatience = 15 * time.Minute

// Help is shown below the command's first line.
func (*doctorCmd) Help() string {
	return "Looks at the way to a vcenter, privileges, clocks, hosts, datastores and VMs, at the repositories, and predicts the night. The exit status is 1 when an error is found.\n\n" +
		examples("kura doctor", "kura doctor tokyo --window 6h", "kura doctor --role-file kura-role.sh", "kura doctor --prove throw-away")
}

// Run looks the vcenters over.
func (d *doctorCmd) Run(ctx context.Context, s *session) error {
	if d.RoleFile != "" {
		return s.writeRole(d.RoleFile)
	}
	s.timeout = doctorPatience
	switch {
	case d.Prove != "":
		return s.prove(ctx, d.VCenter, d.Prove, d.InPlace)
	case d.InPlace:
		return usef("--in-place goes with --prove: the doctor himself changes nothing.")
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	names, ids, err := d.vcenters(ctx, c)
	if err != nil {
		return err
	}
	options := api.DiagnosisOptions{WindowSeconds: int64(d.Window / time.Second), BytesPerSecond: d.Rate, SkipRepositories: d.SkipRepositories}
	all := make([]json.RawMessage, 0, len(ids))
	failed := 0
	for i, id := range ids {
		raw, err := body(c.DiagnoseVCenterWithResponse(ctx, id, options))
		if err != nil {
			return err
		}
		found, err := decode[api.Diagnosis](raw)
		if err != nil {
			return err
		}
		all = append(all, raw)
		failed += countFindings(found, api.FindingStatusError)
		if s.cli.Output != "json" {
			if err := s.showDiagnosis(names[i], found); err != nil {
				return err
			}
		}
	}
	if s.cli.Output == "json" {
		if err := s.printDiagnoses(d.VCenter != "", all); err != nil {
			return err
		}
	}
	if failed > 0 {
		return failf("The doctor found %s.", count(failed, "error"))
	}
	return nil
}

func (s *session) printDiagnoses(one bool, all []json.RawMessage) error {
	if one {
		return s.printJSON(all[0])
	}
	return s.printJSON(map[string][]json.RawMessage{"items": all})
}

// vcenters are the names and ids of those to look over.
func (d *doctorCmd) vcenters(ctx context.Context, c *api.ClientWithResponses) (names, ids []string, err error) {
	if d.VCenter != "" {
		o, err := find(vcenterNoun(ctx, c), d.VCenter)
		return []string{o.Name}, []string{o.ID}, err
	}
	items, err := allVCenters(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	for _, raw := range items {
		o, err := newObject(raw)
		if err != nil {
			return nil, nil, err
		}
		names, ids = append(names, o.Name), append(ids, o.ID)
	}
	if len(ids) == 0 {
		return nil, nil, hinted{failf("There is no vcenter to look at."), "Add one: kura vcenter create."}
	}
	return names, ids, nil
}

func countFindings(d api.Diagnosis, status api.FindingStatus) (n int) {
	for _, f := range d.Findings {
		if f.Status == status {
			n++
		}
	}
	return n
}

// showDiagnosis prints what was found: a paragraph for each thing to see to, a
// line for each that is well, and the table of the night.
func (s *session) showDiagnosis(name string, d api.Diagnosis) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %s, %s, %s.\n\n", clean(name), count(countFindings(d, api.FindingStatusError), "error"),
		count(countFindings(d, api.FindingStatusWarning), "warning"), count(countFindings(d, api.FindingStatusOk), "check")+" well")
	for _, f := range d.Findings {
		fmt.Fprintf(&text, "%-8s %s: %s\n", strings.ToUpper(string(f.Status)), clean(f.Check), clean(f.Seen))
		if f.Why != "" {
			fmt.Fprintf(&text, "%-8s Why: %s\n", "", clean(f.Why))
		}
		if f.Remedy != "" {
			fmt.Fprintf(&text, "%-8s Do:  %s\n", "", clean(f.Remedy))
		}
	}
	if d.Sizing != nil {
		fmt.Fprintf(&text, "\nOne backup of each VM, the longest first; of all that count, %s in %s of the window of %s:\n",
			size(d.Sizing.Read), lasts(d.Sizing.NightSeconds), lasts(d.Sizing.WindowSeconds))
		if err := sizingTable(*d.Sizing).print(&text); err != nil {
			return err
		}
	}
	text.WriteByte('\n')
	_, err := fmt.Fprint(s.stdout, text.String())
	return err
}

// sizingRows bounds the table; -o json tells all.
const sizingRows = 40

func sizingTable(z api.Sizing) table {
	t := table{head: []string{"VM", "OVER", "SIZE", "READS", "RATE", "TAKES", "LEASE", "BOOKED", "SCHEDULED", "DOES NOT FIT"}}
	for i, r := range z.VirtualMachines {
		if i >= sizingRows && r.Misfit == "" {
			continue
		}
		rate := size(r.BytesPerSecond) + "/s"
		if !r.Measured {
			rate += " (reckoned)"
		}
		booked := ""
		if r.BookedSeconds > 0 {
			booked = lasts(r.BookedSeconds)
		}
		lease := ""
		if r.LeaseSeconds > 0 {
			lease = lasts(r.LeaseSeconds)
		}
		t.rows = append(t.rows, []string{r.Name, string(r.Transport), size(r.Provisioned), size(r.Read), rate, lasts(r.Seconds), lease, booked, yes(r.Scheduled), r.Misfit})
	}
	if more := len(z.VirtualMachines) - len(t.rows); more > 0 {
		t.rows = append(t.rows, []string{"and " + strconv.Itoa(more) + " that take less", "", "", "", "", "", "", "", "", ""})
	}
	return t
}

// lasts shows seconds for people.
func lasts(seconds int64) string {
	d := time.Duration(seconds) * time.Second
	if d >= time.Hour {
		d = d.Round(time.Minute)
		return strings.TrimSuffix(d.String(), "0s")
	}
	return cmp.Or(d.String(), "0s")
}
