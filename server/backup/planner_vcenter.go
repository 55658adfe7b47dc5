package backup

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Validate returns an [Invalid] error for the first bad field.
func (v VCenter) Validate() error {
	if err := ValidName(v.Name); err != nil {
		return err
	}
	u, err := url.Parse(v.Endpoint)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" && strings.Trim(u.Path, "/") != "sdk" {
		return Errorf(Invalid, "endpoint", "The endpoint is https://host or https://host:port, without user name and path, got %q.", v.Endpoint)
	}
	if _, err := (Recurrence{TimeZone: v.TimeZone}).Location(); err != nil {
		return err
	}
	if v.Username == "" {
		return Errorf(Invalid, "username", "A vcenter needs a user name.")
	}
	if v.Thumbprint != "" && v.CACertificate != "" {
		return Errorf(Invalid, "thumbprint", "Give thumbprint or ca_certificate, not both.")
	}
	for _, f := range []struct {
		name          string
		v, low, upper int
	}{
		{"slot_capacity", v.SlotCapacity, 1, 10000},
		{"limits.disks_per_host", v.Limits.DisksPerHost, 1, 48},
		{"limits.disks", v.Limits.Disks, 1, 52},
		{"limits.jobs_per_datastore", v.Limits.JobsPerDatastore, 1, 1000},
		{"limits.restores_per_pool", v.Limits.RestoresPerPool, 1, 1000},
		{"tag_mappings", len(v.TagMappings), 0, MaxTagMappings},
	} {
		if f.v < f.low || f.v > f.upper {
			return Errorf(Invalid, f.name, "%s must be %d to %d, got %d.", f.name, f.low, f.upper, f.v)
		}
	}
	if v.Limits.BytesPerSecond < 0 {
		return Errorf(Invalid, "limits.bytes_per_second", "bytes_per_second must be 0 (unlimited) or more, got %d.", v.Limits.BytesPerSecond)
	}
	if err := validMappings(v.TagMappings); err != nil {
		return err
	}
	if !slices.Contains([]Transport{TransportAuto, TransportNFC, TransportHotAdd, TransportNBD}, v.Transport) {
		return Errorf(Invalid, "transport", "transport must be auto, nfc, hotadd or nbd, got %q.", v.Transport)
	}
	return nil
}

// CreateVCenter logs in to see that it can, stores v and asks for its first
// inventory. Errors: Invalid, Conflict, VCenterUnreachable, VCenterDenied.
func (p *Planner) CreateVCenter(ctx context.Context, v VCenter) (VCenter, error) {
	if v.SlotCapacity == 0 {
		v.SlotCapacity = p.SlotCapacity
	}
	v = v.Defaulted()
	if err := v.Validate(); err != nil {
		return VCenter{}, err
	}
	if v.Password == "" {
		return VCenter{}, Errorf(Invalid, "password", "A vcenter needs a password.")
	}
	if err := p.logIn(ctx, &v); err != nil {
		return VCenter{}, fmt.Errorf("create vcenter %q: %w", v.Name, err)
	}
	var done VCenter
	err := p.Store.Update(ctx, func(tx Tx) error {
		c := v
		if err := tx.InsertVCenter(ctx, &c); err != nil {
			return err
		}
		if _, err := syncJob(ctx, tx, c); err != nil {
			return err
		}
		done = c
		return nil
	})
	if err != nil {
		return VCenter{}, fmt.Errorf("create vcenter %q: %w", v.Name, err)
	}
	p.wake()
	return done, nil
}

