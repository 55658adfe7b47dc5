package vsphere

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/sync/errgroup"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

var _ backup.Surveyor = (*Connector)(nil)

// Survey implements [backup.Surveyor]. It reads; nothing in the vcenter is changed.
func (c *Connector) Survey(ctx context.Context, v backup.VCenter) backup.Survey {
	out := backup.Survey{Endpoint: v.Endpoint}
	if u, err := url.Parse(v.Endpoint); err == nil && u.Host != "" {
		out.Endpoint = u.Host
		out.Certificate = c.inspect(ctx, v, withPort(u.Host))
	}
	opened, err := c.Connect(ctx, v)
	if err != nil {
		c.config.Log.WarnContext(ctx, "vcenter cannot be surveyed", "vcenter", v.Name, "error", err)
		out.Problem = err
		return out
	}
	s, ok := opened.(*Session)
	if !ok {
		out.Problem = fmt.Errorf("survey %s: a session of another kind", v.Name)
		return out
	}
	s.examine(ctx, &out)
	return out
}

// inspect reads the certificate that a host shows and says by what it is
// trusted. Nothing is sent to it.
func (c *Connector) inspect(ctx context.Context, v backup.VCenter, host string) backup.SurveyedCertificate {
	ctx, cancel := context.WithTimeout(ctx, c.config.DialTimeout)
	defer cancel()
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return backup.SurveyedCertificate{}
	}
	// The handshake is made to look at the certificate, and the connection is closed.
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: name, MinVersion: tls.VersionTLS12}}
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return backup.SurveyedCertificate{}
	}
	defer func() { _ = conn.Close() }() // it was only looked at
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	out := backup.SurveyedCertificate{Thumbprint: thumbprint(chain[0]), NotAfter: chain[0].NotAfter}
	t, err := newTrust(v, host, c.config.DialTimeout)
	switch {
	case err != nil:
	case v.Thumbprint != "":
		if matches(t.pins[host], host, conn.(*tls.Conn).ConnectionState()) == nil {
			out.Trust = "pinned"
		}
	default:
		rest := x509.NewCertPool()
		for _, more := range chain[1:] {
			rest.AddCert(more)
		}
		if _, err := chain[0].Verify(x509.VerifyOptions{DNSName: name, Roots: t.authorities, Intermediates: rest}); err == nil {
			out.Trust = map[bool]string{true: "system", false: "ca"}[t.authorities == nil]
		}
	}
	return out
}

// examine reads what the doctor judges. A part that cannot be read is said and
// keeps nothing else from being read.
func (s *Session) examine(ctx context.Context, out *backup.Survey) {
	out.InstanceUUID, out.APIVersion = s.About()
	out.Product = s.about.FullName
	unread := func(what string, err error) {
		if err == nil || ctx.Err() != nil {
			return
		}
		s.log.WarnContext(ctx, "part of a survey not read", "part", what, "error", err)
		reason := "see the server's log"
		if e := backup.AsError(s.problem("read "+what, err)); e != nil {
			reason = strings.TrimSuffix(e.Message, ".")
		}
		out.Unread = append(out.Unread, fmt.Sprintf("It was not read %s: %s.", what, reason))
	}
	clock, err := s.clock(ctx)
	out.Clock = clock
	unread("what time it is there", err)
	t, err := s.site(ctx)
	if err != nil {
		unread("which hosts and datastores there are", err)
		return
	}
	out.Hosts, err = s.surveyHosts(ctx)
	unread("how the hosts stand", err)
	out.Datastores, err = s.surveyDatastores(ctx)
	unread("how the datastores stand", err)
	out.VMs, err = s.surveyVMs(ctx)
	unread("how the VMs stand", err)
	out.Privileges, err = s.missingPrivileges(ctx, t, out.VMs)
	unread("which privileges the account has", err)
}

// clock reads the vCenter's clock between two looks at our own.
func (s *Session) clock(ctx context.Context) (backup.SurveyedClock, error) {
	return readClock(s.config.Now, func() (time.Time, error) {
		at, err := methods.GetCurrentTime(ctx, s.client)
		if err != nil || at == nil {
			return time.Time{}, err
		}
		return *at, nil
	})
}

