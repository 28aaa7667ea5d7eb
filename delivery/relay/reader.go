package relay

import (
	"errors"
	"net"
	"time"

	"postino/spool"
)

// A session's reader takes each reply to be the answer to the oldest command that
// has none (RFC 2920 §3.1), whoever's command that is, and settles what it decides.
// It is the one that ends a session: by a fault.

const (
	// earlyWait is how long a reply is waited for after writing has failed. It often
	// says why, and should be there already.
	earlyWait = 2 * time.Second
)

// The steps of a transaction, as Replies name them, and two of the session's own.
const (
	stepMail  = "MAIL"
	stepRcpt  = "RCPT"
	stepData  = "DATA"
	stepDot   = "dot" // the end of the content, be it by a dot or the last of BDAT
	stepReset = "RSET"
	stepQuit  = "QUIT"
)

// expectation is a reply to come. What is not of a transaction has no t.
type expectation struct {
	step string
	t    *transaction
}

// fault is why a connection is of no more use.
type fault struct {
	err  error
	said *answer // the remote's own words, where it announced it: 421, or an early refusal
}

var (
	errInterrupted = net.ErrClosed                           // as if the socket were closed under us, which it is next
	errQuit        = errors.New("the session ended by QUIT") // nobody sees it
)

// fail ends the session; only the first fault counts. All is settled by bury,
// when writer and reader are done.
func (s *session) fail(f fault) {
	if s.fault != nil {
		return
	}
	s.fault = &f
	s.w.socket.Close() // TLS or not: nothing more is written
	s.changed.Signal()
}

// expect announces a reply. The caller holds the mutex of the pool.
func (s *session) expect(step string, t *transaction) {
	s.expected = append(s.expected, expectation{step, t})
	if len(s.expected) == 1 {
		s.arm()
	}
}

// arm gives the reply that is due next its time. It is for the whole reply,
// however the remote drips.
func (s *session) arm() {
	deadline := time.Time{} // an idle session has its own end; one that sends content too
	if len(s.expected) > 0 {
		deadline = time.Now().Add(s.patience(s.expected[0].step))
	}
	if s.cut != nil && (deadline.IsZero() || s.hurry.Before(deadline)) {
		deadline = s.hurry
	}
	s.w.SetReadDeadline(deadline) // fails on a closed socket alone, and so does the read
}

func (s *session) patience(step string) time.Duration {
	switch step {
	case stepDot:
		return time.Duration(s.pool.peer.time.Dot)
	case stepQuit:
		return quitWait
	}
	return time.Duration(s.pool.peer.time.Command)
}

// read is the reader: it ends when the session does.
func (s *session) read() {
	for {
		a, err := s.w.reply()
		s.pool.mu.Lock()
		switch {
		case s.fault != nil:
		case err != nil && s.cut != nil:
			s.fail(fault{err: s.cut})
		case err != nil:
			s.fail(fault{err: err})
		case len(s.expected) == 0:
			s.unasked(a)
		default:
			s.take(a)
		}
		ended := s.fault != nil
		s.changed.Signal()
		s.pool.mu.Unlock()
		if ended {
			return
		}
	}
}

// unasked is about a reply that no command has caused. A refusal while content is
// sent is about that content.
func (s *session) unasked(a answer) {
	switch {
	case a.code == 421 || s.sending != nil && a.code >= 400:
		s.fail(fault{errUnasked, &a})
	default:
		s.fail(fault{err: errUnasked})
	}
}

// take gives a reply to the command that waits for it.
func (s *session) take(a answer) {
	e := s.expected[0]
	want := 2
	if e.step == stepData {
		want = 3
	}
	class := a.code / 100
	switch {
	case e.step == stepQuit:
		s.fail(fault{err: errQuit})
		return
	case a.code == 421 && e.step != stepDot:
		s.fail(fault{errUnasked, &a})
		return
	case class < 4 && class != want:
		// Who answers what can no longer be told.
		s.fail(fault{errMisplaced, &a})
		return
	case e.step == stepReset && class != 2:
		s.fail(fault{err: errUnasked})
		return
	case e.step == stepDot && e.t.bdat && !s.knowsBDAT && !e.t.hopeless() && (a.code == 500 || a.code == 502):
		s.pool.confused = true
		s.fail(fault{err: errNoBDAT})
		return
	case s.chunked && s.words.mistaken(e.step, a):
		s.pool.confused = true
		s.fail(fault{errMisplaced, &a})
		return
	}
	s.words.learn(e.step, a)
	if !s.heard(e, a) { // another one is due to the same command
		s.arm()
		return
	}
	s.expected = s.expected[1:]
	s.arm()
	if a.code == 421 {
		s.fail(fault{errUnasked, &a})
	}
}

