package vsphere

import (
	"context"
	"crypto/sha1" // by which VDDK knows a certificate
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/nbd"
)

// nbdAccount is how the program that serves disks reaches the vcenter.
type nbdAccount struct {
	host, port, user, thumbprint string
}

// nbdDraft says which disk is to be served; of a VM as it stands when there is no snapshot.
type nbdDraft struct {
	account        nbdAccount
	moid, snapshot string
	writable       bool
}

// nbdAccount learns the certificate that the vcenter presents, after having judged it.
func (s *Session) nbdAccount(ctx context.Context) (nbdAccount, error) {
	addr := withPort(s.host)
	conn, err := s.trust.dial(ctx, "tcp", addr)
	if err != nil {
		return nbdAccount{}, err
	}
	defer func() { _ = conn.Close() }() // nothing was said over it
	a := nbdAccount{user: s.user}
	if a.host, a.port, err = net.SplitHostPort(addr); err != nil {
		return nbdAccount{}, err
	}
	if c, ok := conn.(*tls.Conn); ok {
		sum := sha1.Sum(c.ConnectionState().PeerCertificates[0].Raw)
		pairs := make([]string, len(sum))
		for i, b := range sum {
			pairs[i] = fmt.Sprintf("%02X", b)
		}
		a.thumbprint = strings.Join(pairs, ":")
	}
	return a, nil
}

// nbdServer is a program that serves one disk, and the connection to it.
type nbdServer struct {
	label string
	conn  *nbd.Conn
	grace time.Duration // between the request to end and the end by force

	cmd    *exec.Cmd
	dir    string // of the socket; only until the connection stands
	said   tail
	exited chan struct{} // closed when it has ended
	err    error         // how; to be read after that

	end sync.Once
}

// serveNBD starts the program for a disk and connects to it.
func (s *Session) serveNBD(ctx context.Context, draft nbdDraft, d writeDisk) (*nbdServer, error) {
	n := &nbdServer{label: d.Label, grace: s.config.NBDStop, exited: make(chan struct{})}
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.CallTimeout, errNoAnswer)
	defer cancel()
	err := n.start(s, draft, d)
	if err == nil {
		if n.conn, err = n.connect(ctx, s.config.Stall); err == nil {
			if size := n.conn.Size(); size != d.Capacity {
				err = fmt.Errorf("what is served has %d bytes, and the disk %d", size, d.Capacity)
			}
		}
	}
	if err == nil {
		// Who is connected needs no socket any more: nothing is left of it whatever happens.
		_ = os.RemoveAll(n.dir)
		return n, nil
	}
	n.stop()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errNoAnswer) {
		return nil, fmt.Errorf("open %q over nbd: %w", d.Label, cause)
	}
	return nil, backup.Errorf(backup.Unavailable, "transport", "The --nbd-command could not serve %q: %s", d.Label, n.reason(err)).Because(err)
}

// reason says what went wrong, with the program's own words where it had any.
func (n *nbdServer) reason(err error) string {
	text := sentence(err.Error())
	if said := n.said.String(); said != "" {
		text += " It said: " + sentence(said)
	}
	return text
}

// blame adds to an error what the program said.
func (n *nbdServer) blame(err error) error {
	n.stop() // so that it has said all
	said, known := n.said.String(), backup.AsError(err)
	if said == "" || known == nil {
		return err
	}
	return backup.Errorf(known.Code, known.Field, "%s The --nbd-command said: %s", known.Message, sentence(said)).Because(known.Err)
}

// start runs the program. The password goes through a pipe: it is never on a
// disk, in a list of processes or in an environment.
func (n *nbdServer) start(s *Session, draft nbdDraft, d writeDisk) (err error) {
	if n.dir, err = os.MkdirTemp("", "kura-nbd-"); err != nil {
		return err
	}
	password, _ := s.login.user.Password()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // the program has its own by then
	_, err = w.WriteString(password + "\n")
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	n.cmd = exec.Command(s.config.NBDCommand) //nolint:noctx // it outlives the call; stop ends it
	n.cmd.Env = append(plainEnvironment(os.Environ()), draft.environment(d, n.socket())...)
	n.cmd.ExtraFiles = []*os.File{r}
	n.cmd.Stderr = &n.said
	n.cmd.WaitDelay = time.Second // for what it leaves behind with its stderr open
	ownProcess(n.cmd)
	started := make(chan error)
	go func() {
		// The kernel ends the program along with the thread that began it, so
		// that one is kept until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := n.cmd.Start()
		started <- err
		if err == nil {
			n.err = n.cmd.Wait()
		}
		close(n.exited)
	}()
	return <-started
}

func (n *nbdServer) socket() string { return filepath.Join(n.dir, "nbd") }

// plainEnvironment keeps what programs need everywhere. The rest of this
// server's environment, which may hold secrets, is none of theirs.
func plainEnvironment(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains([]string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR"}, name)
	})
}

func (draft nbdDraft) environment(d writeDisk, socket string) []string {
	writable := "0"
	if draft.writable {
		writable = "1"
	}
	return []string{
		"KURA_NBD_SOCKET=" + socket,
		"KURA_VCENTER=" + draft.account.host,
		"KURA_VCENTER_PORT=" + draft.account.port,
		"KURA_VCENTER_USER=" + draft.account.user,
		"KURA_VCENTER_THUMBPRINT=" + draft.account.thumbprint,
		"KURA_PASSWORD_FILE=/dev/fd/3",
		"KURA_VM_MOID=" + draft.moid,
		"KURA_SNAPSHOT_MOREF=" + draft.snapshot,
		"KURA_DISK_FILE=" + d.File,
		fmt.Sprintf("KURA_DISK_KEY=%d", d.Key),
		"KURA_WRITABLE=" + writable,
	}
}

// connect waits until the program listens.
func (n *nbdServer) connect(ctx context.Context, stall time.Duration) (*nbd.Conn, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := nbd.Dial(ctx, "unix", n.socket(), nbd.Config{Stall: stall})
		if err != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("it did not answer at KURA_NBD_SOCKET: %w", context.Cause(ctx))
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
		select {
		case <-tick.C:
		case <-n.exited:
			return nil, fmt.Errorf("it ended before it listened at KURA_NBD_SOCKET (%s)", ending(n.err))
		case <-ctx.Done(): // the next try says so
		}
	}
}

// ending is how a program ended, which may be well.
func ending(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// stop ends the program: it is asked to, and then made to.
func (n *nbdServer) stop() {
	n.end.Do(func() {
		if n.conn != nil {
			_ = n.conn.Close() // it has no other answer
		}
		if n.cmd != nil && n.cmd.Process != nil {
			n.terminate()
		}
		if n.dir != "" {
			_ = os.RemoveAll(n.dir) // in the folder for what is temporary
		}
	})
}

// terminate asks the program to end, then makes it. One that the kernel holds
// on to, as with storage that hangs, is left to it.
func (n *nbdServer) terminate() {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = endProcess(n.cmd, sig) // it may have ended
		patience := time.NewTimer(n.grace)
		select {
		case <-n.exited:
			patience.Stop()
			return
		case <-patience.C:
		}
	}
}

// tail keeps the end of what a program says.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

// mostSaid is how much of it fits into a message.
const mostSaid = 600

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - mostSaid; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

// String is the last lines, as one.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.FieldsFunc(strings.ToValidUTF8(string(t.text), "?"), func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines[max(0, len(lines)-5):], "; ")
}
