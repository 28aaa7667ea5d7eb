package relay

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postino/config"
	"postino/delivery/dns"
	"postino/delivery/tlspolicy"
	"postino/spool"
)

const (
	// mxConnections is how many connections an exchanger gets at a time: enough for a
	// campaign, few enough not to be refused for their number.
	mxConnections = 4
	// mxMessages is how many messages one of them carries at most.
	mxMessages = 100
	// mxAttempts is how many attempts run at a time, to all exchangers together.
	mxAttempts = 64
	// maxOpen is how many exchangers have pools of sessions at a time.
	maxOpen = 10_000
)

// MX delivers to the mail exchangers of the recipients' domains (RFC 5321 §5.1). It
// is made by NewMX and may be used by many goroutines.
type MX struct {
	config   config.MX
	timeouts config.Timeouts
	retry    config.Retry
	hostname string
	own      []string // the names by which others may mean us
	resolver *dns.Resolver
	policies *tlspolicy.Store
	known    *Memory

	mu     sync.Mutex
	hosts  map[netip.Addr]*host // guarded by mu
	closed bool                 // guarded by mu
}

// NewMX returns an MX that calls itself hostname in EHLO, and does not send mail
// back to exchangers with one of its own names. It finds the policies of domains in
// policies, and has them kept there. Nothing is looked up yet.
func NewMX(c config.MX, t config.Timeouts, retry config.Retry, hostname string, own []string, policies *tlspolicy.Store) (*MX, error) {
	x := &MX{config: c, timeouts: t, retry: retry, hostname: hostname, own: own, policies: policies, known: new(Memory), hosts: make(map[netip.Addr]*host)}
	var err error
	if c.Resolver != "" {
		x.resolver, err = dns.New(c.Resolver)
	} else {
		x.resolver, err = dns.System()
	}
	return x, err
}

// Remember has what is known of exchangers kept in m. Call it before Deliver.
func (x *MX) Remember(m *Memory) { x.known = m }

// Room is how many deliveries can be used at a time.
func (x *MX) Room() int { return mxAttempts }

// Deliver sends b's message to its recipients, who must be of one domain, and returns
// a Reply for each entry of b.Recipients, in that order. It tries one exchanger after
// the other for those whom the last one left without an answer for good, and no other
// one once the message may have been taken.
func (x *MX) Deliver(ctx context.Context, b *spool.Batch) []spool.Reply {
	replies := make([]spool.Reply, len(b.Recipients))
	to := valid(b, replies)
	if len(to) == 0 {
		return replies
	}
	list, reply := x.targets(ctx, b.Message.Recipients[b.Recipients[to[0]]].Address.Domain, wishOf(b.Message))
	for _, at := range to {
		replies[at] = reply
	}
	sessions := 0
	for i, t := range list {
		if len(to) == 0 || sessions == maxSessions || ctx.Err() != nil {
			break
		}
		before := slices.Clone(replies)
		if x.try(ctx, t, b, replies, to) {
			sessions++
		}
		for _, at := range to {
			if i > 0 {
				replies[at] = hopeful(before[at], replies[at])
			}
		}
		to = slices.DeleteFunc(slices.Clone(to), func(at int) bool { return !elsewhere(replies[at]) })
	}
	for _, at := range to {
		replies[at] = x.suspect(replies[at])
	}
	return replies
}

// suspect says of a connection that did not come about that none ever does, where that
// is so.
func (x *MX) suspect(r spool.Reply) spool.Reply {
	if r.Command == "connect" && r.Status == "4.4.1" && x.known.portClosed() {
		r.Fault = spool.FaultPort
		r.Remedy = fmt.Sprintf("no mail exchanger was ever reached at port %d, of several: many networks close it; name a smarthost in [relay], at port 587, or ask whoever runs the network", x.config.Port)
	}
	return r
}

// elsewhere reports whether another exchanger may do what one with this reply did not:
// not once the message may be there, nor what a server refused for good. That it is too
// large, has characters that one server does not know or requires TLS is what we say.
func elsewhere(r spool.Reply) bool {
	return !r.Maybe && (r.Class() == spool.Temporary || r.Code == 0 && (slices.Contains([]string{"5.3.4", "5.6.7", "5.7.30"}, r.Status)))
}

