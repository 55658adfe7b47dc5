package lab

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// restHeader carries the session of the REST API.
const restHeader = "vmware-api-session-id"

// sessions knows who logged in. vcsim keeps the sessions themselves.
type sessions struct {
	mu   sync.Mutex // guards all below
	soap map[string]*simulator.Registry
	rest map[string]bool // token: alive

	waits map[string]int // cookie: calls that wait for updates
}

// wait counts a call that waits for updates; the caller calls done at its end.
func (s *sessions) wait(cookie string) (done func()) {
	add := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.waits == nil {
			s.waits = map[string]int{}
		}
		s.waits[cookie] += n
	}
	add(1)
	return func() { add(-1) }
}

// drain ends the calls of a session that wait for updates. vcsim's Logout and
// such a call would lock each other out for ever.
func (s *sessions) drain(r *http.Request, cookie string) {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		s.mu.Lock()
		n := s.waits[cookie]
		s.mu.Unlock()
		if n == 0 {
			return
		}
		s.cancelWaits(cookie)
		select {
		case <-r.Context().Done():
			return
		case <-t.C:
		}
	}
}

func (s *sessions) note(ctx *simulator.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.soap == nil {
		s.soap = map[string]*simulator.Registry{}
	}
	s.soap[ctx.Session.Key] = ctx.Session.Registry
}

// restAlive notes a REST session, and says whether the lab did not end it.
func (s *sessions) restAlive(r *http.Request) bool {
	token := r.Header.Get(restHeader)
	if c, err := r.Cookie(restHeader); err == nil && token == "" {
		token = c.Value
	}
	if token == "" {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rest == nil {
		s.rest = map[string]bool{}
	}
	if _, known := s.rest[token]; !known {
		s.rest[token] = true
	}
	return s.rest[token]
}

// authorized asks for a live session or for basic authentication.
func (s *sessions) authorized(l *Lab, r *http.Request) bool {
	m := l.registry().SessionManager()
	if user, password, ok := r.BasicAuth(); ok {
		return m.Authenticate(*l.service.Listen, &types.Login{UserName: user, Password: password})
	}
	c, err := r.Cookie(soap.SessionCookieName)
	if err != nil {
		return false
	}
	res, ok := m.SessionIsActive(l.context(), &types.SessionIsActive{SessionID: strings.Trim(c.Value, `"`), UserName: l.config.User}).(*methods.SessionIsActiveBody)
	return ok && res.Res != nil && res.Res.Returnval
}

// ExpireSessions ends all sessions, as a restart of vCenter does.
func (l *Lab) ExpireSessions() {
	s := &l.sessions
	s.mu.Lock()
	keys := s.soap
	s.soap = nil
	for token := range s.rest {
		s.rest[token] = false
	}
	s.mu.Unlock()
	ctx := l.context()
	ctx.Session = &simulator.Session{UserSession: types.UserSession{Key: "lab", UserName: "lab"}, Registry: simulator.NewRegistry(), Map: l.registry()}
	for key := range keys {
		// A session that logged out is gone already.
		l.registry().SessionManager().TerminateSession(ctx, &types.TerminateSession{SessionId: []string{key}})
	}
}

// cancelWaits ends the calls that wait for updates, of one session or ("") of all.
func (s *sessions) cancelWaits(session string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, r := range s.soap {
		if session != "" && session != key {
			continue
		}
		for _, o := range r.AllReference("PropertyCollector") {
			cancelWait(o)
		}
	}
}

func (s *sessions) cancelWait(collector ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.soap {
		if o := r.Get(collector); o != nil {
			cancelWait(o)
		}
	}
}

func cancelWait(o any) {
	if pc, ok := o.(*simulator.PropertyCollector); ok {
		pc.CancelWaitForUpdates(&types.CancelWaitForUpdates{})
	}
}

// waiting finds the property collector that a request is to wait on.
var waiting = regexp.MustCompile(`<WaitForUpdatesEx[^>]*>\s*<_this[^>]*>([^<]+)</_this>`)

// serveSDK passes a call to vcsim, and ends a wait whose client went away:
// vcsim itself would wait on, for ever.
func (l *Lab) serveSDK(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	cookie := ""
	if c, err := r.Cookie(soap.SessionCookieName); err == nil {
		cookie = strings.Trim(c.Value, `"`)
	}
	if bytes.Contains(body, []byte("<Logout ")) {
		l.sessions.drain(r, cookie)
	}
	if m := waiting.FindSubmatch(body); m != nil {
		stop := context.AfterFunc(r.Context(), func() {
			l.sessions.cancelWait(ref{Type: "PropertyCollector", Value: string(m[1])})
		})
		defer stop()
		defer l.sessions.wait(cookie)()
	}
	l.service.ServeMux.ServeHTTP(w, r)
}

// counter counts what is sent.
type counter struct {
	http.ResponseWriter
	total *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.total.Add(int64(n))
	return n, err
}
