package repository

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// The settings of a KindWebDAV.
const (
	davURL      = "url" // of the folder
	davUser     = "username"
	davPassword = "http_password" // of that user
	davCA       = "ca_certificate"
)

func checkWebDAV(settings map[string]string) error {
	if err := known(settings, []string{davURL}, []string{davUser, davPassword, davCA}); err != nil {
		return err
	}
	u, err := url.Parse(settings[davURL])
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return backup.Errorf(backup.Invalid, "settings."+davURL,
			"The URL %q is to be one of a folder, such as https://dav.example.com/kura.", settings[davURL])
	}
	if u.User != nil {
		return backup.Errorf(backup.Invalid, "settings."+davURL, "The URL holds a user: set username and http_password instead, which are kept sealed.")
	}
	if ca := settings[davCA]; ca != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(ca)) {
		return backup.Errorf(backup.Invalid, "settings."+davCA, "The CA certificate is not in PEM form: it must hold a BEGIN CERTIFICATE line.")
	}
	return checkReference(settings, davPassword)
}

func davPlace(settings map[string]string) place {
	name := strings.TrimSuffix(settings[davURL], "/")
	at := place{name: name, noun: "folder", field: "settings." + davURL, connect: []string{"webdav", "--url", quote(name)}}
	if user := settings[davUser]; user != "" {
		at.connect = append(at.connect, "--webdav-username", quote(user)) // the password comes by KOPIA_WEBDAV_PASSWORD
	}
	return at
}

// trusting is a transport that trusts one more certificate, given as PEM.
func trusting(ca string) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = connections
	if ca == "" {
		return t
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pool.AppendCertsFromPEM([]byte(ca))
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.TLSClientConfig.RootCAs = pool
	return t
}
