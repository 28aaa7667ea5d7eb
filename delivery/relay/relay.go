// Package relay delivers by SMTP to the configured relay, the smarthost: it keeps
// connections, protects them, says who we are and tells for each recipient what
// the relay answered. Nothing it meets is an error of its own; all of it is a
// [spool.Reply], and nothing is logged here.
//
// The bottom is the guard (guard.go), which reads replies strictly and gives every
// wait its deadline. A session stands on it (session.go, auth.go): from the
// connection to where MAIL may follow. A transaction is one message over a session
// (transaction.go); go-smtp's client writes its commands and content. Relay keeps
// the sessions (relay.go, pool.go). It is a large package because the parts below
// Relay would otherwise have to show each other the state of a connection.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"postino/config"
	"postino/spool"
)

// idleTime is how long a connection is kept for the next message: long enough for
// a burst of mail, short enough not to be a burden to the relay.
const idleTime = 10 * time.Second

// Relay is a smarthost and the connections to it. It is made by New and may be
// used by many goroutines.
type Relay struct {
	config   *config.Relay
	timeouts config.Timeouts
	hostname string

	slots chan struct{} // one for each connection that is in use
	ended sync.WaitGroup

	mu     sync.Mutex
	idle   []*session // guarded by mu
	closed bool       // guarded by mu
}

// New returns a Relay for c, which names at least one host. hostname is what it
// calls itself in EHLO; without a dot in it, the address of its end of each
// connection stands in. Nothing is read or connected yet: a missing ca_file or
// password defers mail until it is there.
func New(c *config.Relay, t config.Timeouts, hostname string) (*Relay, error) {
	if len(c.Host) == 0 {
		return nil, errors.New("relay.host is empty: name the host that takes our mail")
	}
	for name, d := range map[string]config.Duration{
		"connect": t.Connect, "greeting": t.Greeting, "command": t.Command, "data": t.Data, "dot": t.Dot,
	} {
		if d <= 0 {
			return nil, fmt.Errorf("timeouts.%s is not a positive duration", name)
		}
	}
	return &Relay{
		config:   c,
		timeouts: t,
		hostname: hostname,
		slots:    make(chan struct{}, max(1, c.MaxConnections)),
	}, nil
}

// Hop names the relay as attempts and logs do: "relay smtp.example.net:587".
func (r *Relay) Hop() string {
	return "relay " + net.JoinHostPort(r.config.Host[0], strconv.Itoa(r.config.Port))
}

// Deliver sends b's message to its recipients and returns a Reply for each entry
// of b.Recipients, in that order. It waits for one of the MaxConnections
// connections; when ctx ends it closes its own at once, and who has no answer by
// then has a temporary Reply, with Maybe set after the end of the content.
func (r *Relay) Deliver(ctx context.Context, b *spool.Batch) []spool.Reply {
	j := &job{Batch: b, replies: make([]spool.Reply, len(b.Recipients))}
	to := j.valid()
	if len(to) == 0 {
		return j.replies
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		j.settle(to, remote{}.local("connect", "4.3.2", "interrupted while waiting for a free connection"))
		return j.replies
	}
	if last := r.deliver(ctx, j, to); last != nil {
		r.release(last)
	} else {
		<-r.slots
	}
	return j.replies
}

// valid settles the recipients whose address, or whose sender's, cannot be written
// in a command, and returns the positions of the others. Addresses are checked on
// their way in; this is so that no other way in can have commands injected.
func (j *job) valid() []int {
	var to []int
	for i := range j.Recipients {
		switch {
		case !j.Message.Sender.IsNull() && badAddress(j.Message.Sender):
			j.replies[i] = remote{}.local("MAIL", "5.1.7", "the sender's address is not valid")
		case badAddress(j.recipient(i).Address):
			j.replies[i] = remote{}.local("RCPT", "5.1.3", "the recipient's address is not valid")
		default:
			to = append(to, i)
		}
	}
	return to
}

// deliver tries an idle connection and then the hosts in order, until every
// recipient has an answer about itself. It returns the session to release, if
// one is left.
func (r *Relay) deliver(ctx context.Context, j *job, to []int) *session {
	next := 0
	s := r.takeIdle()
	if s != nil {
		s.watch(ctx)
		v := s.send(j, to)
		to = v.elsewhere
		// A connection that the relay ended while it was idle says nothing about
		// the message, which then goes over a new one.
		if !v.stale {
			next = s.at + 1
		}
	}
	for ; next < len(r.config.Host) && len(to) > 0 && ctx.Err() == nil; next++ {
		if s != nil {
			s.end()
		}
		var refused *refusal
		if s, refused = r.open(ctx, next); refused != nil {
			j.settle(to, refused.Reply)
			if refused.final {
				break
			}
			continue
		}
		to = s.send(j, to).elsewhere
	}
	return s
}

// send runs transactions until no recipient is left for another one. Each takes at
// least one recipient, so it comes to an end.
func (s *session) send(j *job, to []int) verdict {
	v := s.transact(j, to)
	for len(v.again) > 0 && s.taken < s.most {
		v = s.transact(j, v.again)
		v.stale = false
	}
	return v
}
