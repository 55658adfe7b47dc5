package vsphere

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"golang.org/x/time/rate"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

type ref = types.ManagedObjectReference

// Session is a vcenter that is logged in to. It implements [backup.VSphereSession].
type Session struct {
	config Config
	log    *slog.Logger
	host   string // for messages
	user   string
	about  types.AboutInfo

	trust  *trust
	soap   *soap.Client
	client *vim25.Client // every call of it goes through login
	login  *login
	tags   *tagService
	speed  *rate.Limiter // of all disk streams together

	bandwidth bandwidth // of which speed is this server's share

	wanted atomic.Value // backup.Transport: as the vcenter is set

	inventory inventory
	loads     loads
	seen      seenProxies

	stop context.CancelFunc // ends keepAlive
	done chan struct{}      // closed when it has ended
}

var _ backup.VSphereSession = (*Session)(nil)

// burst is the largest piece that the limiter lets pass at once.
const burst = 1 << 20

// open connects and logs in.
func open(ctx context.Context, c Config, v backup.VCenter) (*Session, error) {
	u, err := url.Parse(v.Endpoint)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, invalid("endpoint", "endpoint must look like https://vcenter.example.com, got %q.", v.Endpoint)
	}
	u.Path, u.User = vim25.Path, nil
	s := &Session{
		config: c, host: u.Host, user: v.Username,
		log: c.Log.With("vcenter", u.Host), speed: rate.NewLimiter(rate.Inf, burst), done: make(chan struct{}),
		inventory: inventory{turn: make(chan struct{}, 1)}, bandwidth: bandwidth{id: v.ID},
	}
	if s.trust, err = newTrust(v, withPort(u.Host), c.DialTimeout); err != nil {
		return nil, err
	}
	s.soap = soap.NewClient(u, false)
	s.soap.UserAgent = "kura"
	t := s.soap.DefaultTransport()
	t.DialTLSContext = s.trust.dial
	t.Proxy = nil // a proxy would see the disks, and pins would not hold
	t.MaxIdleConnsPerHost = 16
	account := url.UserPassword(v.Username, v.Password.Reveal())
	s.login = &login{inner: s.soap, user: account, timeout: c.CallTimeout, retry: c.Retry, turn: make(chan struct{}, 1)}
	if err := s.connect(ctx); err != nil {
		return nil, s.problem("log in", err)
	}
	s.tags = newTagService(s.client, account, c)
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	go s.keepAlive(alive)
	return s, nil
}

func (s *Session) connect(ctx context.Context) error {
	content, err := methods.GetServiceContent(ctx, bare{s.login})
	if err != nil {
		return err
	}
	s.about = content.About
	s.login.manager = *content.SessionManager
	s.soap.Namespace = "urn:" + vim25.Namespace
	s.soap.Version = vim25.Version
	s.client = &vim25.Client{Client: s.soap, ServiceContent: content, RoundTripper: s.login}
	return s.login.again(ctx, s.login.generation.Load())
}

// About implements [backup.VSphereSession].
func (s *Session) About() (instanceUUID, apiVersion string) {
	return s.about.InstanceUuid, s.about.ApiVersion
}

// transport is how the vcenter's disks are to be read.
func (s *Session) transport() backup.Transport {
	t, _ := s.wanted.Load().(backup.Transport)
	return t
}

// probe makes sure that the session lives, unless it has answered a moment ago.
func (s *Session) probe(ctx context.Context) error {
	if s.login.idle() < time.Minute {
		return nil
	}
	_, err := methods.GetCurrentTime(ctx, s.client)
	return s.problem("use the session", err)
}

// keepAlive touches an idle session, so that it is not ended after its 30
// minutes, and keeps to the bandwidth that is this server's by now.
func (s *Session) keepAlive(ctx context.Context) {
	defer close(s.done)
	tick, share := time.NewTicker(s.config.KeepAlive), time.NewTicker(s.config.Share)
	defer tick.Stop()
	defer share.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-share.C:
			s.share(ctx)
			continue
		case <-tick.C:
		}
		if s.login.idle() < s.config.KeepAlive {
			continue
		}
		if _, err := methods.GetCurrentTime(ctx, s.client); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "session could not be kept alive", "error", err)
		}
	}
}

// close logs out, as far as the peer still listens.
func (s *Session) close() {
	s.stop()
	<-s.done
	ctx, cancel := context.WithTimeout(context.Background(), s.config.DialTimeout)
	defer cancel()
	s.tags.logout(ctx)
	if _, err := methods.Logout(ctx, bare{s.login}, &types.Logout{This: s.login.manager}); err != nil {
		s.log.DebugContext(ctx, "logout failed", "error", err)
	}
	s.soap.CloseIdleConnections()
}

// http is the client for disk streams and datastore files: the session's
// connections and cookies, without a limit on the whole time.
func (s *Session) http() *http.Client { return &s.soap.Client }

// pause waits before try number n of something that has not worked since; it
// returns false when patience is at its end.
func (s *Session) pause(ctx context.Context, n int, since time.Time, patience time.Duration) bool {
	if time.Since(since) > patience {
		return false
	}
	t := time.NewTimer(min(s.config.Retry<<min(n, 16), 30*time.Second))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
