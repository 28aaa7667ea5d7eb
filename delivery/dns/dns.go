// Package dns asks a resolver what mail needs to know: MX, A, AAAA, TXT and TLSA.
// Names are absolute: no search list is ever applied. An answer that there is
// nothing (ErrNoName, ErrNoData) is told from no answer (ErrTemporary), since mail
// fails by the one and waits for the other (RFC 5321 §5.1).
package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The three ways of having no records. Errors of this package wrap one of them.
var (
	// ErrNoName: the name does not exist (NXDOMAIN).
	ErrNoName = errors.New("no such domain")
	// ErrNoData: the name exists and has no records of the type.
	ErrNoData = errors.New("no such record")
	// ErrTemporary: no usable answer. Whatever else a resolver says (SERVFAIL,
	// REFUSED, FORMERR …), or that it says nothing, is about the resolver or the
	// path to it and not about the name.
	ErrTemporary = errors.New("no answer from the DNS")
)

// Answer is the records of one type at one name.
type Answer[T any] struct {
	Records []T
	// Authentic: a validating resolver that we trust says so (RFC 4035 §3.2.3) of
	// every part of the answer.
	Authentic bool
	// Name is where the records are: the name asked for, or the one that its CNAME
	// records lead to. It has no dot at its end.
	Name string
	// TTL is how long the answer may be kept.
	TTL time.Duration
}

// MX is a mail exchanger. Host has no dot at its end; it is empty where a domain
// says that it takes no mail (RFC 7505).
type MX struct {
	Preference uint16
	Host       string
}

// TLSA is a TLSA record (RFC 6698 §2.1).
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          string // hexadecimal, lower case
}

// MX returns the mail exchangers of a domain, best preference first, those of one
// preference in the order of the answer.
func (r *Resolver) MX(ctx context.Context, domain string) (Answer[MX], error) {
	a, err := lookup(ctx, r, domain, dns.TypeMX, func(rr *dns.MX) (MX, bool) {
		return MX{rr.Preference, bare(rr.Mx)}, true
	})
	slices.SortStableFunc(a.Records, func(x, y MX) int { return cmp.Compare(x.Preference, y.Preference) })
	return a, err
}

// Family says which addresses are wanted.
type Family int

// The families.
const (
	Any Family = iota
	IPv4
	IPv6
)

// Addrs returns the addresses of a host, IPv6 first where there are both. Where one
// family cannot be found out the other is enough; the error is ErrTemporary only if
// there is no address and one of the answers is missing.
func (r *Resolver) Addrs(ctx context.Context, host string, f Family) (Answer[netip.Addr], error) {
	type result struct {
		a   Answer[netip.Addr]
		err error
	}
	four, six := result{err: ErrNoData}, make(chan result, 1)
	if f == IPv4 {
		six <- result{err: ErrNoData}
	} else {
		go func() {
			a, err := lookup(ctx, r, host, dns.TypeAAAA, func(rr *dns.AAAA) (netip.Addr, bool) { return netip.AddrFromSlice(rr.AAAA.To16()) })
			six <- result{a, err}
		}()
	}
	if f != IPv6 {
		four.a, four.err = lookup(ctx, r, host, dns.TypeA, func(rr *dns.A) (netip.Addr, bool) { return netip.AddrFromSlice(rr.A.To4()) })
	}
	other := <-six
	switch {
	case other.err != nil && four.err == nil:
		return four.a, nil
	case other.err == nil && four.err != nil:
		return other.a, nil
	case errors.Is(other.err, ErrTemporary) || f == IPv6:
		return Answer[netip.Addr]{}, other.err
	case four.err != nil:
		return Answer[netip.Addr]{}, four.err
	}
	both := other.a
	both.Records = append(both.Records, four.a.Records...)
	both.Authentic = both.Authentic && four.a.Authentic
	both.TTL = min(both.TTL, four.a.TTL)
	return both, nil
}

