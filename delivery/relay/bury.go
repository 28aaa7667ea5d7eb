package relay

import (
	"errors"

	"postino/spool"
)

var (
	// errMisplaced is a reply of a class that its command cannot have.
	errMisplaced = errors.New("a reply out of place")
	// errNoBDAT: the remote offers CHUNKING and does not know BDAT, so that it takes the
	// content that follows for commands. Of the message that it answers so it has nothing;
	// what was sent behind that is in doubt, since not everybody means by 500 what it says.
	errNoBDAT = errors.New("CHUNKING is offered, and BDAT not known")
)

// bury settles what a session had under way when it ended. Only a message whose
// end has left this machine may have been taken by the remote (RFC 1047): that
// one is in doubt, and no other host is asked. Of the others nothing can have been
// taken.
func (s *session) bury() {
	f := s.fault
	s.pool.lockstep = s.pool.lockstep || s.deaf()
	expected, flight := s.expected, s.flight
	s.expected, s.flight = nil, nil
	for n, t := range flight {
		t.content.close()
		s.retryPlainly(t)
		for _, r := range t.again {
			t.settle([]int{r.at}, r.reply)
		}
		step := stepMail
		for _, e := range expected {
			if e.t == t {
				step = e.step
				break
			}
		}
		if t == s.sending || len(expected) == 0 {
			step = stepData
		}
		undecided := t.undecided()
		switch {
		case len(undecided) == 0:
		case n == 0 && errors.Is(f.err, errNoBDAT):
			s.pool.put(&job{delivery: t.delivery, to: undecided, moved: t.moved, plain: t.plain}, true)
		case t == s.sending && f.said != nil && f.said.code != 421:
			t.settle(undecided, s.judgeMail(stepData, *f.said))
		case s.inDoubt(t):
			reply := s.lost(stepDot)
			reply.Code = 0
			reply.Text = spool.CleanText("the message may have been delivered: " + reply.Text)
			reply.Maybe = true
			t.settle(undecided, reply)
		case s.untouched(n, t):
			s.pool.put(&job{delivery: t.delivery, to: t.to, moved: t.moved || !s.surplus(), plain: t.plain}, true)
		default:
			t.pass(undecided, s.lost(step))
		}
	}
}

// deaf reports whether the remote seems to have dropped what was sent ahead, as some
// firewalls do: it has answered MAIL, and nothing behind that. The next session finds out
// whether it was so.
func (s *session) deaf() bool {
	if !s.pipelining() || s.served > 0 || s.fault.said != nil || !timedOut(s.fault.err) || len(s.expected) == 0 {
		return false
	}
	e := s.expected[0]
	return e.t != nil && e.t.mailed && e.step != stepDot
}

// lost is the Reply to what waited for a reply to step.
func (s *session) lost(step string) spool.Reply {
	switch f := s.fault; {
	case f.said == nil:
		return s.broken(step, f.err)
	case errors.Is(f.err, errMisplaced):
		return s.misplaced(step, *f.said)
	default:
		return s.judgeMail(step, *f.said)
	}
}

// inDoubt reports whether the remote may have taken t. One that announces the end
// of the session has not: what came after the command that it answered so is lost.
func (s *session) inDoubt(t *transaction) bool {
	announced := s.fault.said != nil && s.fault.said.code == 421
	return !announced && t.end > 0 && s.w.written.Load() >= t.end
}

// untouched reports whether t, the nth under way, is good for a try on another
// connection: the remote has not looked at it, and there is a reason to think that
// this was the connection's fault. A connection that ends between two messages is
// replaced, and nobody notices. That is done once for a message, unless there are
// just too many connections and there is another, which may still be in its opening:
// this one may be answered first. Each time there is one less, so that it ends.
func (s *session) untouched(n int, t *transaction) bool {
	if t.mailed {
		return false
	}
	return s.surplus() || !t.moved && (n > 0 || s.served > 0)
}

// surplus reports whether the remote ended the session because it has enough others.
func (s *session) surplus() bool { return crowded(s.fault.said) && s.pool.hopeful() }
