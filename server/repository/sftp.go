package repository

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/sharded"
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// sftpStore keeps blobs in a folder of an SSH server, in the layout of kopia's
// own store: the stock program opens it as a plain "sftp" repository. Unlike that
// store it has files synced before it reports success, where the server can, and
// gives up a server that has stopped answering.
type sftpStore struct {
	sharded.Storage
	blob.DefaultProviderImplementation
	files *sftpFiles
}

func openSFTP(ctx context.Context, w wanted) (storage, error) {
	pem, err := w.secret(sftpKey)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(pem)
	if err != nil {
		return nil, err
	}
	at, address := sftpPlace(w.settings), sftpAddress(w.settings)
	check, kinds, err := hostKeys(w.dir, w.settings[sftpKnownHosts], address)
	if err != nil {
		return nil, err
	}
	f := &sftpFiles{root: path.Clean(w.settings[sftpPath]), patience: w.patience, calls: w.calls, link: &sftpLink{
		address: address,
		config: &ssh.ClientConfig{
			User: w.settings[sftpUser], Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
			HostKeyCallback: check, HostKeyAlgorithms: kinds, Timeout: dialTime,
		},
	}}
	if err := f.prepare(ctx, at, w.create); err != nil {
		f.link.close()
		if backup.AsError(err) != nil {
			return nil, err
		}
		return nil, unreachable(at.name, err).Because(err)
	}
	s := &sftpStore{Storage: sharded.New(f, f.root, sharded.Options{ListParallelism: listers}, w.create), files: f}
	return &remoteStore{remote: s, at: at}, nil
}

// GetCapacity asks the server's file system.
func (s *sftpStore) GetCapacity(ctx context.Context) (c blob.Capacity, err error) {
	err = s.files.do(ctx, "STATVFS", "ask for the free space", func(conn *sftpConn, _ func()) error {
		st, err := conn.StatVFS(s.files.root)
		if err == nil {
			c = blob.Capacity{SizeB: st.Blocks * st.Frsize, FreeB: st.Bavail * st.Frsize}
		}
		return err
	})
	var status *sftp.StatusError
	if errors.As(err, &status) {
		return c, blob.ErrNotAVolume // the server cannot tell
	}
	return c, err
}

// Close ends the connection.
func (s *sftpStore) Close(context.Context) error {
	s.files.link.close()
	return nil
}

// measure walks through all folders.
func (s *sftpStore) measure(ctx context.Context, before time.Time) (int64, error) {
	return measureFolder(ctx, s.files, s.files.root, before)
}

// sftpFiles reads and writes whole files for [sharded.Storage].
type sftpFiles struct {
	root     string
	link     *sftpLink
	patience patience
	calls    *calls
}

var _ sharded.Impl = (*sftpFiles)(nil)

func (f *sftpFiles) do(ctx context.Context, kind, what string, fn func(c *sftpConn, alive func()) error) error {
	return f.patience.do(ctx, what, func(ctx context.Context, alive func()) error {
		f.calls.add(kind)
		return f.link.use(ctx, func(c *sftpConn) error { return fn(c, alive) })
	})
}

// prepare looks at the folder: a new repository wants an empty one, an old one
// what kopia has left there, or an empty mount point would get a new one.
func (f *sftpFiles) prepare(ctx context.Context, at place, create bool) error {
	if !create {
		_, err := f.GetMetadataFromPath(ctx, f.root, path.Join(f.root, layoutFile))
		return err
	}
	var names []string
	err := f.do(ctx, "LIST", "look into "+f.root, func(c *sftpConn, _ func()) error {
		if err := c.MkdirAll(f.root); err != nil {
			return denied(err)
		}
		all, err := c.ReadDir(f.root)
		names = nil
		for _, e := range all {
			names = append(names, e.Name())
		}
		return denied(err)
	})
	if err != nil {
		return err
	}
	return refuseOccupied(at, names)
}

// denied makes of missing rights what does not change by itself.
func denied(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &trouble{"its user may not read and write there", true, err}
	}
	return err
}

// absent makes of a missing file what kopia understands.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", blob.ErrBlobNotFound, err)
	}
	return denied(err)
}

