package relay

import (
	"slices"
	"time"
)

// takeIdle returns a connection that is kept and still fit for use, or nil. The
// one used last comes first; the others grow old and are closed.
func (r *Relay) takeIdle() *session {
	for {
		r.mu.Lock()
		n := len(r.idle)
		if n == 0 {
			r.mu.Unlock()
			return nil
		}
		s := r.idle[n-1]
		r.idle = r.idle[:n-1]
		r.mu.Unlock()
		s.timer.Stop()
		// Whatever there is to be read, a 421 or the end or a stray reply, nobody
		// asked for it.
		if s.g.unread() == nil {
			return s
		}
		s.g.socket.Close()
	}
}

// release ends the use of a session: it is kept, or ended behind the caller's
// back, who has replies to record and should not wait for QUIT.
func (r *Relay) release(s *session) {
	// From here on the end of the attempt's context must not cut the session short.
	open := s.unwatch()
	if open && s.fate == keep && s.taken < s.most && r.keep(s) {
		<-r.slots
		return
	}
	r.ended.Go(func() {
		s.end()
		<-r.slots
	})
}

// keep adds s to the idle connections, unless the Relay is closed.
func (r *Relay) keep(s *session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.idle = append(r.idle, s)
	s.timer = time.AfterFunc(idleTime, func() { r.expire(s) })
	return true
}

// expire ends a session that nobody wanted for idleTime.
func (r *Relay) expire(s *session) {
	r.mu.Lock()
	i := slices.Index(r.idle, s)
	if i < 0 || r.closed {
		r.mu.Unlock()
		return
	}
	r.idle = slices.Delete(r.idle, i, i+1)
	r.ended.Add(1)
	r.mu.Unlock()
	defer r.ended.Done()
	s.quit()
}

// Close ends the idle connections with QUIT, in 2 s at most, and waits for those
// that are being ended. No Deliver may be under way.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	idle := r.idle
	r.idle = nil
	r.mu.Unlock()
	for _, s := range idle {
		s.timer.Stop()
		r.ended.Go(s.quit)
	}
	r.ended.Wait()
}
