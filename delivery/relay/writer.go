package relay

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// A session's writer takes one job after the other and writes its commands and
// content, as far ahead of the replies as the remote allows: with PIPELINING
// (RFC 2920) the commands of a message go out together, and those of the next one
// right behind the content of this one; with CHUNKING (RFC 3030) the content does
// not wait either. Without PIPELINING each command waits for the reply to the last.

const (
	// gather is how much is gathered for one write, in octets.
	gather = 64 << 10
	// contentTime and contentRate bound how long the content of one message may
	// take in all, over and above the timeout of each write: a quarter of an hour,
	// and a second for each 4 KiB. A slower remote would hold a connection for days.
	contentTime = 15 * time.Minute
	contentRate = 4 << 10
)

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
	s.ready, s.opened = true, time.Now()
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
// idleTime leaves.
func (s *session) listen() {
	if len(s.flight) == 0 {
		idle := time.AfterFunc(idleTime, func() {
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

// leave decides whether the session begins nothing more, and reports whether it
// can go.
func (s *session) leave() bool {
	p := s.pool
	s.leaving = s.leaving || p.closed || s.taken >= s.most || time.Since(s.opened) > maxAge || p.working() > p.allowed
	return s.leaving && len(s.flight) == 0
}

func (s *session) pipelining() bool { return s.ext.has("PIPELINING") }

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
	t := &transaction{job: &job{delivery: j.delivery, to: to, moved: j.moved}, content: c, begun: time.Now()}
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
		if !s.say(stepRcpt, t, s.rcpt(j.recipient(i))) {
			return
		}
	}
	if s.chunks(t) {
		s.bdat(t)
	} else {
		s.data(t)
	}
}

// chunks reports whether t goes by BDAT. A yes to it has the class of one to MAIL or
// RCPT, where DATA has a 354 of its own: so the remote must answer in words of which
// it can be seen that it did not answer once too often.
func (s *session) chunks(t *transaction) bool {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	chunks := s.words.differ() && !s.pool.confused && s.ext.has("CHUNKING") && t.content.ReadCloser == nil && !s.pool.peer.lmtp
	s.chunked = s.chunked || chunks
	return chunks
}

// bdat sends the content in one chunk.
func (s *session) bdat(t *transaction) {
	s.w.append(func(out []byte) []byte {
		var l lines
		command := len(out)
		out = l.end(l.add(out, t.content.text))
		return slices.Insert(out, command, fmt.Appendf(nil, "BDAT %d LAST\r\n", len(out)-command)...)
	})
	s.ended(t)
}

// ended notes that the content of t is complete in what is gathered.
func (s *session) ended(t *transaction) {
	s.pool.mu.Lock()
	t.end = s.w.queued
	s.sending = nil
	s.expect(stepDot, t)
	s.pool.mu.Unlock()
	if !s.pipelining() {
		s.await(func() bool { return t.over })
	}
}

// data sends the content by DATA. Until its end is answered the only way out is to
// close the socket: anything sent would end the content and have it taken as it is.
func (s *session) data(t *transaction) {
	if !s.say(stepData, t, "DATA") || !s.await(func() bool { return t.goAhead || t.over }) {
		return
	}
	s.pool.mu.Lock()
	over, hopeless := t.over, t.hopeless()
	switch {
	case over:
	case hopeless && s.pool.peer.lmtp:
		// Nobody gets a reply, so that none can be waited for.
		s.fail(fault{err: errUnasked})
		over = true
	case !hopeless:
		s.sending = t
	}
	s.pool.mu.Unlock()
	switch {
	case over:
		return
	case hopeless:
		s.w.line(".") // an empty message to nobody; what becomes of it does not matter
		s.ended(t)
		return
	}
	if alive, err := s.body(t); err != nil {
		s.pool.mu.Lock()
		t.settle(t.accepted, s.local("DATA", "4.3.0", "cannot read the content: "+err.Error()))
		t.accepted = nil
		s.fail(fault{err: errInterrupted})
		s.pool.mu.Unlock()
	} else if alive {
		s.ended(t)
	}
}

// body gathers the content of t and its end, and writes all but the last of it. It
// reports whether the session goes on; the error is one of reading.
func (s *session) body(t *transaction) (alive bool, err error) {
	l := lines{dots: true}
	if t.content.ReadCloser == nil {
		s.w.append(func(out []byte) []byte { return l.end(l.add(out, t.content.text)) })
		return true, nil
	}
	until := time.Now().Add(contentTime + time.Duration(t.Message.Size/contentRate)*time.Second)
	block := make([]byte, gather/2)
	for err == nil {
		var n int
		n, err = t.content.Read(block)
		s.w.append(func(out []byte) []byte { return l.add(out, block[:n]) })
		patience := min(time.Duration(s.pool.peer.time.Data), time.Until(until))
		if len(s.w.out) >= gather && !s.flush(patience) {
			return false, nil
		}
	}
	if err != io.EOF {
		return true, err
	}
	s.w.append(l.end)
	return true, nil
}
