package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"postino/config"
	"postino/delivery/oauth"
	"postino/spool"
)

// Relay is a smarthost and the connections to it. It is made by New and may be
// used by many goroutines.
type Relay struct {
	config   *config.Relay
	timeouts config.Timeouts
	hostname string
	tokens   *oauth.Store
	pools    []*pool // one for each host
	faults   []config.Fault
	known    *Memory
	retry    config.Retry
}

// New returns a Relay for c, which names at least one host. hostname is what it
// calls itself in EHLO; without a dot in it, the address of its end of each
// connection stands in. Nothing is read or connected yet: a missing ca_file or
// password defers mail until it is there. tokens is asked for access tokens where c
// wants such, and may be nil otherwise.
func New(c *config.Relay, t config.Timeouts, hostname string, tokens *oauth.Store) (*Relay, error) {
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
	r := &Relay{config: c, timeouts: t, hostname: hostname, tokens: tokens, faults: c.Faults(), known: new(Memory), retry: config.Default().Retry}
	for at := range c.Host {
		r.pools = append(r.pools, newPool(r.peer(at), c.MaxConnections, c.MessagesPerConnection, c.Rate))
	}
	return r, nil
}

// Hop names the relay as attempts and logs do: "relay smtp.example.net:587".
func (r *Relay) Hop() string {
	return "relay " + net.JoinHostPort(r.config.Host[0], strconv.Itoa(r.config.Port))
}

// Room is how many messages Deliver can have under way now, at least 1: what the
// connections to that host carry at a time which carries most. It follows what the
// hosts bear. More calls wait inside, in the order they came.
func (r *Relay) Room() int {
	most := 1
	for _, p := range r.pools {
		most = max(most, p.room())
	}
	return most
}

// Deliver sends b's message to its recipients and returns a Reply for each entry
// of b.Recipients, in that order. Many calls share the connections, of which there
// are at most MaxConnections. When ctx ends it closes at once those that carry a
// part of b, and who has no answer by then has a temporary Reply, with Maybe set
// after the end of the content.
//
// The content may be opened by several goroutines at a time.
func (r *Relay) Deliver(ctx context.Context, b *spool.Batch) []spool.Reply {
	replies := make([]spool.Reply, len(b.Recipients))
	to := valid(b, replies)
	down := r.down()
	for _, p := range r.pools {
		if len(to) == 0 {
			break
		}
		before, first := slices.Clone(replies), to[0]
		if why, down := down[p]; down {
			for _, at := range to {
				if replies[at].Status == "" {
					replies[at] = why
				}
			}
			continue
		}
		elsewhere := p.deliver(ctx, b, replies, to)
		if ctx.Err() == nil {
			r.note(p, replies[first])
		}
		for _, at := range elsewhere {
			replies[at] = hopeful(before[at], replies[at])
		}
		to = elsewhere
	}
	if ctx.Err() != nil {
		return replies // it was us who ended it
	}
	for i := range replies {
		replies[i] = blame(r.faults, replies[i])
	}
	return replies
}

// hopeful is what is known of a recipient after two hosts could not do it: what one
// cannot do for good, such as a message of that size, the other may when it is back.
func hopeful(before, now spool.Reply) spool.Reply {
	if before.Status != "" && before.Class() == spool.Temporary && now.Class() == spool.Permanent && now.Code == 0 {
		return before
	}
	return now
}

// Remember has what is known of the hosts kept in m, and hosts that are down left alone
// as retry says. Call it before Deliver.
func (r *Relay) Remember(m *Memory, retry config.Retry) {
	r.known, r.retry = m, retry
	for _, p := range r.pools {
		m.with(p.peer.address, func(h *Host) { p.remember(h.Connections) })
	}
}

// down are the hosts to pass over, and why: those that are down, where there is one that
// is not.
func (r *Relay) down() map[*pool]spool.Reply {
	if len(r.pools) == 1 {
		return nil
	}
	now, down := time.Now(), make(map[*pool]spool.Reply)
	for _, p := range r.pools {
		r.known.with(p.peer.address, func(h *Host) {
			if h.down(now) {
				down[p] = h.last
			}
		})
	}
	if len(down) == len(r.pools) {
		return nil
	}
	return down
}

func (r *Relay) note(p *pool, reply spool.Reply) {
	bears := p.bears()
	r.known.with(p.peer.address, func(h *Host) {
		h.Connections = bears
		h.note(reply, time.Now(), r.retry)
	})
}

// valid settles the recipients whose address, or whose sender's, cannot be written
// in a command, and returns the positions of the others. Addresses are checked on
// their way in; this is so that no other way in can have commands injected.
func valid(b *spool.Batch, replies []spool.Reply) (to []int) {
	for i, n := range b.Recipients {
		switch {
		case !b.Message.Sender.IsNull() && badAddress(b.Message.Sender):
			replies[i] = remote{}.local("MAIL", "5.1.7", "the sender's address is not valid")
		case badAddress(b.Message.Recipients[n].Address):
			replies[i] = remote{}.local("RCPT", "5.1.3", "the recipient's address is not valid")
		default:
			to = append(to, i)
		}
	}
	return to
}

// Close ends the idle connections with QUIT, in 2 s at most, and waits for those
// that are being ended. No Deliver may be under way.
func (r *Relay) Close() {
	for _, p := range r.pools {
		p.close()
	}
}
