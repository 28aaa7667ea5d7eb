package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postino/config"
	"postino/delivery/local"
	"postino/delivery/oauth"
	"postino/delivery/relay"
	"postino/delivery/tlspolicy"
	"postino/spool"
	"postino/spool/address"
)

// route is where mail goes: a Transport, and what its success means.
type route struct {
	hop       string
	transport Transport
	success   spool.Status
	keep      bool                                                           // content stays readable when the message is finished
	limit     func() int                                                     // attempts at a time
	close     func()                                                         // may be nil
	refresh   func(context.Context)                                          // fetches policies again before they are needed; may be nil
	demands   func(ctx context.Context, domain string) (tls, problem string) // in words; may be nil
	// byDomain: each domain of recipients is a next hop of its own.
	byDomain bool
	// remote: nothing goes this way without a network.
	remote bool
	// account is the user name at the relay; empty is none.
	account string
	sender  sender // who its mail is from
	// unsigned: what goes into a mailbox of this machine needs no signature.
	unsigned bool
}

// perDomain is how many attempts one domain may have under way at a time, of those of
// a route to many: as much as its connections can use, and a part of what all domains
// have, so that one that is dead leaves room for the others.
const perDomain = 16

// most is how many attempts one next hop of the route may have at a time.
func (r *route) most() int {
	if r.byDomain {
		return perDomain
	}
	return r.limit()
}

// ofOneUser is how many attempts of a route to many domains one user's mail may have
// under way at a time: whoever writes to many that are dead leaves a quarter to others.
func (r *route) ofOneUser() int { return r.limit() * 3 / 4 }

// localAttempts is how many attempts run at a time where no server is involved.
const localAttempts = 4

// severalMailboxes is how many of them may be for more than one mailbox.
const severalMailboxes = localAttempts / 2

// plan is a configuration in use: which way each recipient goes.
type plan struct {
	config  *config.Config
	sts     *tlspolicy.Store // outlives the plan
	tokens  *oauth.Store     // likewise
	known   *relay.Memory    // likewise
	routes  []*route         // those of config.Routes, in their order
	rest    *route           // where everything else goes
	here    *route           // where mail for this machine goes; nil: as all other
	targets *route           // of programs and files that aliases name
	forward address.Address  // who gets it instead; zero: nobody
	target  address.Address  // of mode redirect
	aliases *aliasFile
	keys    *keyring
	users   sync.WaitGroup // attempts that have it; added to under Runner.mu
}

// newPlan makes the routes of a configuration. Nothing is connected yet.
func newPlan(c *config.Config, sts *tlspolicy.Store, tokens *oauth.Store, known *relay.Memory) (*plan, error) {
	p := &plan{config: c, sts: sts, tokens: tokens, known: known, aliases: &aliasFile{path: c.Aliases.File}, keys: &keyring{keys: c.DKIM}}
	p.targets = newTargets(c)
	if c.Mode == config.Capture {
		p.rest = serverless("capture", capture{}, spool.Delivered)
		p.rest.keep = true
		return p, nil
	}
	var err error
	if c.Mode == config.Redirect {
		if p.target, err = address.Parse(c.RedirectTo); err != nil {
			return nil, fmt.Errorf("redirect_to: %w", err)
		}
	}
	for i := range c.Routes {
		r, routeErr := p.newRoute(&c.Routes[i])
		err = errors.Join(err, routeErr)
		if r != nil {
			r.sender = sender{c.Routes[i].From, c.Hostname}
		}
		p.routes = append(p.routes, r)
	}
	var restErr error
	if c.Relay != nil {
		p.rest, restErr = p.smarthost(c.Relay)
	} else {
		p.rest, restErr = p.exchangers()
	}
	var hereErr error
	if to := c.Local.Deliver; to.Forward != "" {
		p.forward, hereErr = address.Parse(to.Forward)
	} else if c.Local.Helper != "" {
		h := local.NewHelper(to.Transport, c.Local.Helper)
		p.here = serverless(h.Hop(), h, spool.Delivered)
		p.here.unsigned = true
	} else if to != (config.LocalDelivery{}) {
		p.here, hereErr = p.newRoute(&config.Route{Transport: to.Transport})
	}
	if err = errors.Join(err, restErr, hereErr); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func serverless(hop string, t Transport, success spool.Status) *route {
	return &route{hop: hop, transport: t, success: success, limit: func() int { return localAttempts }}
}

func (p *plan) newRoute(r *config.Route) (*route, error) {
	switch t := r.Transport; t.Kind {
	case config.ViaMX:
		return p.exchangers()
	case config.ViaLMTP:
		l := relay.NewLMTP(t, p.config.Timeouts, p.config.Hostname)
		return &route{hop: l.Hop(), transport: l, success: spool.Delivered, limit: l.Room, close: l.Close}, nil
	case config.ViaMaildir, config.ViaMbox, config.ViaPipe:
		s := local.New(t, p.config.Hostname)
		to := serverless(s.Hop(), s, spool.Delivered)
		to.unsigned = true
		return to, nil
	case config.ViaError:
		status := spool.Reply{Status: t.Status, Text: t.Text, Command: "route"}
		return serverless(t.String(), refuser(status), spool.Relayed), nil
	}
	return p.smarthost(r.Relay)
}

func (p *plan) smarthost(c *config.Relay) (*route, error) {
	r, err := relay.New(c, p.config.Timeouts, p.config.Hostname, p.tokens)
	if err != nil {
		return nil, err
	}
	r.Remember(p.known, p.config.Retry)
	return &route{hop: r.Hop(), account: c.Username, remote: !slices.ContainsFunc([]string(c.Host), onLoopback), transport: r, success: spool.Relayed, limit: r.Room, close: r.Close}, nil
}

// onLoopback reports whether a host is this machine, as far as its name tells.
func onLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || strings.EqualFold(host, "localhost")
}