func readClock(now func() time.Time, ask func() (time.Time, error)) (backup.SurveyedClock, error) {
	asked, began := now(), time.Now()
	at, err := ask()
	if err != nil || at.IsZero() {
		return backup.SurveyedClock{}, err
	}
	half := time.Since(began) / 2
	return backup.SurveyedClock{Read: true, Ahead: at.Sub(asked.Add(half)), Give: half}, nil
}

// askedPrivileges is how many objects one call asks about, and privilegedVMs of
// how many VMs at the most.
const (
	askedPrivileges = 250
	privilegedVMs   = 2000
)

// missingPrivileges asks for each privilege on the objects that it is wanted on.
func (s *Session) missingPrivileges(ctx context.Context, t *site, vms []backup.SurveyedVM) ([]backup.PrivilegeMissing, error) {
	key, err := s.sessionKey(ctx)
	if err != nil {
		return nil, err
	}
	root := s.client.ServiceContent.RootFolder
	objects := map[string][]ref{onRoot: {root}, onPool: t.pools}
	names := map[ref]string{root: "the root folder"}
	for r := range t.places {
		if strings.Contains(r.Type, "Network") || r.Type == "DistributedVirtualPortgroup" {
			objects[onNetwork] = append(objects[onNetwork], r)
		}
		if name := t.path(r); name != "" {
			names[r] = name
		}
	}
	for _, d := range t.stores {
		objects[onDatastore] = append(objects[onDatastore], d.Self)
	}
	for _, vm := range vms[:min(len(vms), privilegedVMs)] {
		objects[onVM] = append(objects[onVM], vmRef(vm.MOID))
		names[vmRef(vm.MOID)] = vm.Name
	}
	lacks, err := s.lacks(ctx, key, objects)
	if err != nil {
		return nil, err
	}
	var missing []backup.PrivilegeMissing
	for _, p := range Privileges() {
		if where := lacks[p.ID]; len(where) > 0 {
			m := backup.PrivilegeMissing{Privilege: p, Looked: len(objects[p.On])}
			for _, r := range where {
				m.Objects = append(m.Objects, names[r])
			}
			missing = append(missing, m)
		}
	}
	return missing, nil
}

// lacks tells by privilege on which of the objects it is lacked.
func (s *Session) lacks(ctx context.Context, key string, objects map[string][]ref) (map[string][]ref, error) {
	wanted := map[string][]string{}
	for _, p := range Privileges() {
		wanted[p.On] = append(wanted[p.On], p.ID)
	}
	out := map[string][]ref{}
	for _, kind := range sortedKeys(wanted) {
		for from := 0; from < len(objects[kind]); from += askedPrivileges {
			res, err := methods.HasPrivilegeOnEntities(ctx, s.client, &types.HasPrivilegeOnEntities{
				This: *s.client.ServiceContent.AuthorizationManager, SessionId: key, PrivId: wanted[kind],
				Entity: objects[kind][from:min(from+askedPrivileges, len(objects[kind]))],
			})
			if err != nil {
				return nil, err
			}
			for _, e := range res.Returnval {
				for _, a := range e.PrivAvailability {
					if !a.IsGranted {
						out[a.PrivId] = append(out[a.PrivId], e.Entity)
					}
				}
			}
		}
	}
	return out, nil
}

// reachHosts tries the addresses of hosts, some at a time.
func (s *Session) reachHosts(ctx context.Context, hosts []backup.SurveyedHost) {
	var g errgroup.Group
	g.SetLimit(hostsAtOnce)
	for i := range hosts {
		h := &hosts[i]
		if h.State != "connected" || h.Maintenance {
			continue
		}
		g.Go(func() error {
			h.Problem = s.tryHost(ctx, h.Address)
			return nil
		})
	}
	_ = g.Wait() // what a host has against it stands with the host
}

const hostsAtOnce = 16

// tryHost says why no connection comes about; "" = one does.
func (s *Session) tryHost(ctx context.Context, address string) string {
	ctx, cancel := context.WithTimeout(ctx, s.config.DialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close() // it was only tried
		return ""
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return "the name " + dns.Name + " does not resolve here"
	}
	if ctx.Err() != nil {
		return fmt.Sprintf("there was no answer within %s", s.config.DialTimeout)
	}
	return "the connection was refused or cut"
}
