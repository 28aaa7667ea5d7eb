package relay

import (
	"context"
	"sync"
	"time"
)

// quitWait is how long a remote may take over QUIT. Nothing depends on its
// answer, and shutdown waits for it.
const quitWait = 2 * time.Second

// session is one connection to a peer. open makes it ready for MAIL; from then on
// two goroutines have it, a writer (writer.go) and a reader (reader.go), and what
// they share is guarded by the mutex of the pool.
type session struct {
	remote
	pool *pool
	w    *wire
	ext  extensions
	name string // what we said in EHLO

	binding binding // of the TLS that there is

	changed *sync.Cond // of pool.mu: anything below has
	// All below is guarded by pool.mu.
	ready    bool           // open has come to its end
	lockstep bool           // each command waits for its reply, whatever was offered
	expected []expectation  // replies to come, in order
	flight   []*transaction // begun and not done with, in order
	sending  *transaction   // whose content is being written and has no end yet
	fault    *fault         // why the connection is of no more use
	served   int            // transactions that the remote has answered to the end
	taken    int            // transactions begun
	most     int            // transactions it is good for
	rcptMax  int            // recipients that the remote takes in one transaction
	unclean  bool           // RSET must come before the next MAIL
	words    words          // by which its answers can be told apart
	chunked  bool           // content was sent by BDAT
	// knowsBDAT: a message was taken by it.
	knowsBDAT bool
	leaving   bool // nothing more is to be begun: QUIT
	// listening: the writer waits for a job, and nobody has woken it yet.
	listening bool
	begun     bool // the writer has a job and no transaction for it yet
	depth     depth
	opened    time.Time
	// hurry: writing has failed, with the error cut; what the remote has said about
	// it is read until then.
	hurry  time.Time
	cut    error
	cancel context.CancelFunc // ends open
}

// run is the life of a session.
func (s *session) run(ctx context.Context) {
	p := s.pool
	refused := s.open(ctx)
	p.mu.Lock()
	if refused != nil {
		p.refused(s, refused)
		p.serve()
		p.mu.Unlock()
		return
	}
	s.ready, s.opened, s.lockstep = true, time.Now(), p.lockstep
	if n := s.ext.limit("MAILMAX"); n > 0 {
		s.most = min(s.most, n)
	}
	s.rcptMax = s.ext.limit("RCPTMAX")
	s.arm()
	p.mu.Unlock()

	reading := make(chan struct{})
	go func() {
		defer close(reading)
		s.read()
	}()
	s.write()
	<-reading
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(s)
	if crowded(s.fault.said) {
		p.shrink(len(p.sessions))
	}
	s.bury()
	p.serve()
}

// leave decides whether the session begins nothing more, and reports whether it
// can go.
func (s *session) leave() bool {
	p := s.pool
	s.leaving = s.leaving || p.closed || s.taken >= s.most || time.Since(s.opened) > maxAge || p.working() > p.allowed
	return s.leaving && len(s.flight) == 0
}

func (s *session) pipelining() bool { return s.ext.has("PIPELINING") && !s.lockstep }

// idle reports whether the session has nothing to do and may get something.
func (s *session) idle() bool {
	return s.ready && s.fault == nil && len(s.flight) == 0 && !s.begun && !s.leave()
}

// room reports whether another transaction may be begun.
func (s *session) room() bool {
	if !s.ready || s.leaving || s.fault != nil {
		return false
	}
	return len(s.flight) == 0 || s.pipelining() && len(s.flight) < s.depth.limit()
}
