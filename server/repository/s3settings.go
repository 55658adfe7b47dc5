package repository

import (
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// The settings of a KindS3.
const (
	s3Endpoint  = "endpoint" // host or host:port
	s3Bucket    = "bucket"
	s3Prefix    = "prefix" // before the names of all blobs; ends with a slash
	s3Region    = "region"
	s3AccessKey = "access_key_id"
	s3SecretKey = "secret_access_key"
	s3Token     = "session_token"
	s3CA        = "ca_certificate" // PEM; beside the system's own
	s3TLS       = "tls"            // "false" speaks in clear
	// The storage's own lock of what is written, and for how many days.
	s3LockMode = "lock_mode" // governance or compliance
	s3LockDays = "lock_days"
)

const (
	// minLockDays leaves a day between an extension and the end of a lock.
	minLockDays = 2
	maxLockDays = 36500
)

func checkS3(settings map[string]string) error {
	err := known(settings, []string{s3Endpoint, s3Bucket, s3AccessKey, s3SecretKey},
		[]string{s3Prefix, s3Region, s3Token, s3CA, s3TLS, s3LockMode, s3LockDays})
	if err != nil {
		return err
	}
	invalid := func(name, format string, args ...any) error {
		return backup.Errorf(backup.Invalid, "settings."+name, format, args...)
	}
	endpoint := settings[s3Endpoint]
	if strings.Contains(endpoint, "/") {
		return invalid(s3Endpoint, "The endpoint %q is to be a host, or host:port, without https:// and path.", endpoint)
	}
	if p := settings[s3Prefix]; p != "" && (!strings.HasSuffix(p, "/") || strings.HasPrefix(p, "/")) {
		return invalid(s3Prefix, `The prefix %q must end with a slash and not begin with one, such as "kura/".`, p)
	}
	if v := settings[s3TLS]; v != "" && v != "true" && v != "false" {
		return invalid(s3TLS, "The setting tls is true or false, got %q.", v)
	}
	if ca := settings[s3CA]; ca != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(ca)) {
		return invalid(s3CA, "The CA certificate is not in PEM form: it must hold a BEGIN CERTIFICATE line.")
	}
	for _, name := range []string{s3AccessKey, s3SecretKey, s3Token} {
		if err := checkReference(settings, name); err != nil {
			return err
		}
	}
	_, err = lockOf(settings)
	return err
}

// lock is how long the storage itself refuses to delete what was written.
type lock struct {
	mode   blob.RetentionMode // "" = no lock
	period time.Duration
}

func lockOf(settings map[string]string) (lock, error) {
	mode, days := settings[s3LockMode], settings[s3LockDays]
	if mode == "" && days == "" {
		return lock{}, nil
	}
	modes := map[string]blob.RetentionMode{"governance": blob.Governance, "compliance": blob.Compliance}
	if modes[mode] == "" {
		return lock{}, backup.Errorf(backup.Invalid, "settings."+s3LockMode,
			"The lock mode is governance or compliance, got %q.", mode)
	}
	n, err := strconv.Atoi(days)
	if err != nil || n < minLockDays || n > maxLockDays {
		return lock{}, backup.Errorf(backup.Invalid, "settings."+s3LockDays,
			"The lock lasts %d to %d days, got %q.", minLockDays, maxLockDays, days)
	}
	return lock{modes[mode], time.Duration(n) * 24 * time.Hour}, nil
}

func s3Place(settings map[string]string) place {
	at := place{
		name:  fmt.Sprintf("s3://%s/%s/%s", settings[s3Endpoint], settings[s3Bucket], settings[s3Prefix]),
		noun:  "bucket",
		field: "settings." + s3Prefix,
		connect: []string{
			"s3", "--endpoint", quote(settings[s3Endpoint]), "--bucket", quote(settings[s3Bucket]),
		},
	}
	at.name = strings.TrimSuffix(at.name, "/")
	add := func(args ...string) { at.connect = append(at.connect, args...) }
	if p := settings[s3Prefix]; p != "" {
		add("--prefix", quote(p))
	}
	if r := settings[s3Region]; r != "" {
		add("--region", quote(r))
	}
	if settings[s3TLS] == "false" {
		add("--disable-tls")
	}
	return at
}