func (p *plan) exchangers() (*route, error) {
	x, err := relay.NewMX(p.config.MX, p.config.Timeouts, p.config.Retry, p.config.Hostname, append([]string{p.config.Hostname}, p.config.LocalDomains...), p.sts)
	if err != nil {
		return nil, err
	}
	x.Remember(p.known)
	return &route{hop: "mx", byDomain: true, remote: !p.config.MX.AllowLoopback, transport: x, success: spool.Relayed, limit: x.Room, close: x.Close, refresh: x.Refresh, demands: x.Demands}, nil
}

// newTargets is the way to programs and files that aliases name, or says why none is.
func newTargets(c *config.Config) *route {
	if !c.Aliases.Programs {
		return serverless("aliases", refuser(programsOff()), spool.Relayed)
	}
	t := local.NewTargets(c.Aliases.RunAs, c.Aliases.Helper, c.Hostname)
	r := serverless(t.Hop(), t, spool.Delivered)
	r.unsigned = true
	return r
}

// all are the routes of the plan.
func (p *plan) all() []*route {
	list := append(slices.Clone(p.routes), p.rest)
	if p.here != nil {
		list = append(list, p.here)
	}
	if p.config.Aliases.Programs {
		list = append(list, p.targets)
	}
	return list
}

func (p *plan) close() {
	for _, r := range p.all() {
		if r != nil && r.close != nil {
			r.close()
		}
	}
}

// refresh has the first route that goes by MX refresh policies: all share them.
func (p *plan) refresh(ctx context.Context) {
	for _, r := range p.all() {
		if r.refresh != nil {
			r.refresh(ctx)
			return
		}
	}
}

// limit is how many attempts may run at a time.
func (p *plan) limit() int {
	n := 0
	for _, r := range p.all() {
		n += r.limit()
	}
	return n
}

// isHere reports whether a recipient is of this machine.
func (p *plan) isHere(rcpt *spool.Recipient) bool {
	return rcpt.Bare || isLocal(p.config, rcpt.Address.Domain)
}

// way is route for a recipient, who may be of this machine.
func (p *plan) way(sender address.Address, rcpt *spool.Recipient) (*route, string) {
	if rcpt.Target != "" {
		return p.targets, p.targets.hop
	}
	if p.here != nil && p.isHere(rcpt) {
		return p.here, p.here.hop
	}
	return p.route(sender, rcpt.Address)
}

// route finds the way of mail from one to another address, and the name of its next
// hop.
func (p *plan) route(sender, recipient address.Address) (*route, string) {
	r := p.rest
	for i := range p.routes {
		if p.config.Routes[i].Matches(sender, recipient) {
			r = p.routes[i]
			break
		}
	}
	if r.byDomain {
		return r, r.hop + " " + strings.ToLower(recipient.Domain)
	}
	return r, r.hop
}