// SecureAlias reports whether a name is known, by an answer that was validated, to be an
// alias (CNAME), whatever is true of what it stands for (RFC 7672 §2.2.2).
func (r *Resolver) SecureAlias(ctx context.Context, name string) bool {
	name = dns.CanonicalName(name)
	m, err := r.ask(ctx, name, dns.TypeCNAME)
	return err == nil && m.authentic && slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		_, alias := rr.(*dns.CNAME)
		return alias && dns.CanonicalName(rr.Header().Name) == name
	})
}

// TXT returns the text records of a name, the strings of each one joined.
func (r *Resolver) TXT(ctx context.Context, name string) (Answer[string], error) {
	return lookup(ctx, r, name, dns.TypeTXT, func(rr *dns.TXT) (string, bool) { return strings.Join(rr.Txt, ""), true })
}

// PTR returns the names of an address (RFC 1035 §3.5), without a dot at their end.
func (r *Resolver) PTR(ctx context.Context, addr netip.Addr) (Answer[string], error) {
	name, err := dns.ReverseAddr(addr.Unmap().String())
	if err != nil {
		return Answer[string]{}, fmt.Errorf("%w: %w", ErrNoName, err)
	}
	return lookup(ctx, r, name, dns.TypePTR, func(rr *dns.PTR) (string, bool) { return bare(rr.Ptr), true })
}

// TLSA returns the TLSA records of a name such as _25._tcp.mx.example.org.
func (r *Resolver) TLSA(ctx context.Context, name string) (Answer[TLSA], error) {
	return lookup(ctx, r, name, dns.TypeTLSA, func(rr *dns.TLSA) (TLSA, bool) {
		return TLSA{rr.Usage, rr.Selector, rr.MatchingType, strings.ToLower(rr.Certificate)}, true
	})
}

// maxAliases is how many CNAME records are followed, within an answer and by asking
// again; more is a loop or a mistake.
const maxAliases = 8

// lookup asks for the records of one type and makes each a T. Records that make no
// T are left out.
func lookup[R dns.RR, T any](ctx context.Context, r *Resolver, name string, qtype uint16, make func(R) (T, bool)) (Answer[T], error) {
	out := Answer[T]{Authentic: true}
	name = bare(name)
	fail := func(err error) (Answer[T], error) {
		return Answer[T]{Name: name}, fmt.Errorf("%s %s: %w", dns.TypeToString[qtype], name, err)
	}
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return fail(ErrNoName)
	}
	target := dns.CanonicalName(name)
	for range maxAliases {
		m, err := r.ask(ctx, target, qtype)
		if err != nil {
			return fail(err)
		}
		out.Authentic = out.Authentic && m.authentic
		from := target
		if target, err = follow(m.Answer, target); err != nil {
			return fail(err)
		}
		for _, rr := range m.Answer {
			record, ok := rr.(R)
			if !ok || dns.CanonicalName(rr.Header().Name) != target {
				continue
			}
			if ttl := time.Duration(rr.Header().Ttl) * time.Second; len(out.Records) == 0 || ttl < out.TTL {
				out.TTL = ttl
			}
			if v, ok := make(record); ok {
				out.Records = append(out.Records, v)
			}
		}
		if out.Name = bare(target); len(out.Records) > 0 {
			return out, nil
		}
		switch {
		case m.Rcode == dns.RcodeNameError:
			return fail(ErrNoName)
		case target == from:
			return fail(ErrNoData)
		}
		// A CNAME without what it leads to: a resolver that leaves that to us.
	}
	return fail(fmt.Errorf("%w: too many CNAME records", ErrTemporary))
}

// follow returns the name at the end of the chain of CNAME records that begins at
// name.
func follow(answer []dns.RR, name string) (string, error) {
	for range maxAliases {
		i := slices.IndexFunc(answer, func(rr dns.RR) bool {
			_, alias := rr.(*dns.CNAME)
			return alias && dns.CanonicalName(rr.Header().Name) == name
		})
		if i < 0 {
			return name, nil
		}
		name = dns.CanonicalName(answer[i].(*dns.CNAME).Target)
	}
	return "", fmt.Errorf("%w: too many CNAME records", ErrTemporary)
}

// bare is a name without the dot at its end, in lower case.
func bare(name string) string { return strings.TrimSuffix(dns.CanonicalName(name), ".") }
