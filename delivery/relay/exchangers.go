package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"postino/config"
	"postino/delivery/dns"
	"postino/spool"
)

const (
	// maxAddresses is how many addresses are tried in one attempt, and maxSessions in
	// how many of them a server may answer: enough to find one that works, and a
	// domain with a thousand exchangers costs no more than others.
	maxAddresses = 5
	maxSessions  = 2
	// lookupTime is how long is looked for them: a thousand exchangers without an
	// address, whose name servers are silent, hold nobody up for hours.
	lookupTime = 3 * time.Minute
)

// target is one address to try. Name is the exchanger's, empty for an address
// literal.
type target struct {
	name   string
	addr   netip.Addr
	demand demand
}

// exchanger is a host of a domain and how much it is preferred; lower is better.
type exchanger struct {
	name       string
	preference uint16
}

// targets finds where mail for a domain goes (RFC 5321 §5.1). It returns at most
// maxAddresses addresses in the order to try them; without one, the reply says why.
func (x *MX) targets(ctx context.Context, domain string, w wish) ([]target, spool.Reply) {
	if addr, literal := addressLiteral(domain); literal {
		if !addr.IsValid() {
			return nil, dnsReply("5.1.3", "%s is not an address literal", domain)
		}
		if !x.mayUse(addr) {
			return nil, dnsReply("5.4.6", "%s is this machine: mail would go in circles", domain)
		}
		return []target{{addr: addr, demand: x.ours()}}, spool.Reply{}
	}
	name, err := domain, error(nil)
	if !ascii(domain) { // names in ASCII may be what IDNA would not have: foo_bar, ab--c
		if name, err = idna.Lookup.ToASCII(domain); err != nil {
			return nil, dnsReply("5.1.2", "%s is not a domain name: %v", domain, err)
		}
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	list, o, reply := x.exchangers(ctx, name)
	if len(list) == 0 {
		return nil, reply
	}
	o.wish = w
	return x.addresses(ctx, o, list)
}

// addressLiteral reads "[192.0.2.1]" and "[IPv6:2001:db8::1]" (RFC 5321 §4.1.3).
func addressLiteral(domain string) (addr netip.Addr, literal bool) {
	text, ok := strings.CutPrefix(domain, "[")
	if !ok {
		return addr, false
	}
	text = strings.TrimSuffix(text, "]")
	if len(text) > 5 && strings.EqualFold(text[:5], "IPv6:") {
		text = text[5:]
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, true
	}
	return addr, true
}

// exchangers are the hosts for a domain, in the order to try them, those of one
// preference shuffled.
func (x *MX) exchangers(ctx context.Context, domain string) ([]exchanger, *owner, spool.Reply) {
	answer, err := x.resolver.MX(ctx, domain)
	switch {
	case errors.Is(err, dns.ErrNoName):
		return nil, nil, dnsReply("5.1.2", "there is no domain %s", domain)
	case errors.Is(err, dns.ErrNoData):
		// The implicit one. Where its address is validated, so is that nothing else is there.
		return []exchanger{{name: domain}}, x.owned(ctx, domain, true, domain), spool.Reply{}
	case err != nil:
		// Never the address of the domain instead: the exchangers may be elsewhere.
		return nil, nil, dnsReply("4.4.3", "%v", err)
	}
	if len(answer.Records) == 1 && answer.Records[0].Host == "" {
		return nil, nil, dnsReply("5.1.10", "%s takes no mail (RFC 7505)", domain)
	}
	list, reply := x.useful(domain, answer.Records)
	return list, x.owned(ctx, domain, answer.Authentic, domain, answer.Name), reply
}

// useful are those exchangers of a domain that mail may be sent to.
func (x *MX) useful(domain string, records []dns.MX) ([]exchanger, spool.Reply) {
	var list []exchanger
	for _, mx := range records {
		_, err := netip.ParseAddr(mx.Host)
		if mx.Host == "" || err == nil || mx.Host == "localhost" && !x.config.AllowLoopback {
			continue // of no use to anybody, whoever wrote it
		}
		if slices.ContainsFunc(x.own, func(name string) bool { return strings.EqualFold(name, mx.Host) }) {
			// Those that are not preferred to us would send it back (RFC 5321 §5.1).
			list = slices.DeleteFunc(list, func(e exchanger) bool { return e.preference >= mx.Preference })
			if len(list) == 0 {
				return nil, dnsReply("5.4.6", "we are the best mail exchanger of %s: mail would go in circles", domain)
			}
			break
		}
		list = append(list, exchanger{mx.Host, mx.Preference})
	}
	if len(list) == 0 {
		return nil, dnsReply("5.4.4", "the mail exchangers of %s are no host names", domain)
	}
	shuffleEqual(list)
	return list, spool.Reply{}
}

// shuffleEqual puts those of one preference in any order, so that they share the
// load.
func shuffleEqual(list []exchanger) {
	for start := 0; start < len(list); {
		end := start + 1
		for end < len(list) && list[end].preference == list[start].preference {
			end++
		}
		rand.Shuffle(end-start, func(i, j int) { list[start+i], list[start+j] = list[start+j], list[start+i] })
		start = end
	}
}

// addresses looks the hosts up until there are addresses enough. IPv6 and IPv4 are
// taken in turn within a preference, so that one broken family does not use all
// tries; the first is IPv4 where that alone is known to work.
func (x *MX) addresses(ctx context.Context, o *owner, list []exchanger) ([]target, spool.Reply) {
	var found []target
	s := &search{MX: x, owner: o, reply: dnsReply("4.4.4", "no mail exchanger of %s has an address", o.domain)}
	s.implicit = len(list) == 1 && list[0].name == o.domain
	for len(list) > 0 && len(found) < maxAddresses && ctx.Err() == nil {
		n := 1
		for n < len(list) && list[n].preference == list[0].preference {
			n++
		}
		s.four, s.six = nil, nil
		for _, e := range list[:n] {
			if len(found)+len(s.four)+len(s.six) < 2*maxAddresses {
				s.look(ctx, e.name)
			}
		}
		if s.ours {
			// As where it has our name: those that are not preferred to us would send it
			// back (RFC 5321 §5.1).
			break
		}
		if x.works(s.four) && !x.works(s.six) {
			found = append(found, interleave(s.four, s.six)...)
		} else {
			found = append(found, interleave(s.six, s.four)...)
		}
		list = list[n:]
	}
	return found[:min(len(found), maxAddresses)], s.reply
}

// search is one for the addresses of a domain's exchangers.
type search struct {
	*MX
	*owner
	implicit  bool // the domain itself is its only one
	four, six []target
	ours      bool        // one of them is this machine
	reply     spool.Reply // to be given when there are none
	soft      bool        // it is of something that may be otherwise later
}

// look finds the addresses of a host, as far as mail may be sent there.
func (s *search) look(ctx context.Context, host string) {
	answer, err := s.resolver.Addrs(ctx, host, family(s.config.IP))
	switch {
	case errors.Is(err, dns.ErrTemporary):
		s.reply, s.soft = dnsReply("4.4.3", "%v", err), true
		return
	case err != nil && s.implicit:
		s.reply = dnsReply("5.1.2", "%s has neither mail exchangers nor an address", s.domain)
	}
	usable := slices.DeleteFunc(slices.Clone(answer.Records), func(addr netip.Addr) bool { return !s.mayUse(addr) })
	s.ours = s.ours || !s.config.AllowLoopback && slices.ContainsFunc(answer.Records, isOurs)
	if len(usable) == 0 {
		if len(answer.Records) > 0 && !s.soft {
			s.reply = dnsReply("5.4.6", "%s, a mail exchanger of %s, is this machine or no host's address (%s)", host, s.domain, answer.Records[0])
		}
		return
	}
	d, why := s.demand(ctx, s.owner, host, answer)
	if why.Status != "" {
		s.reply, s.soft = why, true
		return
	}
	for _, addr := range usable {
		if addr.Is4() {
			s.four = append(s.four, target{host, addr, d})
		} else {
			s.six = append(s.six, target{host, addr, d})
		}
	}
}

func family(f config.IPFamily) dns.Family {
	return map[config.IPFamily]dns.Family{config.OnlyV4: dns.IPv4, config.OnlyV6: dns.IPv6}[f]
}

// interleave takes from each list in turn.
func interleave(a, b []target) []target {
	var out []target
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out
}

// mayUse reports whether mail may be sent to an address that a stranger's DNS names:
// not to this machine, whose services trust it, and not to what is no host.
func (x *MX) mayUse(addr netip.Addr) bool {
	return x.mayReach(addr) && (x.config.AllowLoopback || !isOurs(addr))
}

// mayReach reports whether a name of a stranger may have us connect to an address: it
// is a host, and not one that others cannot reach.
func (x *MX) mayReach(addr netip.Addr) bool {
	addr = addr.Unmap()
	if addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	return x.config.AllowLoopback || !addr.IsLoopback()
}

// isOurs reports whether an address is one by which others mean this machine.
func isOurs(addr netip.Addr) bool {
	addr = addr.Unmap()
	return !addr.IsLoopback() && slices.Contains(ownAddresses(), addr)
}

// ownAddresses are those of this machine's interfaces, as far as they can be found
// out.
func ownAddresses() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Addr
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr().Unmap())
		}
	}
	return own
}

// dnsReply is an outcome that no server was needed for.
func dnsReply(status, format string, args ...any) spool.Reply {
	return spool.Reply{Status: status, Text: spool.CleanText(fmt.Sprintf(format, args...)), Command: "dns"}
}
