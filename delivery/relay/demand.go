package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"postino/config"
	"postino/delivery/dns"
	"postino/delivery/tlspolicy"
	"postino/spool"
)

// demand is what TLS with an exchanger must come to, and who says so. The zero value
// demands nothing: TLS where it is offered, with anybody (RFC 7435).
type demand struct {
	// by is who demands it, as people read it: "DANE", "MTA-STS", "mx.tls"; empty is
	// nobody. Where TLS cannot be had as demanded nothing is sent.
	by string
	// proof is how a session that meets the demand is named after its TLS version.
	proof string
	// records are those that the server must match (RFC 7672); without any its
	// certificate must be of an authority that the system knows.
	records []dns.TLSA
	// names are those that the certificate may be for, the first one being asked for
	// (SNI); empty is the exchanger's.
	names []string
	// anybody: TLS is demanded, and nothing verified.
	anybody bool
	// testing is the domain whose MTA-STS policy would demand that the exchanger proves
	// its name, were it enforced; empty is none.
	testing string
}

// wish is what a message wants of TLS on its way (RFC 8689): that it is safe, or that
// nobody's demands but ours keep it from being sent.
type wish struct{ required, optional bool }

// wishOf is that of a message. A report is sent in any case (RFC 8689 §5).
func wishOf(m *spool.Message) wish {
	return wish{m.RequireTLS && !m.Sender.IsNull(), m.TLSOptional}
}

// key tells demands apart: mail with one must not go over a session made for another.
func (d demand) key() string {
	d.testing = "" // which demands nothing
	return fmt.Sprint(d)
}

// apply has t verify what is demanded.
func (d demand) apply(t *tls.Config) {
	if len(d.names) > 0 {
		t.ServerName = d.names[0]
	}
	switch {
	case d.anybody:
		t.InsecureSkipVerify = true
	case len(d.records) > 0:
		t.InsecureSkipVerify = true // the records stand in for the authorities
		t.VerifyConnection = tlspolicy.VerifyConnection(d.records, d.names)
	}
}

// because says in a Reply who demands what was not met.
func (d demand) because() string {
	if d.by == "" {
		return ""
	}
	return " (" + d.by + " demands one that is: mail waits)"
}

// withoutTLS says why nothing is sent to a peer that does not offer TLS.
func (p *peer) withoutTLS() string {
	if p.demand.by != "" {
		return p.demand.by + " demands TLS of " + p.host
	}
	return `if the relay has no TLS, set relay.tls = "none"`
}

// What proves a server, as Reply.TLS names it.
const (
	proofDANE = "dane"
	proofSTS  = "mta-sts"
)

// owner is what the owner of a domain demands of its exchangers.
type owner struct {
	domain string
	wish   wish // of the message
	// secure: who the exchangers are was validated (RFC 7672 §2.2.1).
	secure bool
	names  []string                         // of the domain: as in the address, and where its CNAME leads
	sts    func() (tlspolicy.Policy, error) // found once, when it is first needed
}

// owned is the owner of a domain whose exchangers an answer names.
func (x *MX) owned(ctx context.Context, domain string, secure bool, names ...string) *owner {
	return &owner{domain: domain, secure: secure, names: names, sts: sync.OnceValues(func() (tlspolicy.Policy, error) { return x.policies.Find(ctx, x.resolver, x.mayReach, domain) })}
}

// demand is what is demanded of an exchanger with these addresses. A Reply with a
// Status says that nothing may be sent there, and why. DANE goes before MTA-STS
// (RFC 8461 §2), which goes before what we demand of everybody.
func (x *MX) demand(ctx context.Context, o *owner, host string, addrs dns.Answer[netip.Addr]) (demand, spool.Reply) {
	switch {
	case x.config.TLS == config.MXNoTLS:
		return demand{}, spool.Reply{}
	case o.wish.optional:
		return x.ours(), spool.Reply{}
	}
	d, why := x.dane(ctx, o, host, addrs)
	if why.Status != "" || d.by != "" && !d.anybody {
		return d, why
	}
	p, err := o.sts()
	switch {
	case err != nil:
		return d, policyReply("it cannot be found out in time what the MTA-STS policy of %s is", o.domain)
	case p.Mode == tlspolicy.Enforce && !p.Allows(host):
		return d, policyReply("%s is not a mail exchanger that the MTA-STS policy of %s names: nothing is sent to it", host, o.domain)
	case p.Mode == tlspolicy.Enforce:
		return demand{by: "MTA-STS", proof: proofSTS}, spool.Reply{}
	case o.wish.required && !o.secure && !p.Allows(host):
		// Its name proves nothing: anybody may have put it there (RFC 8689 §4.2.1).
		return d, dnsReply("5.7.30", "the message requires TLS, and neither DNSSEC nor MTA-STS says that %s is a mail exchanger of %s", host, o.domain)
	case x.config.TLS == config.MXVerify:
		d = x.ours()
	case o.wish.required:
		d = demand{by: "REQUIRETLS"}
	case p.Mode == tlspolicy.Testing:
		d.testing = o.domain
		if !p.Allows(host) {
			x.policies.Tell(ctx, o.domain, fmt.Errorf("it does not name %s", host))
		}
	}
	return d, spool.Reply{}
}

// ours is what we demand of everybody.
func (x *MX) ours() demand {
	if x.config.TLS == config.MXVerify {
		return demand{by: "mx.tls"}
	}
	return demand{}
}

// dane is what the TLSA records of an exchanger demand. They count where all that
// leads to them was validated: the exchangers of the domain, and the addresses, or at
// least that the name is an alias. Only then they are asked for, since many servers of
// unsigned zones fail to answer that (RFC 7672 §2.2.1).
func (x *MX) dane(ctx context.Context, o *owner, host string, addrs dns.Answer[netip.Addr]) (demand, spool.Reply) {
	bases, alias := []string{host}, addrs.Name != host
	switch {
	case !o.secure:
		return demand{}, spool.Reply{}
	case alias && addrs.Authentic:
		bases = []string{addrs.Name, host} // where CNAME records lead to first (RFC 7672 §2.2.2)
	case !addrs.Authentic && !(alias && x.resolver.SecureAlias(ctx, host)):
		return demand{}, spool.Reply{}
	}
	for _, base := range bases {
		answer, err := x.resolver.TLSA(ctx, tlspolicy.Name(x.config.Port, base))
		switch {
		case errors.Is(err, dns.ErrTemporary):
			// Somebody may be hiding them.
			return demand{}, policyReply("it cannot be found out which certificate %s must have: %v", host, err)
		case err != nil || !answer.Authentic:
			continue
		}
		d := demand{by: "DANE", proof: proofDANE, records: tlspolicy.Usable(answer.Records)}
		if len(d.records) == 0 {
			d.proof, d.anybody = "", true
			return d, spool.Reply{}
		}
		d.names = []string{base}
		if tlspolicy.Named(d.records) {
			// Otherwise domains with the same exchanger share its sessions.
			d.names = append(append(d.names, bases...), o.names...)
		}
		return d, spool.Reply{}
	}
	return demand{}, spool.Reply{}
}

// policyReply is the outcome of mail that cannot be sent as safely as is demanded.
func policyReply(format string, args ...any) spool.Reply {
	r := dnsReply("4.7.5", format, args...)
	r.Command = "TLS"
	return r
}
