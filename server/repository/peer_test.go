package repository_test

import (
	"crypto/ed25519"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/net/webdav"

	"github.com/kura-backup/terraform-provider-kura/server/repository"
	"github.com/kura-backup/terraform-provider-kura/server/repository/s3test"
)

// peer is a real storage and the way to it, on which things go wrong.
type peer struct {
	kind     string
	settings map[string]string
	*s3test.Road
}

// peers makes a storage of each kind.
var peers = map[string]func(testing.TB) peer{
	repository.KindFilesystem: func(t testing.TB) peer {
		return peer{repository.KindFilesystem, map[string]string{"path": filepath.Join(t.TempDir(), "repository")}, &s3test.Road{}}
	},
	repository.KindS3:   func(t testing.TB) peer { return newBucket(t, false).peer },
	repository.KindSFTP: newSSHServer, repository.KindWebDAV: newDAVServer,
}

const (
	s3User = s3test.User
	s3Pass = s3test.Pass
)

// bucket is a peer of the S3 kind.
type bucket struct {
	peer
	cli  *minio.Client
	name string
}

// newBucket starts an S3 server and makes a bucket, with object lock if asked.
func newBucket(t testing.TB, locks bool) *bucket {
	t.Helper()
	b := s3test.New(t, locks)
	return &bucket{peer{repository.KindS3, b.Settings, b.Road}, b.Client, b.Name}
}

const (
	davUser = "kura-test"
	davPass = "kura-test-secret"
)

// newDAVServer is a WebDAV server for one user.
func newDAVServer(t testing.TB) peer {
	t.Helper()
	dav := &webdav.Handler{FileSystem: webdav.Dir(t.TempDir()), LockSystem: webdav.NewMemLS()}
	r := &s3test.Road{}
	front := s3test.NewFront(r, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if user, pass, ok := q.BasicAuth(); !ok || user != davUser || pass != davPass {
			w.Header().Set("WWW-Authenticate", `Basic realm="images"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		dav.ServeHTTP(w, q)
	}))
	t.Cleanup(front.Close)
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // of answers that the road has cut
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}))
	return peer{repository.KindWebDAV, map[string]string{
		"url": front.URL + "/images", "username": davUser, "http_password": davPass, "ca_certificate": ca,
	}, r}
}

// sshRoad is the way to an SSH server: a connection counts as a request, and so
// does each half of a MiB of it.
type sshRoad struct{ *s3test.Road }

// newSSHServer listens for SSH, and starts OpenSSH's server for each connection.
func newSSHServer(t testing.TB) peer {
	t.Helper()
	dir := t.TempDir()
	host, hostKey := newKey(t)
	client, clientKey := newKey(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(0, os.WriteFile(path, []byte(text), 0o600))(t)
		return path
	}
	config := write("sshd_config", strings.Join([]string{
		"HostKey " + write("host_key", hostKey),
		"AuthorizedKeysFile " + write("authorized_keys", string(ssh.MarshalAuthorizedKey(client))),
		"StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin prohibit-password",
		"PidFile none", "Subsystem sftp internal-sftp", "",
	}, "\n"))
	if os.Geteuid() == 0 {
		must(0, os.MkdirAll("/run/sshd", 0o755))(t) // where it locks itself up when it is root
	}
	r := &sshRoad{&s3test.Road{}}
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	var all sync.WaitGroup
	end := make(chan struct{})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.serveSSH(t, c, config) })
			all.Go(func() { <-end; c.Close() })
		}
	})
	t.Cleanup(func() {
		must(0, l.Close())(t)
		close(end)
		all.Wait()
	})
	me := must(user.Current())(t)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return peer{repository.KindSFTP, map[string]string{
		"host": "127.0.0.1", "port": port, "user": me.Username, "path": filepath.Join(dir, "repository"),
		"private_key": clientKey, "known_hosts": knownhosts.Line([]string{l.Addr().String()}, host),
	}, r.Road}
}

func newKey(t testing.TB) (ssh.PublicKey, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(0, err)(t)
	return must(ssh.NewPublicKey(public))(t), string(pem.EncodeToMemory(must(ssh.MarshalPrivateKey(private, ""))(t)))
}

func (r *sshRoad) serveSSH(t testing.TB, c net.Conn, config string) {
	defer c.Close()
	if r.Fails() {
		return
	}
	p := exec.Command("/usr/sbin/sshd", "-i", "-e", "-f", config)
	in, err := p.StdinPipe()
	if err == nil {
		var out io.ReadCloser
		if out, err = p.StdoutPipe(); err == nil {
			if err = p.Start(); err == nil {
				var both sync.WaitGroup
				both.Go(func() { r.carry(in, c); in.Close() })
				both.Go(func() { r.carry(c, out); c.Close() })
				both.Wait()
				_ = p.Wait() // its client has gone
				return
			}
		}
	}
	t.Errorf("start sshd: %v", err)
}

// carry passes on what it reads, each piece after the delay, until the road breaks.
func (r *sshRoad) carry(to io.Writer, from io.Reader) {
	type piece struct {
		b   []byte
		due time.Time
	}
	queue := make(chan piece, 1<<12)
	var all sync.WaitGroup
	all.Go(func() {
		broken := false
		for p := range queue {
			if wait := time.Until(p.due); wait > 0 && !broken {
				<-time.After(wait)
			}
			if !broken && !r.Hang.Load() {
				_, err := to.Write(p.b)
				broken = err != nil
			}
		}
	})
	size := 0
	for {
		b := make([]byte, 32<<10)
		n, err := from.Read(b)
		queue <- piece{b[:n], time.Now().Add(time.Duration(r.Delay.Load() / 2))}
		for size += n; size > mib/2; size -= mib / 2 {
			if r.Fails() {
				err = io.ErrClosedPipe
			}
		}
		if err != nil {
			break
		}
	}
	close(queue)
	all.Wait()
}
