package main

import (
	"context"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type vmProtection struct {
	VCenter string        `name:"vcenter" as:"NAME" help:"Only those of this vcenter."`
	Lacking bool          `help:"Only those that lack something; the exit status is 1 when there are any."`
	MaxAge  time.Duration `as:"26h" help:"The newest good image may be so old; an older one, or none, lacks too."`
}

// Help is shown below the command's first line.
func (*vmProtection) Help() string {
	return "A VM is protected when an enabled schedule backs it up from now on and nothing of it is unprotectable.\n\n" +
		examples("kura vm protection", "kura vm protection --lacking --max-age 26h")
}

// Run lists what protects each VM.
func (p *vmProtection) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	vcenter, err := vcenterID(ctx, c, p.VCenter)
	if err != nil {
		return err
	}
	all, err := collect(0, func(string) (answer, error) {
		return c.ListProtectionWithResponse(ctx, &api.ListProtectionParams{VCenterID: vcenter})
	})
	if err != nil {
		return err
	}
	shown := all
	if p.Lacking {
		shown = nil
		for _, raw := range all {
			v, err := decode[api.VMProtection](raw)
			if err != nil {
				return err
			}
			if p.lacks(v) != "" {
				shown = append(shown, raw)
			}
		}
	}
	err = showAll(s, "virtual machines", shown, []string{"NAME", "SCHEDULES", "LAST GOOD IMAGE", "VERIFIED", "LACKS", "ID"}, func(v api.VMProtection) []string {
		var names []string
		for _, schedule := range v.Schedules {
			names = append(names, schedule.Name)
		}
		return []string{v.VirtualMachine.Name, strings.Join(names, ", "), when(v.LastGoodAt), when(v.LastVerifiedAt), p.lacks(v), v.VirtualMachine.ID}
	})
	if err == nil && p.Lacking && len(shown) > 0 {
		err = failf("%s of %d lack protection.", count(len(shown), "virtual machine"), len(all))
	}
	return err
}

// lacks says what is missing, "" for nothing.
func (p *vmProtection) lacks(v api.VMProtection) string {
	switch {
	case v.UnprotectableReason != "":
		return v.UnprotectableReason
	case !v.Protected:
		return "a schedule"
	case p.MaxAge > 0 && v.LastGoodAt.IsZero():
		return "an image"
	case p.MaxAge > 0 && time.Since(v.LastGoodAt) > p.MaxAge:
		return "an image that is newer"
	}
	return ""
}
