package repository

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/sharded"
	"github.com/studio-b12/gowebdav"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// davStore keeps blobs in a folder of a WebDAV server, in the layout of kopia's
// own store: the stock program opens it as a plain "webdav" repository. Unlike
// that store it gives up a request that hangs.
type davStore struct {
	sharded.Storage
	blob.DefaultProviderImplementation
	files *davFiles
}

func openWebDAV(ctx context.Context, w wanted) (storage, error) {
	password, err := w.secret(davPassword)
	if err != nil {
		return nil, err
	}
	at := davPlace(w.settings)
	f := &davFiles{
		url: w.settings[davURL], user: w.settings[davUser], password: password,
		transport: trusting(w.settings[davCA]), patience: w.patience, calls: w.calls,
	}
	if err := f.prepare(ctx, at, w.create); err != nil {
		f.transport.CloseIdleConnections()
		if backup.AsError(err) != nil {
			return nil, err
		}
		return nil, unreachable(at.name, err).Because(err)
	}
	s := &davStore{Storage: sharded.New(f, davRoot, sharded.Options{ListParallelism: listers}, w.create), files: f}
	return &remoteStore{remote: s, at: at}, nil
}

// Close ends the connections.
func (s *davStore) Close(context.Context) error {
	s.files.transport.CloseIdleConnections()
	return nil
}

// measure walks through all folders.
func (s *davStore) measure(ctx context.Context, before time.Time) (int64, error) {
	return measureFolder(ctx, s.files, davRoot, before)
}

// davRoot is the repository's folder as the client sees it.
const davRoot = "/"

// davFiles reads and writes whole files for [sharded.Storage].
type davFiles struct {
	url, user, password string
	transport           *http.Transport
	patience            patience
	calls               *calls
}

var _ sharded.Impl = (*davFiles)(nil)

// do makes a client for each try, which ends with the try's context.
func (f *davFiles) do(ctx context.Context, what string, fn func(c *gowebdav.Client, alive func()) error) error {
	return f.patience.do(ctx, what, func(ctx context.Context, alive func()) error {
		c := gowebdav.NewAuthClient(f.url, gowebdav.NewPreemptiveAuth(davSender{}))
		c.SetTransport(davTransport{f, ctx, alive})
		return davError(fn(c, alive))
	})
}

// davSender lets requests go out as they are: the transport knows the user, and
// nothing is sent twice to find out how a server wants to be told.
type davSender struct{}

var _ gowebdav.Authenticator = davSender{}

func (davSender) Authorize(*http.Client, *http.Request, string) error { return nil }

func (davSender) Verify(_ *http.Client, rs *http.Response, path string) (redo bool, err error) {
	if rs.StatusCode == http.StatusUnauthorized {
		return false, gowebdav.NewPathError("authorize", path, rs.StatusCode)
	}
	return false, nil
}

func (d davSender) Clone() gowebdav.Authenticator { return d }

func (davSender) Close() error { return nil }

// davTransport sends the requests of one try.
type davTransport struct {
	*davFiles
	ctx   context.Context // of the try: the client's calls bring none
	alive func()
}

// RoundTrip implements [http.RoundTripper].
func (t davTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.calls.add(r.Method)
	r = r.Clone(t.ctx)
	if own, err := url.Parse(t.url); err == nil && t.user != "" && r.URL.Host == own.Host {
		r.SetBasicAuth(t.user, t.password) // not told to where the server may send us
	}
	if r.Body != nil {
		r.Body = struct {
			io.Reader
			io.Closer
		}{movingReader{r.Body, t.alive}, r.Body}
	}
	return t.transport.RoundTrip(r)
}

