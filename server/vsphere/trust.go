package vsphere

import (
	"context"
	"crypto/sha1" // what vCenter states of its hosts' certificates may be SHA-1
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// trust decides which certificates are good: the pinned one of the vcenter,
// those that the vcenter vouches for (its hosts', named in leases), and for
// the rest the given authorities or the system's.
type trust struct {
	authorities *x509.CertPool // nil = the system's
	timeout     time.Duration

	own  string            // host:port of the vcenter itself
	mu   sync.Mutex        // guards pins
	pins map[string]string // host:port -> digest of the only good certificate
}

func newTrust(v backup.VCenter, host string, timeout time.Duration) (*trust, error) {
	t := &trust{own: host, timeout: timeout, pins: map[string]string{}}
	if v.CACertificate != "" {
		t.authorities = x509.NewCertPool()
		if !t.authorities.AppendCertsFromPEM([]byte(v.CACertificate)) {
			return nil, backup.Errorf(backup.Invalid, "ca_certificate", "ca_certificate holds no certificate in PEM form.")
		}
	}
	if v.Thumbprint != "" {
		pin := digest(v.Thumbprint)
		if b, err := hex.DecodeString(pin); err != nil || len(b) != sha256.Size {
			return nil, backup.Errorf(backup.Invalid, "thumbprint",
				"thumbprint must be a SHA-256 digest of %d hexadecimal digits, with or without colons, got %q.", 2*sha256.Size, v.Thumbprint)
		}
		t.pins[host] = pin
	}
	return t, nil
}

// pin notes what a lease says of a host's certificate. It says nothing about the vcenter's own.
func (t *trust) pin(host, thumbprint string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	host = withPort(host)
	if host != t.own && thumbprint != "" {
		t.pins[host] = digest(thumbprint)
	}
}

// dial makes a TLS connection. govmomi's own ignores the context.
func (t *trust) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	t.mu.Lock()
	pin := t.pins[addr]
	t.mu.Unlock()
	c := &tls.Config{ServerName: host, RootCAs: t.authorities, MinVersion: tls.VersionTLS12}
	if pin != "" {
		// The pin alone decides: it names one certificate.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(s tls.ConnectionState) error { return matches(pin, addr, s) }
	}
	conn := tls.Client(raw, c)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(bad.UnverifiedCertificates) > 0 {
			return nil, &untrusted{host: addr, presented: thumbprint(bad.UnverifiedCertificates[0]), cause: bad.Err}
		}
		return nil, err
	}
	return conn, nil
}

func matches(pin, addr string, s tls.ConnectionState) error {
	leaf := s.PeerCertificates[0]
	long, short := sha256.Sum256(leaf.Raw), sha1.Sum(leaf.Raw)
	if pin == hex.EncodeToString(long[:]) || pin == hex.EncodeToString(short[:]) {
		return nil
	}
	return &untrusted{host: addr, presented: thumbprint(leaf), pinned: true}
}

// untrusted is a certificate that is not good.
type untrusted struct {
	host, presented string
	pinned          bool
	cause           error
}

func (u *untrusted) Error() string {
	return fmt.Sprintf("certificate of %s with SHA-256 thumbprint %s is not trusted", u.host, u.presented)
}

func (u *untrusted) Unwrap() error { return u.cause }

// problem tells the user what the peer showed and what to do about it.
func (u *untrusted) problem() *backup.Error {
	if u.pinned {
		return backup.Errorf(backup.VCenterDenied, "thumbprint",
			"%s presents a certificate with the SHA-256 thumbprint %s, which is not the pinned one. If its certificate was renewed, set thumbprint to the new one; if not, someone may stand in between.",
			u.host, u.presented).Because(u)
	}
	return backup.Errorf(backup.VCenterDenied, "thumbprint",
		"The certificate of %s is not trusted (%v). Its SHA-256 thumbprint is %s: if the server itself shows the same, set thumbprint = %q, or give the issuer's certificate as ca_certificate.",
		u.host, u.cause, u.presented, u.presented).Because(u)
}

// thumbprint is a certificate's SHA-256 digest as vSphere writes it.
func thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(pairs, ":")
}

// digest is a thumbprint without case and colons.
func digest(thumbprint string) string {
	return strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(thumbprint))
}

func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), "443")
}
