package repository_test

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// peer is a real storage and the way to it, on which things go wrong.
type peer struct {
	kind     string
	settings map[string]string
	*road
}

// road is the way to a storage.
type road struct {
	delay     atomic.Int64 // nanoseconds that an answer takes
	failEvery atomic.Int64 // requests, or halves of a MiB of a connection, of which the last fails
	hang      atomic.Bool  // nothing is answered any more
	count     atomic.Int64
	failed    atomic.Int64
}

// fails counts a request and says whether it is to fail.
func (r *road) fails() bool {
	n, every := r.count.Add(1), r.failEvery.Load()
	if every == 0 || n%every != 0 {
		return false
	}
	r.failed.Add(1)
	return true
}

// peers makes a storage of each kind.
var peers = map[string]func(testing.TB) peer{
	repository.KindFilesystem: func(t testing.TB) peer {
		return peer{repository.KindFilesystem, map[string]string{"path": filepath.Join(t.TempDir(), "repository")}, &road{}}
	},
	repository.KindS3:   func(t testing.TB) peer { return newBucket(t, false).peer },
	repository.KindSFTP: newSSHServer,
}

// programs are the programs of others that tests call, by their packages.
var programs = map[string]string{
	"kopia":     "github.com/kopia/kopia",
	"versitygw": "github.com/versity/versitygw/cmd/versitygw",
}

var building sync.Mutex

// program is the path of one of the programs, built where make has not done so.
func program(name string) (string, error) {
	building.Lock()
	defer building.Unlock()
	path, err := filepath.Abs("../../build/peers/" + name)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	half := path + "." + strconv.Itoa(os.Getpid())
	c := exec.Command("go", "-C", "../../tools/peers/"+name, "build", "-o", half, programs[name])
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return path, os.Rename(half, path)
}

const (
	s3User = "kura-test"
	s3Pass = "kura-test-secret"
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
	dir := t.TempDir()
	data, versions := filepath.Join(dir, "data"), filepath.Join(dir, "versions")
	must(0, os.Mkdir(data, 0o700))(t)
	must(0, os.Mkdir(versions, 0o700))(t)
	socket := must(os.MkdirTemp("", "kura-s3-"))(t) //nolint:usetesting // a test's folder has a longer name than sockets may have
	t.Cleanup(func() { removeAll(t, socket) })
	socket = filepath.Join(socket, "s")
	c := exec.Command(must(program("versitygw"))(t), "--port", socket, "--access", s3User, "--secret", s3Pass,
		"--quiet", "posix", "--versioning-dir", versions, data)
	out := &lines{}
	c.Stdout, c.Stderr = out, out
	must(0, c.Start())(t)
	t.Cleanup(func() {
		must(0, c.Process.Kill())(t)
		_ = c.Wait() // killed
	})
	r := &road{}
	front := newFront(r, socket)
	t.Cleanup(front.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}))
	host := front.Listener.Addr().String()
	b := &bucket{name: "images", peer: peer{repository.KindS3, map[string]string{
		"endpoint": host, "bucket": "images", "prefix": "site-1/", "region": "us-east-1",
		"access_key_id": s3User, "secret_access_key": s3Pass, "ca_certificate": ca,
	}, r}}
	b.cli = must(minio.New(host, &minio.Options{
		Creds: credentials.NewStaticV4(s3User, s3Pass, ""), Secure: true, Region: "us-east-1", Transport: front.Client().Transport,
	}))(t)
	deadline := time.Now().Add(30 * time.Second)
	err := b.cli.MakeBucket(t.Context(), b.name, minio.MakeBucketOptions{ObjectLocking: locks})
	for err != nil && time.Now().Before(deadline) { // it does not say when it listens
		err = b.cli.MakeBucket(t.Context(), b.name, minio.MakeBucketOptions{ObjectLocking: locks})
	}
	if err != nil {
		t.Fatalf("MakeBucket() = %v; the server says %s", err, out)
	}
	return b
}

// newFront is an HTTPS server that passes requests on to a socket, or not.
func newFront(r *road, socket string) *httptest.Server {
	var d net.Dialer
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}
	transport.DialContext = func(ctx ctxt, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) }
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "storage", p.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	return httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if r.hang.Load() {
			<-q.Context().Done()
			return
		}
		if !waited(q, time.Duration(r.delay.Load())) {
			return
		}
		if !r.fails() {
			proxy.ServeHTTP(w, q)
			return
		}
		if r.failed.Load()%2 == 0 {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
}

func waited(q *http.Request, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-q.Context().Done():
		return false
	}
}

// lines keeps what a program says.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
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
	r := &road{}
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
	}, r}
}

func newKey(t testing.TB) (ssh.PublicKey, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(0, err)(t)
	return must(ssh.NewPublicKey(public))(t), string(pem.EncodeToMemory(must(ssh.MarshalPrivateKey(private, ""))(t)))
}

func (r *road) serveSSH(t testing.TB, c net.Conn, config string) {
	defer c.Close()
	if r.fails() {
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
func (r *road) carry(to io.Writer, from io.Reader) {
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
			if !broken && !r.hang.Load() {
				_, err := to.Write(p.b)
				broken = err != nil
			}
		}
	})
	size := 0
	for {
		b := make([]byte, 32<<10)
		n, err := from.Read(b)
		queue <- piece{b[:n], time.Now().Add(time.Duration(r.delay.Load() / 2))}
		for size += n; size > mib/2; size -= mib / 2 {
			if r.fails() {
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
