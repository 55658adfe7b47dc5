package repository

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
)

// fullCodes are what storages answer when a disk or a quota is used up.
var fullCodes = map[string]bool{
	"QuotaExceeded": true, "XMinioStorageFull": true, "XMinioAdminBucketQuotaExceeded": true, "InsufficientStorage": true,
}

// s3Reasons say what users can do about an answer that does not change.
var s3Reasons = map[string]string{
	"InvalidAccessKeyId":    "it does not know the access key; check access_key_id",
	"SignatureDoesNotMatch": "it does not accept the secret key; check secret_access_key",
	"ExpiredToken":          "the session token has expired; set a new session_token",
	"InvalidToken":          "it does not accept the session token; check session_token",
	"NoSuchBucket":          "there is no such bucket; check bucket and endpoint",
	"RequestTimeTooSkewed":  "the clocks of this server and the storage differ; set them right",
}

// translate makes of an answer what kopia and our patience understand.
func (s *s3Store) translate(err error) error {
	if err == nil {
		return nil
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return &trouble{"its certificate is not trusted; set ca_certificate to the CA that signed it", true, err}
	}
	var a minio.ErrorResponse
	if !errors.As(err, &a) {
		return err
	}
	if fullCodes[a.Code] || a.StatusCode == http.StatusInsufficientStorage {
		return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	}
	if reason, ok := s3Reasons[a.Code]; ok {
		return &trouble{reason, true, err}
	}
	switch {
	case a.StatusCode == http.StatusNotFound && (a.Code == minio.NoSuchKey || a.Code == "NotFound"):
		return fmt.Errorf("%w: %w", blob.ErrBlobNotFound, err)
	case a.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %w", blob.ErrInvalidRange, err)
	case passing(a):
		return err
	}
	return &trouble{fmt.Sprintf("it answers %s: %s", a.Code, a.Message), true, err}
}

// passing says whether an answer may be another one soon.
func passing(a minio.ErrorResponse) bool {
	switch a.Code {
	case "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "OperationAborted":
		return true
	case "BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch": // damaged on the way
		return true
	}
	return a.StatusCode == 0 || a.StatusCode >= 500 || a.StatusCode == http.StatusTooManyRequests || a.StatusCode == http.StatusRequestTimeout
}

// countedTransport counts requests by what they do.
type countedTransport struct {
	http.RoundTripper
	calls *calls
}

// RoundTrip implements [http.RoundTripper].
func (t countedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	kind, q := r.Method, r.URL.Query()
	switch {
	case q.Has("list-type"):
		kind = "LIST"
	case q.Has("retention"):
		kind += " retention"
	}
	t.calls.add(kind)
	return t.RoundTripper.RoundTrip(r)
}