// try has one address take what it takes, and reports whether a server answered
// there.
func (x *MX) try(ctx context.Context, t target, b *spool.Batch, replies []spool.Reply, to []int) (answered bool) {
	h := x.host(t)
	defer x.leave(h)
	now := time.Now()
	if why, down := h.down(now); down {
		for _, at := range to {
			replies[at] = why
		}
		return false
	}
	l := h.line(x, t)
	l.deliver(ctx, b, replies, to)
	h.hang(l)
	for _, at := range to {
		answered = answered || replies[at].Host != ""
	}
	if last := replies[to[0]]; t.demand.testing != "" && answered && !strings.HasSuffix(last.TLS, " verified") {
		x.policies.Tell(ctx, t.demand.testing, fmt.Errorf("%s has not proved its name: %s", t.name, cmp.Or(last.TLS, "no TLS")))
	}
	if ctx.Err() == nil {
		h.note(t, l, replies[to[0]], now, x.retry)
	}
	return answered
}

// peer is how a session with an exchanger is opened.
func (x *MX) peer(t target, plaintext bool) *peer {
	p := &peer{
		network: "tcp", address: net.JoinHostPort(t.addr.String(), strconv.Itoa(x.config.Port)), host: t.name,
		policy: config.Opportunistic, demand: t.demand, hello: x.hostname, time: x.timeouts,
		notUs: !x.config.AllowLoopback,
	}
	if p.host == "" {
		p.host = t.addr.String()
	}
	switch {
	case t.demand.by != "":
		p.policy = config.StartTLS
	case x.config.TLS == config.MXNoTLS, plaintext:
		p.policy = config.NoTLS
	}
	return p
}

// Refresh fetches policies of domains again that are not fresh any more.
func (x *MX) Refresh(ctx context.Context) { x.policies.Refresh(ctx, x.resolver, x.mayReach) }

// Demands says in words what TLS with the exchangers of a domain must come to now, or
// why nothing can be sent to any of them.
func (x *MX) Demands(ctx context.Context, domain string) (tls, problem string) {
	list, why := x.targets(ctx, domain, wish{})
	switch {
	case ctx.Err() != nil:
		return "", "its mail exchangers could not be found out in time"
	case len(list) == 0:
		return "", why.Text
	}
	var words []string
	for _, t := range list {
		word := t.demand.by
		switch {
		case x.config.TLS == config.MXNoTLS:
			word = "none"
		case word == "":
			word = "opportunistic"
		case t.demand.anybody:
			word += ", nothing verified"
		}
		if t.demand.testing != "" {
			word += ", MTA-STS testing"
		}
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return strings.Join(words, "; "), ""
}

// Close ends the connections. No Deliver may be under way.
func (x *MX) Close() {
	x.mu.Lock()
	x.closed = true
	hosts := x.hosts
	x.hosts = nil
	x.mu.Unlock()
	for _, h := range hosts {
		h.close()
	}
}

// host is what is remembered of an address, in use until leave.
func (x *MX) host(t target) *host {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.hosts[t.addr]
	if h == nil {
		h = &host{key: x.key(t), known: x.known}
		if x.hosts == nil { // closed
			return h
		}
		if len(x.hosts) >= maxOpen {
			x.makeRoom()
		}
		x.hosts[t.addr] = h
	}
	h.users++
	return h
}

// key is under what a target is known.
func (x *MX) key(t target) string {
	return netip.AddrPortFrom(t.addr, uint16(x.config.Port)).String()
}

// works reports whether one of these took a message, and answered since.
func (x *MX) works(list []target) bool {
	return slices.ContainsFunc(list, func(t target) bool { return x.known.works(x.key(t)) })
}

func (x *MX) leave(h *host) {
	x.mu.Lock()
	defer x.mu.Unlock()
	h.users--
}

// makeRoom closes a tenth, of those that nobody uses. Called with mu held.
func (x *MX) makeRoom() {
	for addr, h := range x.hosts {
		if len(x.hosts) <= maxOpen*9/10 {
			return
		}
		if h.users == 0 {
			go h.close() // idle connections end by QUIT
			delete(x.hosts, addr)
		}
	}
}