// logIn learns the identity of the vcenter, so that a wrong password is
// refused where it is given.
func (p *Planner) logIn(ctx context.Context, v *VCenter) error {
	if p.VSphere == nil {
		return nil
	}
	s, err := p.VSphere.Connect(ctx, *v)
	if err != nil {
		return err
	}
	uuid, api := s.About()
	if v.InstanceUUID != "" && v.InstanceUUID != uuid {
		return Errorf(Conflict, "endpoint", "%s is another vCenter (%s) than the one whose images are kept here (%s). Add it as a vcenter of its own; if this one was rebuilt, re-bind its VMs then: kura vcenter rebind.", v.Endpoint, uuid, v.InstanceUUID)
	}
	v.InstanceUUID, v.APIVersion = uuid, api
	return nil
}

// UpdateVCenter stores v; an empty password keeps the stored one. A smaller
// capacity drops nothing that is booked. Errors: as of CreateVCenter, Stale.
func (p *Planner) UpdateVCenter(ctx context.Context, v VCenter) (VCenter, error) {
	v = v.Defaulted()
	if err := v.Validate(); err != nil {
		return VCenter{}, err
	}
	var old VCenter
	err := p.Store.View(ctx, func(tx Tx) (err error) {
		old, err = tx.VCenter(ctx, v.ID)
		return err
	})
	if err != nil {
		return VCenter{}, err
	}
	if v.Password == "" {
		v.Password = old.Password
	}
	if v.Version == 0 {
		v.Version = old.Version
	}
	v.Project, v.CreatedAt = old.Project, old.CreatedAt
	v.InstanceUUID, v.APIVersion, v.SyncState, v.SyncError, v.SyncedAt = old.InstanceUUID, old.APIVersion, old.SyncState, old.SyncError, old.SyncedAt
	access := v.Endpoint != old.Endpoint || v.Username != old.Username || v.Password != old.Password || v.Thumbprint != old.Thumbprint || v.CACertificate != old.CACertificate
	if access {
		if err := p.logIn(ctx, &v); err != nil {
			return VCenter{}, fmt.Errorf("update vcenter %q: %w", v.Name, err)
		}
	}
	var done VCenter
	err = p.Store.Update(ctx, func(tx Tx) error {
		c := v
		if err := tx.UpdateVCenter(ctx, &c); err != nil {
			return err
		}
		if access || v.Transport != old.Transport { // what can be protected depends on both
			if _, err := syncJob(ctx, tx, c); err != nil {
				return err
			}
		}
		done = c
		return nil
	})
	if err != nil {
		return VCenter{}, fmt.Errorf("update vcenter %q: %w", v.Name, err)
	}
	p.wake()
	return done, nil
}

// DeleteVCenter forgets a vcenter. Errors: NotFound, InUse.
func (p *Planner) DeleteVCenter(ctx context.Context, id string) error {
	return p.Store.Update(ctx, func(tx Tx) error { return tx.DeleteVCenter(ctx, id) })
}

// SyncVCenter asks for the inventory to be read now (seed W22) and returns the
// job. One that is waiting already is returned as it is; one that runs may have
// passed what is asked for, so another one waits behind it.
func (p *Planner) SyncVCenter(ctx context.Context, id string) (Job, error) {
	var j Job
	err := p.Store.Update(ctx, func(tx Tx) error {
		v, err := tx.VCenter(ctx, id)
		if err != nil {
			return err
		}
		j, err = syncJob(ctx, tx, v)
		return err
	})
	if err == nil {
		p.wake()
	}
	return j, err
}

func syncJob(ctx context.Context, tx Tx, v VCenter) (Job, error) {
	active, _, err := tx.Jobs(ctx, JobFilter{Kind: KindSync, VCenterID: v.ID, Active: true, Page: Page{Limit: 1}})
	if err != nil {
		return Job{}, err
	}
	if len(active) > 0 && active[0].State == JobQueued {
		return active[0], nil
	}
	j := newJob(tx.Now(), KindSync)
	j.VCenterID = v.ID
	j.Needs = []string{reachVCenter(v)}
	j.Keys = []JobKey{{Name: "sync:" + v.ID, Weight: 1, Max: 1}}
	return j, tx.InsertJob(ctx, j)
}
