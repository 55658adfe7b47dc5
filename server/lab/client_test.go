package lab_test

import (
	"context"
	"net/url"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
)

// newClient logs in over a soap client that knows the lab's certificate.
func newClient(ctx context.Context, s *soap.Client, user, password string) (*govmomi.Client, error) {
	v, err := vim25.NewClient(ctx, s)
	if err != nil {
		return nil, err
	}
	c := &govmomi.Client{Client: v, SessionManager: session.NewManager(v)}
	return c, c.Login(ctx, url.UserPassword(user, password))
}