// destinations is where mail for an address goes.
func (p *plan) destinations(a address.Address) []Destination {
	bare := a.Domain == "" || strings.EqualFold(a.Domain, "localhost")
	if bare {
		a.Domain = p.config.Domain
	}
	switch p.config.Mode {
	case config.Hold:
		return []Destination{{Address: a, Hop: holdHop}}
	case config.Redirect:
		a = p.target
	case config.Deliver:
		m := &spool.Message{Recipients: []spool.Recipient{{Address: a, Status: spool.Queued, Bare: bare}}}
		if attempt, rest := p.expand(m, []int{0}, time.Now()); attempt != nil {
			return p.ofAlias(a, attempt, len(rest) > 0)
		}
	}
	_, hop := p.way(address.Address{}, &spool.Recipient{Address: a, Bare: bare})
	return []Destination{{Address: a, Hop: hop}}
}

// ofAlias is where mail for an alias goes: to its children, to the mailbox itself, or
// nowhere, which the hop then says.
func (p *plan) ofAlias(a address.Address, attempt *spool.Attempt, itself bool) []Destination {
	var list []Destination
	if o := attempt.Outcomes[0]; itself {
		_, hop := p.way(address.Address{}, &spool.Recipient{Address: a, Bare: true})
		list = append(list, Destination{Address: a, Hop: hop})
	} else if o.Status != spool.Expanded {
		list = append(list, Destination{Address: a, Hop: "none: " + o.Reply.Said()})
	}
	for _, child := range attempt.Children {
		_, hop := p.way(address.Address{}, &child)
		list = append(list, Destination{Address: child.Address, Hop: hop})
	}
	return list
}

// leg is the part of an attempt that one next hop has to do with.
type leg struct {
	route *route
	hop   string
	batch *spool.Batch
	about [][]int // for each recipient of the batch, those of the message it stands for
	// offline: there is no network for it, so that nothing was attempted.
	offline bool
}

// share is the gate, beside that of the hop, that keeps one user from having all attempts
// of a route, and how many it lets in at a time; "" is none. It is that of the mailbox, or
// the program, that an attempt is for, which is its user's, who may lock it or let a
// program sleep; or, where mail goes to many domains, that of the user who wrote it.
func (l *leg) share() (gate string, most int) {
	switch to := l.batch.Recipients; {
	case l.route.byDomain:
		return l.route.hop + " of uid " + strconv.Itoa(l.batch.Message.Origin.UID), l.route.ofOneUser()
	case !l.route.unsigned:
		return "", 0
	case len(to) > 1:
		return l.hop + " for several", severalMailboxes
	default:
		rcpt := &l.batch.Message.Recipients[to[0]]
		return l.hop + " for " + cmp.Or(rcpt.Target, strings.ToLower(rcpt.Address.String())), 1
	}
}

// legs sorts the recipients to attempt by their next hop, in their order.
func (p *plan) legs(m *spool.Message, list []int) []*leg {
	if p.config.Mode == config.Redirect {
		return []*leg{p.redirected(m, list)}
	}
	type key struct {
		*route // two may have one relay, with other user names
		hop    string
		sender address.Address
	}
	var legs []*leg
	byWay := make(map[key]*leg)
	for _, n := range list {
		w := key{sender: m.SenderFor(&m.Recipients[n])}
		w.route, w.hop = p.way(w.sender, &m.Recipients[n])
		l := byWay[w]
		if l == nil {
			l = &leg{route: w.route, hop: w.hop, batch: &spool.Batch{Message: w.route.sender.envelope(from(w.sender, m))}}
			byWay[w] = l
			legs = append(legs, l)
		}
		l.batch.Recipients = append(l.batch.Recipients, n)
		l.about = append(l.about, []int{n})
	}
	return legs
}

// from is m with that reverse-path.
func from(sender address.Address, m *spool.Message) *spool.Message {
	if sender == m.Sender {
		return m
	}
	other := *m
	other.Sender, other.UTF8 = sender, m.UTF8 || sender.UTF8()
	return &other
}

// redirected is the one leg of mode redirect: one address instead of all recipients,
// which nobody reports to and nothing is sent to.
func (p *plan) redirected(m *spool.Message, list []int) *leg {
	other := *m
	other.Recipients = []spool.Recipient{{Address: p.target, Status: spool.Queued, Notify: []string{"NEVER"}}}
	r, hop := p.route(m.Sender, p.target)
	return &leg{route: r, hop: hop, batch: &spool.Batch{Message: r.sender.envelope(&other), Recipients: []int{0}}, about: [][]int{list}}
}
