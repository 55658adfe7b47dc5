package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	vapi "github.com/vmware/govmomi/vapi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// listen opens the port and makes the certificate. vcsim's own server would
// have the same certificate in every lab, and no way to stop cleanly.
func (l *Lab) listen() (err error) {
	cert, err := selfSigned(l.config.CertificateDays)
	if err != nil {
		return fmt.Errorf("make the lab's certificate: %w", err)
	}
	l.cert = cert.Leaf
	if l.listener, err = new(net.ListenConfig).Listen(context.Background(), "tcp", l.config.Listen); err != nil {
		return fmt.Errorf("listen for the lab: %w", err)
	}
	l.server = &http.Server{
		Handler: http.HandlerFunc(l.serve), TLSConfig: tlsConfig(cert), ReadHeaderTimeout: time.Minute,
		ErrorLog: stdlog.New(io.Discard, "", 0),
	}
	l.work.Go(func() {
		// It always ends in an error: that of Close.
		_ = l.server.ServeTLS(l.listener, "", "")
	})
	return nil
}

func selfSigned(days int) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "kura lab"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, days),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// connect puts vcsim's handlers behind the lab's server.
func (l *Lab) connect() error {
	s := l.service
	s.Listen = l.URL()
	s.ServeMux = http.NewServeMux()
	s.RegisterSDK(l.registry(), l.registry().Path+"/vimService")
	s.ServeMux.HandleFunc(l.registry().Path+"/vimServiceVersions.xml", s.ServiceVersions)
	patterns, h := vapi.New(s.Listen, l.registry())
	for _, p := range patterns {
		s.Handle(p, h)
	}
	l.vapi = h
	m := l.registry().OptionManager()
	public := *s.Listen
	public.User = nil
	m.UpdateOptions(&types.UpdateOptions{ChangedValue: []types.BaseOptionValue{
		&types.OptionValue{Key: "vcsim.server.url", Value: public.String()},
	}})
	l.registry().SessionManager().ServiceHostName = s.Listen.Host
	l.registry().Put(&router{Self: routerRef, l: l})
	l.registry().Handler = l.handle
	if err := l.offerPolicies(); err != nil {
		return err
	}
	return l.furnishHosts()
}

// serve is the way in of every request.
func (l *Lab) serve(w http.ResponseWriter, r *http.Request) {
	if f := l.faults.take("http_503", ref{}, "", true); f != nil {
		l.pause(f.Delay)
		http.Error(w, "asked of the lab", http.StatusServiceUnavailable)
		return
	}
	if f := l.faults.take("session_expire", ref{}, "", true); f != nil {
		l.ExpireSessions()
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/folder/"):
		l.serveFolder(w, r)
	case strings.HasPrefix(r.URL.Path, leasePath):
		l.serveLease(w, r)
	case strings.HasPrefix(r.URL.Path, "/sdk"):
		l.showSpace()
		l.serveSDK(w, r)
	case !l.sessions.restAlive(r):
		http.Error(w, "the session has expired", http.StatusUnauthorized)
	default:
		l.service.ServeMux.ServeHTTP(w, r)
	}
}

// serveFolder gives and takes files of a datastore.
func (l *Lab) serveFolder(w http.ResponseWriter, r *http.Request) {
	if !l.sessions.authorized(l, r) {
		http.Error(w, "log in first", http.StatusUnauthorized)
		return
	}
	p := object.DatastorePath{Datastore: r.URL.Query().Get("dsName"), Path: strings.TrimPrefix(path.Clean(r.URL.Path), "/folder/")}
	name, err := l.store.local(p.String())
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	vm, _ := l.index.in(folderOf(p.String()))
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		l.sendFile(w, r, p, name)
	case http.MethodPut, http.MethodPost:
		if vm.PowerState == string(types.VirtualMachinePowerStatePoweredOn) {
			http.Error(w, "the file is locked by a running VM", http.StatusInternalServerError)
			return
		}
		if err := saveFile(name, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusCreated)
	default:
		http.Error(w, "GET, HEAD or PUT", http.StatusMethodNotAllowed)
	}
}

// sendFile serves a file. The flat file of a disk is served only where ESXi
// would: nobody writes to it and it is a base.
func (l *Lab) sendFile(w http.ResponseWriter, r *http.Request, p object.DatastorePath, name string) {
	counted := &counter{ResponseWriter: w, total: &l.traffic}
	descriptor := strings.TrimSuffix(p.String(), "-flat.vmdk") + ".vmdk"
	if k := l.store.get(descriptor); k != nil && strings.HasSuffix(p.Path, "-flat.vmdk") {
		k.disk.mu.RLock()
		frozen, size := len(k.kids()) > 0 || k.parent != nil, k.disk.capacity
		k.disk.mu.RUnlock()
		if vm, _ := l.index.owner(descriptor); frozen || vm.PowerState == string(types.VirtualMachinePowerStatePoweredOn) {
			http.Error(w, "the file is locked", http.StatusInternalServerError)
			return
		}
		http.ServeContent(counted, r, "", time.Time{}, io.NewSectionReader(k, 0, size))
		return
	}
	f, err := os.Open(name)
	if err != nil {
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	defer func() { _ = f.Close() }() // it was only read
	if st, err := f.Stat(); err != nil || st.IsDir() {
		http.Error(w, "not a file", http.StatusNotFound)
		return
	}
	http.ServeContent(counted, r, "", time.Time{}, f)
}

func saveFile(name string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("save file: %w", err)
	}
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("save file: %w", err)
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("save file: %w", err)
	}
	return nil
}

// showSpace brings the datastores' free space up to date before somebody looks.
func (l *Lab) showSpace() {
	for _, sp := range l.store.spaces {
		used := sp.used.Load()
		if sp.shown.Load() != used && l.refreshSpace(sp) {
			sp.shown.Store(used)
		}
	}
}

// leaseURL is where a lease's disk is.
func (l *Lab) leaseURL(ticket, name string) string {
	u := url.URL{Scheme: "https", Host: l.host(), Path: leasePath + ticket + "/" + name}
	return u.String()
}