// GetBlobFromPath implements [sharded.Impl].
func (f *sftpFiles) GetBlobFromPath(ctx context.Context, _, file string, offset, length int64, out blob.OutputBuffer) error {
	if offset < 0 {
		return blob.ErrInvalidRange
	}
	return f.do(ctx, "READ", "read "+file, func(c *sftpConn, alive func()) (err error) {
		out.Reset()
		r, err := c.Open(file)
		if err != nil {
			return absent(err)
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		if length < 0 {
			_, err := r.WriteTo(movingWriter{out, alive})
			return err
		}
		buf := make([]byte, length)
		n, err := r.ReadAt(buf, offset)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if err != nil {
			return err
		}
		if int64(n) < length {
			return blob.ErrInvalidRange
		}
		_, err = out.Write(buf)
		return err
	})
}

// GetMetadataFromPath implements [sharded.Impl].
func (f *sftpFiles) GetMetadataFromPath(ctx context.Context, _, file string) (m blob.Metadata, err error) {
	err = f.do(ctx, "STAT", "look at "+file, func(c *sftpConn, _ func()) error {
		fi, err := c.Stat(file)
		if err == nil {
			m = blob.Metadata{Length: fi.Size(), Timestamp: fi.ModTime()}
		}
		return absent(err)
	})
	return m, err
}

// PutBlobInPath writes a file of another name and renames it.
func (f *sftpFiles) PutBlobInPath(ctx context.Context, dir, file string, data blob.Bytes, o blob.PutOptions) error {
	if o.HasRetentionOptions() || o.DoNotRecreate {
		return blob.ErrUnsupportedPutBlobOption
	}
	return f.do(ctx, "WRITE", "store "+file, func(c *sftpConn, alive func()) error {
		var suffix [8]byte
		_, _ = rand.Read(suffix[:]) // never fails: the runtime ends the process instead
		tmp := fmt.Sprintf("%s%s%x", file, tmpMark, suffix)
		err := c.write(dir, tmp, data, alive)
		if err == nil {
			err = c.PosixRename(tmp, file)
		}
		if err != nil {
			_ = c.Remove(tmp) // a name that nobody reads; measure removes what stays
			return f.full(c, int64(data.Length()), err)
		}
		if t := o.SetModTime; !t.IsZero() {
			if err := c.Chtimes(file, t, t); err != nil {
				return err
			}
		}
		if o.GetModTime == nil {
			return nil
		}
		fi, err := c.Stat(file)
		if err == nil {
			*o.GetModTime = fi.ModTime()
		}
		return err
	})
}

// write writes a file, making its folder where needed, and syncs it where the
// server can.
func (c *sftpConn) write(dir, tmp string, data blob.Bytes, alive func()) (err error) {
	const flags = os.O_CREATE | os.O_WRONLY | os.O_EXCL
	w, err := c.OpenFile(tmp, flags)
	if errors.Is(err, fs.ErrNotExist) {
		if err := c.MkdirAll(dir); err != nil {
			return err
		}
		w, err = c.OpenFile(tmp, flags)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	r := data.Reader()
	defer func() { _ = r.Close() }() // it was only read
	n, err := w.ReadFromWithConcurrency(movingReader{r, alive}, writesAhead)
	if err != nil {
		return err
	}
	if n != int64(data.Length()) {
		return io.ErrShortWrite
	}
	if _, ok := c.HasExtension(fileSync); ok {
		return w.Sync()
	}
	return nil
}

// writesAhead is how many pieces of a file are on their way at the same time.
const writesAhead = 32

// full tells a full disk, for which the protocol has no word, from other failures.
func (f *sftpFiles) full(c *sftpConn, need int64, err error) error {
	var status *sftp.StatusError
	if errors.As(err, &status) {
		if st, serr := c.StatVFS(f.root); serr == nil && int64(st.Bavail*st.Frsize) < need {
			return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
		}
	}
	return denied(err)
}

// DeleteBlobInPath implements [sharded.Impl].
func (f *sftpFiles) DeleteBlobInPath(ctx context.Context, _, file string) error {
	return f.do(ctx, "REMOVE", "delete "+file, func(c *sftpConn, _ func()) error {
		return denied(gone(c.Remove(file)))
	})
}

// ReadDir implements [sharded.Impl]. A folder that is not there holds nothing.
func (f *sftpFiles) ReadDir(ctx context.Context, dir string) (all []os.FileInfo, err error) {
	err = f.do(ctx, "LIST", "list "+dir, func(c *sftpConn, _ func()) (err error) {
		all, err = c.ReadDir(dir)
		return absent(err)
	})
	return all, err
}