// heard applies a reply to its transaction, and reports whether it was the last
// one to its command.
func (s *session) heard(e expectation, a answer) bool {
	t := e.t
	switch e.step {
	case stepMail:
		t.mailed = true
		if a.code/100 != 2 {
			t.refused, t.soured = true, true
			if t.unknown(a) {
				t.plainly = t.to
			} else {
				t.settle(t.to, s.judgeMail(stepMail, a))
			}
		}
		s.giveUp(t)
	case stepRcpt:
		if !t.refused {
			s.heardRCPT(t, a)
		}
		s.giveUp(t)
	case stepData:
		if t.goAhead = a.code/100 == 3; t.goAhead {
			return true
		}
		if !t.refused {
			t.settle(t.accepted, s.judgeMail(stepData, a))
			t.accepted, t.refused, t.soured = nil, true, true
		}
		s.finish(t, false)
	case stepDot:
		return s.heardDot(t, a)
	}
	return true
}

// giveUp ends a transaction that comes to nothing before its content. With
// PIPELINING the remote has the commands of the content already.
func (s *session) giveUp(t *transaction) {
	if !s.pipelining() && t.hopeless() {
		s.finish(t, false)
	}
}

func (s *session) heardRCPT(t *transaction, a answer) {
	at := t.to[t.answered]
	t.answered++
	reply := s.judgeMail(stepRcpt, a)
	switch {
	case a.code/100 == 2:
		t.accepted = append(t.accepted, at)
	case t.unknown(a):
		t.plainly = append(t.plainly, at)
	case len(t.accepted) > 0 && tooMany(reply):
		if s.rcptMax == 0 || len(t.accepted) < s.rcptMax {
			s.rcptMax = len(t.accepted)
		}
		t.again = append(t.again, refusedRecipient{at, temporary(reply)})
	default:
		t.settle([]int{at}, reply)
		t.soured = true
	}
}

// heardDot is about the end of the content: one reply for all, or, by LMTP, one
// for each recipient that was accepted (RFC 2033 §4.2).
func (s *session) heardDot(t *transaction, a answer) bool {
	if t.hopeless() {
		s.unclean = true // the content may not have ended what MAIL began
		s.finish(t, false)
		return true
	}
	reply := s.judgeMail(stepDot, a)
	reply.Notifies = reply.Class() == spool.Success && s.ext.has("DSN") && !t.plain
	reply.Unannounced = reply.Class() == spool.Success && t.Message.EightBit && !s.ext.has("8BITMIME")
	s.knowsBDAT = s.knowsBDAT || t.bdat && reply.Class() == spool.Success
	t.soured = t.soured || reply.Class() != spool.Success
	whom := t.accepted
	if s.pool.peer.lmtp && a.code != 421 {
		whom = whom[:1]
	}
	t.accepted = t.accepted[len(whom):]
	t.settle(whom, reply)
	if len(t.accepted) > 0 {
		return false
	}
	s.finish(t, reply.Class() == spool.Success)
	return true
}

// judgeMail is judge for what concerns the mail: refusals that are about us have
// class 4.
func (s *session) judgeMail(command string, a answer) spool.Reply {
	reply := s.judge(command, a)
	// 503 after a command that was in sequence is the session's fault.
	if aboutUs(reply) || reply.Code == 503 {
		reply = temporary(reply)
	}
	return reply
}

// unknown reports whether a refusal is about a parameter that t may go without.
func (t *transaction) unknown(a answer) bool { return a.code == 555 && !t.plain }

// retryPlainly has those sent to at once whose parameters were not known.
func (s *session) retryPlainly(t *transaction) {
	if len(t.plainly) > 0 {
		s.pool.put(&job{delivery: t.delivery, to: t.plainly, moved: t.moved, plain: true}, false)
	}
}

// finish ends a transaction whose replies are complete. When it went well those
// whom there was no room for are sent to at once, in another one.
func (s *session) finish(t *transaction, well bool) {
	t.over = true
	t.content.close()
	s.flight = s.flight[1:] // replies come in order, and so do the ends
	s.served++
	s.depth.answered(t.begun, len(s.flight) > 0)
	s.unclean = s.unclean || t.end == 0
	s.retryPlainly(t)
	var again []int
	for _, r := range t.again {
		if well {
			again = append(again, r.at)
		} else {
			t.settle([]int{r.at}, r.reply)
		}
	}
	if well {
		s.pool.went()
	}
	if len(again) > 0 {
		s.pool.put(&job{delivery: t.delivery, to: again, plain: t.plain}, false)
	}
	// A session that refused somebody is not kept: who comes again is to have a new
	// one, perhaps with another server behind the name.
	s.leaving = s.leaving || t.soured && len(s.flight) == 0 && len(s.pool.waiting) == 0
}
