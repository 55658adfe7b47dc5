package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// prover makes the whole round trip on one VM: backups, a restore as a new VM,
// and the comparison of what came back, over the API that everyone uses. What
// it makes it takes away again, unless a step fails or it is interrupted: then
// it says what is left.
type prover struct {
	s       *session
	c       *api.ClientWithResponses
	vm      api.VirtualMachine
	inPlace bool

	images   []string // that it has made
	restore  string   // id of the restore that makes the new VM; "" = none was asked for
	restored *api.RestoredVM
	second   api.BackupImage // the one that is restored
	steps    []proofStep
}

// proofStep is one step as it went.
type proofStep struct {
	Step    string  `json:"step"`
	Seconds float64 `json:"seconds"`
	Read    int64   `json:"read"`   // bytes, from the VM or from the image
	Stored  int64   `json:"stored"` // bytes that the repository grew by
	Note    string  `json:"note,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// proof is what is told of all of it.
type proof struct {
	VirtualMachine string      `json:"virtual_machine"`
	Proved         bool        `json:"proved"`
	Steps          []proofStep `json:"steps"`
	Left           []string    `json:"left,omitempty"` // what is still there, and how to remove it
}

// prove runs the steps up to the first that fails.
func (s *session) prove(ctx context.Context, vcenter, ref string, inPlace bool) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	id, err := vcenterID(ctx, c, vcenter)
	if err != nil {
		return err
	}
	o, err := findVM(ctx, c, id, ref)
	if err != nil {
		return err
	}
	p := &prover{s: s, c: c, inPlace: inPlace}
	if p.vm, err = decode[api.VirtualMachine](o.raw); err != nil {
		return err
	}
	failed := p.run(ctx)
	return p.report(ctx, failed)
}

// run takes the steps in order.
func (p *prover) run(ctx context.Context) error {
	type step struct {
		name string
		do   func(context.Context, *proofStep) error
	}
	all := []step{{"full backup", p.full}, {"second backup", p.incremental}, {"image read and hashed", p.hashSecond}, {"restored as a new VM", p.restoreNew}, {"new VM compared", p.compareNew}}
	if p.inPlace {
		all = append(all, step{"restored in place", p.restoreInPlace}, step{"VM compared", p.compareOld})
	}
	all = append(all, step{"cleared away", p.clear})
	for _, one := range all {
		t := proofStep{Step: one.name}
		began := p.s.now()
		err := one.do(ctx, &t)
		t.Seconds = p.s.now().Sub(began).Seconds()
		if err != nil {
			t.Error = err.Error()
		}
		p.steps = append(p.steps, t)
		p.tell(t)
		if err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return nil
}

// tell prints a step when it is over.
func (p *prover) tell(t proofStep) {
	if p.s.cli.Output == "json" {
		return
	}
	text := fmt.Sprintf("%-24s %8.1f s", t.Step, t.Seconds)
	if t.Read > 0 || t.Stored > 0 {
		text += fmt.Sprintf("  read %s, stored %s", size(t.Read), size(t.Stored))
	}
	switch {
	case t.Error != "":
		text += "  FAILED"
	case t.Note != "":
		text += "  " + t.Note
	}
	fmt.Fprintln(p.s.stdout, clean(text))
}

// report tells how it ended and what is left.
func (p *prover) report(ctx context.Context, failed error) error {
	out := proof{VirtualMachine: p.vm.Name, Proved: failed == nil, Steps: p.steps, Left: p.left()}
	if p.s.cli.Output == "json" {
		if err := p.s.printJSON(out); err != nil {
			return err
		}
	} else if failed == nil {
		p.s.say("Proved: %s came back byte for byte.", p.vm.Name)
	}
	if failed == nil {
		return nil
	}
	hint := ""
	if h, ok := errors.AsType[hinted](failed); ok {
		hint = h.hint
	}
	if len(out.Left) > 0 {
		hint = strings.TrimSpace(hint + " Still there: " + strings.Join(out.Left, "; ") + ".")
	}
	if ctx.Err() != nil {
		failed = errInterrupted
	}
	return hinted{failed, hint}
}

// left says what is still there and how to remove it.
func (p *prover) left() []string {
	var all []string
	switch {
	case p.restored != nil:
		all = append(all, fmt.Sprintf("the VM %s (%s): kura restore delete %s --delete-vm", p.restored.Name, p.restored.MOID, p.restore))
	case p.restore != "":
		all = append(all, fmt.Sprintf("restore %s, which may have made a VM: kura restore show %s tells; kura restore delete %s --delete-vm removes it", p.restore, p.restore, p.restore))
	}
	for _, id := range p.images {
		all = append(all, fmt.Sprintf("image %s, which expires tomorrow: kura image delete %s", id, id))
	}
	return all
}

// proofDays is for how long the images of a proof are kept that nobody deletes.
const proofDays = 1

// backup makes an image of a VM and returns it.
func (p *prover) backup(ctx context.Context, id string, full bool, t *proofStep) (api.BackupImage, error) {
	o := api.BackupOptions{RetentionDays: proofDays, Full: full, Labels: map[string]string{"kura": "prove"}}
	raw, err := body(p.c.BackupVirtualMachineWithResponse(ctx, id, &api.BackupVirtualMachineParams{IdempotencyKey: newKey()}, o))
	if err != nil {
		return api.BackupImage{}, err
	}
	started, err := decode[api.Run](raw)
	if err != nil {
		return api.BackupImage{}, err
	}
	_, run, err := p.s.waitRun(ctx, p.c, started.ID)
	if err != nil {
		return api.BackupImage{}, err
	}
	if len(run.Jobs) != 1 {
		return api.BackupImage{}, fmt.Errorf("the run has %d jobs", len(run.Jobs))
	}
	job := run.Jobs[0]
	if job.ImageID != "" {
		p.images = append(p.images, job.ImageID)
	}
	if err := jobEnd(job); err != nil {
		return api.BackupImage{}, err
	}
	image, err := p.image(ctx, job.ImageID)
	if err != nil {
		return image, err
	}
	t.Read, t.Stored, t.Note = image.Sizes.Read, image.Sizes.Stored, strings.Join(job.Messages, " ")
	if image.Status != api.ImageStatusGood {
		return image, fmt.Errorf("image %s is %s: %s", image.ID, image.Status, image.Message)
	}
	return image, nil
}

func (p *prover) image(ctx context.Context, id string) (api.BackupImage, error) {
	raw, err := body(p.c.GetBackupImageWithResponse(ctx, id))
	if err != nil {
		return api.BackupImage{}, err
	}
	return decode[api.BackupImage](raw)
}

// hash has the checksums of an image's disks made and returns the image with them.
func (p *prover) hash(ctx context.Context, id string) (api.BackupImage, error) {
	raw, err := body(p.c.VerifyBackupImageWithResponse(ctx, id, &api.VerifyBackupImageParams{IdempotencyKey: newKey(), SHA256: true}))
	if err != nil {
		return api.BackupImage{}, err
	}
	if err := p.follow(ctx, raw); err != nil {
		return api.BackupImage{}, err
	}
	image, err := p.image(ctx, id)
	if err != nil {
		return image, err
	}
	for _, d := range image.Disks {
		if d.SHA256 == "" {
			return image, fmt.Errorf("the server told no checksum of %s", d.Label)
		}
	}
	return image, nil
}

// follow waits for a job that an answer names, and fails when it does.
func (p *prover) follow(ctx context.Context, raw []byte) error {
	started, err := decode[api.Job](raw)
	if err != nil {
		return err
	}
	job, err := p.s.waitJob(ctx, p.c, started.ID)
	if err != nil {
		return err
	}
	return jobEnd(job)
}

var errDiffers = errors.New("what came back differs")

// same compares what two images hold, disk by disk.
func same(want, got api.BackupImage) error {
	if len(want.Disks) != len(got.Disks) {
		return fmt.Errorf("%w: %s, not %d", errDiffers, count(len(got.Disks), "disk"), len(want.Disks))
	}
	for i, d := range want.Disks {
		if g := got.Disks[i]; g.SHA256 != d.SHA256 || g.Capacity != d.Capacity {
			return fmt.Errorf("%w: %s is %s with SHA-256 %s, not %s with %s", errDiffers, d.Label, size(g.Capacity), g.SHA256, size(d.Capacity), d.SHA256)
		}
	}
	return nil
}

// proofName is what the new VM is called: it must tell what it is for.
func proofName(image string) string {
	return "kura-prove-" + strings.ToLower(image[max(0, len(image)-10):])
}

// sync has the inventory read, so that what was restored is known.
func (p *prover) sync(ctx context.Context) error {
	raw, err := body(p.c.SyncVCenterWithResponse(ctx, p.vm.VCenterID, &api.SyncVCenterParams{IdempotencyKey: newKey()}))
	if err != nil {
		return err
	}
	return p.follow(ctx, raw)
}

// clearTime bounds the clearing away of what a proof has made.
const clearTime = 10 * time.Minute
