package main

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"strconv"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type vcenterCmd struct {
	List   vcenterList   `cmd:"" help:"List the vcenters."`
	Show   vcenterShow   `cmd:"" help:"Show a vcenter."`
	Create vcenterCreate `cmd:"" help:"Add a vcenter; its password comes from a file or stdin."`
	Sync   vcenterSync   `cmd:"" help:"Read the inventory now."`
	Rebind vcenterRebind `cmd:"" help:"Give the VMs of a vcenter that was rebuilt, or that moved, their places in another vcenter."`
	Delete vcenterDelete `cmd:"" help:"Remove a vcenter. Refused while groups, schedules or images name it."`
}

func vcenterNoun(ctx context.Context, c *api.ClientWithResponses) noun {
	return noun{
		what: "vcenter",
		get:  func(id string) (answer, error) { return c.GetVCenterWithResponse(ctx, id) },
		list: func(name, cursor string) (answer, error) {
			return c.ListVCentersWithResponse(ctx, &api.ListVCentersParams{Name: name, Limit: pageSize, Cursor: cursor})
		},
		hint: "kura vcenter list shows all.",
	}
}

func allVCenters(ctx context.Context, c *api.ClientWithResponses) ([]json.RawMessage, error) {
	return collect(0, func(cursor string) (answer, error) { return vcenterNoun(ctx, c).list("", cursor) })
}

// vcenterID returns the id of what a flag names, "" for a flag that is empty.
func vcenterID(ctx context.Context, c *api.ClientWithResponses, ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	o, err := find(vcenterNoun(ctx, c), ref)
	return o.ID, err
}

type vcenterList struct{}

// Run lists the vcenters.
func (*vcenterList) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	items, err := allVCenters(ctx, c)
	if err != nil {
		return err
	}
	return showAll(s, "vcenters", items, []string{"NAME", "ENDPOINT", "SYNC", "INVENTORY OF", "SEATS", "TIME ZONE", "ID"}, func(v api.VCenter) []string {
		return []string{v.Name, v.Endpoint, string(v.SyncState), when(v.InventorySyncedAt), strconv.Itoa(v.SlotCapacity), v.TimeZone, v.ID}
	})
}

type vcenterShow struct {
	Name string `arg:"" help:"Name or id."`
}

// Run shows a vcenter.
func (v *vcenterShow) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(vcenterNoun(ctx, c), v.Name)
	if err != nil {
		return err
	}
	return showOne(s, o.raw, vcenterRecord)
}

func vcenterRecord(v api.VCenter) (r record) {
	r.add("name", v.Name)
	r.add("id", v.ID)
	r.add("endpoint", v.Endpoint)
	r.add("username", v.Username)
	r.add("thumbprint", v.Thumbprint)
	r.add("time zone", v.TimeZone)
	r.add("seats per hour", strconv.Itoa(v.SlotCapacity))
	if l := v.Limits; l != nil {
		r.add("disks per host", strconv.Itoa(l.DisksPerHost))
		r.add("disks at once", strconv.Itoa(l.Disks))
		r.add("jobs per datastore", strconv.Itoa(l.JobsPerDatastore))
		r.add("restores per pool", strconv.Itoa(l.RestoresPerPool))
	}
	r.add("transport", string(v.Transport))
	r.add("vSphere API", v.APIVersion)
	r.add("instance uuid", v.InstanceUUID)
	r.add("sync", string(v.SyncState))
	r.add("sync error", v.SyncError)
	r.add("inventory of", cmp.Or(when(v.InventorySyncedAt), "never"))
	for _, m := range v.TagMappings {
		r.add("tag mapping", m.Category+":"+m.Tag+" -> "+m.Key+"="+m.Value)
	}
	r.add("created", when(v.CreatedAt))
	for _, w := range v.Warnings {
		r.add("warning", w)
	}
	return r
}

