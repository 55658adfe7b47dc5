// Package s3test runs a throw-away S3 server for tests, with a way to it on
// which requests can be slow, fail or hang. It is in no program that is
// shipped, and knows nothing of what is stored.
package s3test

import (
	"bytes"
	"context"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The server's only user.
const (
	User = "kura-test"
	Pass = "kura-test-secret" // #nosec G101 -- of a server that lives as long as a test
)

// TB is what of testing.TB is needed here.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
	TempDir() string
}

// Bucket is an empty bucket on a server of its own.
type Bucket struct {
	*Road
	Name     string
	Settings map[string]string // of a repository in it
	Client   *minio.Client
}

// New starts a server and makes a bucket, with object lock if asked. Both end
// with the test.
func New(t TB, locks bool) *Bucket {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("start an S3 server: %v", err)
		}
	}
	program, err := Program("versitygw")
	check(err)
	dir := t.TempDir()
	data, versions := filepath.Join(dir, "data"), filepath.Join(dir, "versions")
	check(os.Mkdir(data, 0o700))
	check(os.Mkdir(versions, 0o700))
	short, err := os.MkdirTemp("", "kura-s3-") // a test's folder has a longer name than sockets may have
	check(err)
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	socket := filepath.Join(short, "s")
	c := exec.CommandContext(context.WithoutCancel(t.Context()), program, "--port", socket, "--access", User, "--secret", Pass, "--quiet", "posix", "--versioning-dir", versions, data) // #nosec G204 -- our own words
	said := &lines{}
	c.Stdout, c.Stderr = said, said
	check(c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	r := &Road{}
	front := NewFront(r, toSocket(socket))
	t.Cleanup(front.Close)
	host := front.Listener.Addr().String()
	b := &Bucket{Road: r, Name: "images", Settings: map[string]string{
		"endpoint": host, "bucket": "images", "prefix": "site-1/", "region": "us-east-1", "access_key_id": User, "secret_access_key": Pass,
		"ca_certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})),
	}}
	b.Client, err = minio.New(host, &minio.Options{
		Creds: credentials.NewStaticV4(User, Pass, ""), Secure: true, Region: "us-east-1", Transport: front.Client().Transport,
	})
	check(err)
	for end := time.Now().Add(time.Minute); ; { // it does not say when it listens
		err := b.Client.MakeBucket(t.Context(), b.Name, minio.MakeBucketOptions{ObjectLocking: locks})
		if err == nil {
			return b
		}
		if time.Now().After(end) {
			t.Fatalf("make a bucket: %v; the server says %s", err, said)
		}
	}
}

// lines keeps what a program says.
type lines struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
