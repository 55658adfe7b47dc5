package vsphere

import (
	"context"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// bandwidth is a vcenter's limit. It is of all servers together: each that
// moves disks of it at the moment takes an equal share.
type bandwidth struct {
	id    string       // of the vcenter
	whole atomic.Int64 // bytes per second; 0 = no limit
}

// limit sets the vcenter's bandwidth, which may change while the session lives.
func (s *Session) limit(ctx context.Context, bytesPerSecond int64) {
	s.bandwidth.whole.Store(bytesPerSecond)
	s.share(ctx)
}

// share takes this server's part of the bandwidth. Where nobody can be asked
// who else moves data, the part stays as it was.
func (s *Session) share(ctx context.Context) {
	whole := s.bandwidth.whole.Load()
	if whole == 0 {
		s.speed.SetLimit(rate.Inf)
		return
	}
	servers := 1
	if s.config.Movers != nil {
		n, err := s.config.Movers(ctx, s.bandwidth.id)
		if err != nil {
			s.log.WarnContext(ctx, "servers that share the bandwidth not counted", "error", err)
			if s.speed.Limit() != rate.Inf {
				return
			}
		}
		servers = max(1, n)
	}
	s.speed.SetLimit(rate.Limit(whole) / rate.Limit(servers))
}
