package relay

import "time"

// A session's writer takes one job after the other and writes its commands and
// content, as far ahead of the replies as the remote allows: with PIPELINING
// (RFC 2920) the commands of a message go out together, and those of the next one
// right behind the content of this one; with CHUNKING (RFC 3030) the content does
// not wait either. Without PIPELINING each command waits for the reply to the last.

// gather is how much is gathered for one write, in octets.
const gather = 64 << 10

// write is the writer: it ends when the session has a fault, or with QUIT.
func (s *session) write() {
	for {
		j, more := s.next(len(s.w.out) == 0)
		switch {
		case !more:
			s.quit()
			return
		case j != nil:
			s.send(j)
		}
		// Commands for which there is no company go out now.
		if j == nil || len(s.w.out) >= gather {
			s.flush(time.Duration(s.pool.peer.time.Command))
		}
	}
}

// quit ends the session in order, in 2 s at most.
func (s *session) quit() {
	p := s.pool
	p.mu.Lock()
	if s.fault == nil {
		s.expect(stepQuit, nil)
		s.w.line("QUIT")
	}
	p.mu.Unlock()
	s.flush(quitWait)
}

// next returns the job to do next, waiting for one if it may; more is false when
// there will be none.
func (s *session) next(wait bool) (j *job, more bool) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for s.begun = false; ; {
		switch {
		case s.fault != nil, s.leave():
			return nil, false
		case !s.leaving && len(p.waiting) > 0 && s.room() && !p.tooSoon():
			j, p.waiting = p.waiting[0], p.waiting[1:]
			s.taken++
			s.begun = true
			p.spend()
			p.serve()
			return j, true
		case !wait:
			return nil, true
		}
		s.listen()
	}
}

// listen waits until something has changed. A session that nobody wants for
// the idle time of its pool leaves.
func (s *session) listen() {
	if len(s.flight) == 0 {
		idle := time.AfterFunc(s.pool.idle, func() {
			s.pool.mu.Lock()
			defer s.pool.mu.Unlock()
			s.leaving = s.leaving || s.listening && len(s.flight) == 0
			s.changed.Signal()
		})
		defer idle.Stop()
	}
	s.listening = true
	s.changed.Wait()
	s.listening = false
}

// flush writes what is gathered. When that fails the reader gets a moment to find
// out why.
func (s *session) flush(patience time.Duration) bool {
	err := s.w.flush(time.Now().Add(patience))
	if err == nil {
		return true
	}
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.fault == nil && s.cut == nil {
		s.cut, s.hurry = err, time.Now().Add(earlyWait)
		s.arm()
	}
	for s.fault == nil {
		s.changed.Wait()
	}
	return false
}

// say adds a command of t. Without PIPELINING it waits for the reply. It reports
// whether the session, and t with it, goes on.
func (s *session) say(step string, t *transaction, line string) bool {
	s.pool.mu.Lock()
	s.w.line(line)
	s.expect(step, t)
	s.pool.mu.Unlock()
	switch {
	case !s.pipelining():
		over := false
		return s.await(func() bool {
			over = t != nil && t.over
			return len(s.expected) == 0
		}) && !over
	case len(s.w.out) >= gather:
		return s.flush(time.Duration(s.pool.peer.time.Command))
	}
	return true
}

// await writes all that is gathered and waits until done says so, under the
// mutex. It reports whether the session goes on.
func (s *session) await(done func() bool) bool {
	if !s.flush(time.Duration(s.pool.peer.time.Command)) {
		return false
	}
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	for s.fault == nil && !done() {
		s.changed.Wait()
	}
	return s.fault == nil
}

// send runs a transaction for j.
func (s *session) send(j *job) {
	to := s.fit(j)
	if len(to) == 0 {
		return
	}
	c, err := openContent(j.Batch)
	s.pool.mu.Lock()
	if err != nil {
		s.begun = false
		j.settle(to, s.local("open", "4.3.0", "cannot read the content: "+err.Error()))
		s.pool.mu.Unlock()
		return
	}
	t := &transaction{job: &job{delivery: j.delivery, to: to, moved: j.moved, plain: j.plain}, content: c, begun: time.Now()}
	reset := s.unclean || len(s.flight) > 0 && !s.flight[len(s.flight)-1].certain()
	s.unclean = false
	s.flight = append(s.flight, t)
	s.begun = false
	s.pool.mu.Unlock()
	if reset && !s.say(stepReset, nil, "RSET") {
		return
	}
	if !s.say(stepMail, t, s.mail(j, to)) {
		return
	}
	for _, i := range to {
		if !s.say(stepRcpt, t, s.rcpt(j, i)) {
			return
		}
	}
	if s.chunks(t) {
		s.bdat(t)
	} else {
		s.data(t)
	}
}
