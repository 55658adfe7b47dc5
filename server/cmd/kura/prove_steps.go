package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

func (p *prover) full(ctx context.Context, t *proofStep) error {
	_, err := p.backup(ctx, p.vm.ID, true, t)
	return err
}

// incremental makes the image that is restored: what a second backup takes over
// from the first must be right as well.
func (p *prover) incremental(ctx context.Context, t *proofStep) (err error) {
	p.second, err = p.backup(ctx, p.vm.ID, false, t)
	t.Note = strings.TrimSpace("changes found by " + string(p.second.ChangeDetection) + ". " + t.Note)
	return err
}

func (p *prover) hashSecond(ctx context.Context, t *proofStep) (err error) {
	if p.second, err = p.hash(ctx, p.second.ID); err != nil {
		return err
	}
	for _, d := range p.second.Disks {
		t.Read += d.Capacity
	}
	return nil
}

// restoreNew makes a new VM, which stays powered off.
func (p *prover) restoreNew(ctx context.Context, t *proofStep) error {
	r, err := p.begin(ctx, api.Restore{ImageID: p.second.ID, Description: "kura doctor --prove", NewVM: &api.RestoreNewVM{Name: proofName(p.second.ID)}})
	if err != nil {
		return err
	}
	p.restore = r.ID
	if r, err = p.ended(ctx, r); err != nil {
		return err
	}
	if r.RestoredVM == nil || r.RestoredVM.InstanceUUID == "" {
		return fmt.Errorf("restore %s does not tell which VM it made", r.ID)
	}
	p.restored, t.Read, t.Note = r.RestoredVM, r.BytesRestored, r.RestoredVM.Name+" ("+r.RestoredVM.MOID+")"
	return nil
}

// begin starts a restore.
func (p *prover) begin(ctx context.Context, spec api.Restore) (api.Restore, error) {
	raw, err := body(p.c.CreateRestoreWithResponse(ctx, &api.CreateRestoreParams{IdempotencyKey: newKey()}, spec))
	if err != nil {
		return api.Restore{}, err
	}
	return decode[api.Restore](raw)
}

// ended waits for a restore and returns it as it ended.
func (p *prover) ended(ctx context.Context, r api.Restore) (api.Restore, error) {
	job, err := p.s.waitJob(ctx, p.c, r.JobID)
	if err == nil {
		err = jobEnd(job)
	}
	if err != nil {
		return r, err
	}
	raw, err := body(p.c.GetRestoreWithResponse(ctx, r.ID, &api.GetRestoreParams{}))
	if err != nil {
		return r, err
	}
	return decode[api.Restore](raw)
}

// compareNew reads the new VM back: what it holds must be what was restored.
func (p *prover) compareNew(ctx context.Context, t *proofStep) error {
	if err := p.sync(ctx); err != nil {
		return err
	}
	items, err := named(vmNoun(ctx, p.c, p.vm.VCenterID, false), p.restored.Name)
	if err != nil {
		return err
	}
	for _, o := range items {
		vm, err := decode[api.VirtualMachine](o.raw)
		if err != nil {
			return err
		}
		if vm.InstanceUUID == p.restored.InstanceUUID {
			return p.compare(ctx, vm.ID, t)
		}
	}
	return fmt.Errorf("the inventory does not show the new VM %s", p.restored.Name)
}

// compare makes an image of a VM that is off and holds it against the one that
// was restored.
func (p *prover) compare(ctx context.Context, id string, t *proofStep) error {
	image, err := p.backup(ctx, id, true, t)
	if err != nil {
		return err
	}
	if image, err = p.hash(ctx, image.ID); err != nil {
		return err
	}
	t.Note = strings.TrimSpace(count(len(image.Disks), "disk") + " with the same SHA-256. " + t.Note)
	return same(p.second, image)
}

// restoreInPlace overwrites the VM and leaves it powered off, so that it can be compared.
func (p *prover) restoreInPlace(ctx context.Context, t *proofStep) error {
	r, err := p.begin(ctx, api.Restore{ImageID: p.second.ID, Description: "kura doctor --prove --in-place", InPlace: &api.RestoreInPlace{PowerOff: true}})
	if err != nil {
		return err
	}
	if r, err = p.ended(ctx, r); err != nil {
		return err
	}
	t.Read, t.Note = r.BytesRestored, p.vm.Name+" is left powered off"
	return nil
}

func (p *prover) compareOld(ctx context.Context, t *proofStep) error {
	return p.compare(ctx, p.vm.ID, t)
}

// clear takes away the VM and the images that were made.
func (p *prover) clear(ctx context.Context, _ *proofStep) error {
	ctx, cancel := context.WithTimeout(ctx, clearTime)
	defer cancel()
	if _, err := body(p.c.DeleteRestoreWithResponse(ctx, p.restore, &api.DeleteRestoreParams{DeleteRestoredVM: true})); err != nil {
		return err
	}
	p.restore, p.restored = "", nil
	for len(p.images) > 0 {
		if _, err := body(p.c.DeleteBackupImageWithResponse(ctx, p.images[0])); err != nil {
			return err
		}
		p.images = p.images[1:]
	}
	return p.sync(ctx)
}