// prepare looks at the folder: a new repository wants an empty one, an old one
// what kopia has left there.
func (f *davFiles) prepare(ctx context.Context, at place, create bool) error {
	if !create {
		_, err := f.GetMetadataFromPath(ctx, davRoot, path.Join(davRoot, layoutFile))
		return err
	}
	var all []os.FileInfo
	err := f.do(ctx, "look into the folder", func(c *gowebdav.Client, _ func()) (err error) {
		if all, err = c.ReadDir(davRoot); statusOf(err) == http.StatusNotFound {
			all, err = nil, c.MkdirAll(davRoot, dirMode)
		}
		return err
	})
	if err != nil {
		return err
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return refuseOccupied(at, names)
}

// GetBlobFromPath implements [sharded.Impl].
func (f *davFiles) GetBlobFromPath(ctx context.Context, _, file string, offset, length int64, out blob.OutputBuffer) error {
	if offset < 0 {
		return blob.ErrInvalidRange
	}
	if length == 0 {
		out.Reset()
		_, err := f.GetMetadataFromPath(ctx, "", file)
		return err
	}
	return f.do(ctx, "read "+file, func(c *gowebdav.Client, alive func()) (err error) {
		out.Reset()
		var r io.ReadCloser
		if length < 0 {
			r, err = c.ReadStream(file)
		} else {
			r, err = c.ReadStreamRange(file, offset, length)
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		if _, err := io.Copy(movingWriter{out, alive}, r); err != nil {
			return err
		}
		return blob.EnsureLengthExactly(out.Length(), length)
	})
}

// GetMetadataFromPath implements [sharded.Impl].
func (f *davFiles) GetMetadataFromPath(ctx context.Context, _, file string) (m blob.Metadata, err error) {
	err = f.do(ctx, "look at "+file, func(c *gowebdav.Client, _ func()) error {
		fi, err := c.Stat(file)
		if err == nil {
			m = blob.Metadata{Length: fi.Size(), Timestamp: fi.ModTime()}
		}
		return err
	})
	return m, err
}

// PutBlobInPath writes a file of another name and renames it.
func (f *davFiles) PutBlobInPath(ctx context.Context, dir, file string, data blob.Bytes, o blob.PutOptions) error {
	if o.HasRetentionOptions() || o.DoNotRecreate {
		return blob.ErrUnsupportedPutBlobOption
	}
	if !o.SetModTime.IsZero() {
		return blob.ErrSetTimeUnsupported
	}
	var b bytes.Buffer
	b.Grow(data.Length())
	if _, err := data.WriteTo(&b); err != nil {
		return err
	}
	err := f.do(ctx, "store "+file, func(c *gowebdav.Client, _ func()) error {
		var suffix [8]byte
		_, _ = rand.Read(suffix[:]) // never fails: the runtime ends the process instead
		tmp := fmt.Sprintf("%s%s%x", file, tmpMark, suffix)
		err := c.Write(tmp, b.Bytes(), fileMode)
		if err == nil {
			err = c.Rename(tmp, file, true)
		}
		if err != nil {
			_ = c.Remove(tmp) // a name that nobody reads; measure removes what stays
		}
		return err
	})
	if err != nil || o.GetModTime == nil {
		return err
	}
	m, err := f.GetMetadataFromPath(ctx, dir, file)
	*o.GetModTime = m.Timestamp
	return err
}

// DeleteBlobInPath implements [sharded.Impl].
func (f *davFiles) DeleteBlobInPath(ctx context.Context, _, file string) error {
	return f.do(ctx, "delete "+file, func(c *gowebdav.Client, _ func()) error {
		err := c.Remove(file)
		if statusOf(err) == http.StatusBadRequest { // what the library says when there was no answer at all
			return errNoAnswer
		}
		return err
	})
}

var errNoAnswer = errors.New("no answer")

// ReadDir implements [sharded.Impl]. A folder that is not there holds nothing.
func (f *davFiles) ReadDir(ctx context.Context, dir string) (all []os.FileInfo, err error) {
	err = f.do(ctx, "list "+dir, func(c *gowebdav.Client, _ func()) (err error) {
		all, err = c.ReadDir(dir)
		return err
	})
	return all, err
}

// statusOf is the answer's status that made the error; 0 if that was none.
func statusOf(err error) int {
	var s gowebdav.StatusError
	if errors.As(err, &s) {
		return s.Status
	}
	return 0
}

// davError makes of an answer what kopia and our patience understand.
func davError(err error) error {
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return &trouble{"its certificate is not trusted; set ca_certificate to the CA that signed it", true, err}
	}
	switch s := statusOf(err); {
	case s == http.StatusNotFound:
		return fmt.Errorf("%w: %w", blob.ErrBlobNotFound, err)
	case s == http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %w", blob.ErrInvalidRange, err)
	case s == http.StatusInsufficientStorage:
		return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	case s == http.StatusUnauthorized:
		return &trouble{"it does not accept the user; check username and http_password", true, err}
	case s == http.StatusForbidden:
		return &trouble{"its user may not read and write there", true, err}
	case s == 0, s >= http.StatusInternalServerError, s == http.StatusTooManyRequests, s == http.StatusRequestTimeout,
		s == http.StatusLocked, s == http.StatusConflict:
		return err
	default:
		return &trouble{fmt.Sprintf("it answers %d %s", s, http.StatusText(s)), true, err}
	}
}

// folders is a tree of files elsewhere.
type folders interface {
	ReadDir(ctx context.Context, dir string) ([]os.FileInfo, error)
	DeleteBlobInPath(ctx context.Context, dir, file string) error
}

// measureFolder adds up the files below a folder and removes those that a
// killed process left behind half written.
func measureFolder(ctx context.Context, f folders, dir string, before time.Time) (sum int64, err error) {
	all, err := f.ReadDir(ctx, dir)
	if err != nil {
		return 0, err
	}
	for _, e := range all {
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir() && e.Name() == lostAndFound:
		case e.IsDir():
			n, err := measureFolder(ctx, f, name, before)
			if err != nil {
				return 0, err
			}
			sum += n
		case strings.Contains(e.Name(), tmpMark) && e.ModTime().Before(before):
			if err := f.DeleteBlobInPath(ctx, dir, name); err != nil {
				return 0, err
			}
		default:
			sum += e.Size()
		}
	}
	return sum, nil
}