type vcenterCreate struct {
	Name         string `arg:"" help:"Name for it."`
	URL          string `arg:"" name:"url" help:"Such as https://vcenter.example.com."`
	Username     string `required:"" help:"User to log in as."`
	PasswordFile string `as:"FILE" default:"-" help:"File that holds the password; - is stdin."`
	Thumbprint   string `as:"HEX" help:"SHA-256 of its certificate."`
	Authority    string `as:"FILE" help:"PEM file of the authority that signed its certificate."`
	TimeZone     string `as:"ZONE" help:"What its schedules take when they name none, such as Asia/Tokyo; default UTC."`
	SeatsPerHour int    `as:"N" help:"Backups that may be booked for one hour; default as the server is set."`
	Wait         bool   `help:"Wait until the inventory is read."`
}

// Help is shown below the command's first line.
func (*vcenterCreate) Help() string {
	return examples("kura vcenter create tokyo https://vcenter.example.com --username kura@vsphere.local --password-file pw --wait",
		"pass vcenter | kura vcenter create tokyo https://vcenter.example.com --username kura@vsphere.local")
}

// Run adds a vcenter.
func (v *vcenterCreate) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	password, err := s.readSecret(v.PasswordFile)
	if err != nil {
		return err
	}
	spec := api.VCenter{Name: v.Name, Endpoint: v.URL, Username: v.Username, Password: password, Thumbprint: v.Thumbprint, TimeZone: v.TimeZone, SlotCapacity: v.SeatsPerHour}
	if v.Authority != "" {
		pem, err := s.readFile(v.Authority)
		if err != nil {
			return err
		}
		spec.CACertificate = string(pem)
	}
	raw, err := body(c.CreateVCenterWithResponse(ctx, &api.CreateVCenterParams{IdempotencyKey: newKey()}, spec))
	if err != nil {
		return err
	}
	if v.Wait {
		if raw, err = s.waitInventory(ctx, c, raw); err != nil {
			return err
		}
	}
	return showOne(s, raw, vcenterRecord)
}

// readSecret reads one line. A terminal would show it, so that it has to come
// from a file or a pipe.
func (s *session) readSecret(path string) (string, error) {
	if f, ok := s.stdin.(*os.File); ok && path == "-" && isTerminal(f) {
		return "", usef("Give the password in a file, --password-file FILE, or through a pipe.")
	}
	text, err := s.readFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		return "", usef("The password is empty.")
	}
	return secret, nil
}

// waitInventory waits for the first sync of a vcenter.
func (s *session) waitInventory(ctx context.Context, c *api.ClientWithResponses, raw json.RawMessage) (json.RawMessage, error) {
	for {
		v, err := decode[api.VCenter](raw)
		if err != nil {
			return nil, err
		}
		switch v.SyncState {
		case api.SyncStateReady:
			return raw, nil
		case api.SyncStateFailed:
			return nil, failf("%s was added, but its inventory cannot be read: %s", v.Name, v.SyncError)
		}
		pause(ctx, s.poll)
		if raw, err = body(c.GetVCenterWithResponse(ctx, v.ID)); err != nil {
			return nil, ctxErr(ctx, err)
		}
	}
}

type vcenterSync struct {
	Name string `arg:"" help:"Name or id."`
	Wait bool   `help:"Wait for the end and fail if the sync does."`
}

// Run reads the inventory.
func (v *vcenterSync) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(vcenterNoun(ctx, c), v.Name)
	if err != nil {
		return err
	}
	raw, err := body(c.SyncVCenterWithResponse(ctx, o.ID, &api.SyncVCenterParams{IdempotencyKey: newKey()}))
	if err != nil {
		return err
	}
	return s.jobStarted(ctx, c, raw, v.Wait)
}

type vcenterDelete struct {
	Name string `arg:"" help:"Name or id."`
}

// Run removes a vcenter.
func (v *vcenterDelete) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(vcenterNoun(ctx, c), v.Name)
	if err != nil {
		return err
	}
	if _, err := body(c.DeleteVCenterWithResponse(ctx, o.ID)); err != nil {
		return err
	}
	return s.deleted("vcenter", o)
}

// deleted tells that an object is gone: people by its name, programs by what
// it was.
func (s *session) deleted(what string, o object) error {
	if s.cli.Output == "json" {
		return s.printJSON(o.raw)
	}
	s.say("Deleted %s %s (%s).", what, o.Name, o.ID)
	return nil
}
