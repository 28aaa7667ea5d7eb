// Package spf reads what a domain says about who sends its mail (RFC 7208): the whole
// tree of its record, without asking whether one address passes. Whoever looks after a
// domain wants to see what it says; evaluating it is the receivers'.
package spf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"postino/delivery/dns"
)

const (
	// maxLookups is how many terms that ask the DNS a record may have, with all that it
	// includes (RFC 7208 §4.6.4).
	maxLookups = 10
	// maxNetworks bounds what is kept of a tree.
	maxNetworks = 10_000
)

var (
	// ErrNone: the domain has no record.
	ErrNone = errors.New("no SPF record")
	// ErrPermanent: receivers take the record for none at all (permerror, §4.6).
	ErrPermanent = errors.New("the SPF record is not valid")
)

// Record is what a domain says.
type Record struct {
	// Text is the record of the domain itself.
	Text string
	// Names are the domains whose records are included, or redirected to, at any depth.
	Names []string
	// Lookups is how many terms ask the DNS.
	Lookups int
	// Networks may send: those of ip4, ip6, a and mx that are not refused.
	Networks []netip.Prefix
	// All is the qualifier of "all": '-', '~', '?' or '+'; 0 where there is none.
	All byte
}

// Covers reports whether an address is in one of the networks.
func (r *Record) Covers(ip netip.Addr) bool {
	return slices.ContainsFunc(r.Networks, func(n netip.Prefix) bool { return n.Contains(ip.Unmap()) })
}

// Includes reports whether the record of that domain is a part of this one.
func (r *Record) Includes(domain string) bool {
	return slices.ContainsFunc(r.Names, func(n string) bool { return strings.EqualFold(n, domain) })
}

// Read reads the record of a domain and all that it includes. The error wraps ErrNone,
// ErrPermanent or dns.ErrTemporary.
func Read(ctx context.Context, r *dns.Resolver, domain string) (Record, error) {
	w := walk{ctx: ctx, dns: r}
	err := w.domain(domain, true)
	return w.found, err
}

type walk struct {
	ctx   context.Context
	dns   *dns.Resolver
	found Record
}

// record is the one record of a domain.
func (w *walk) record(domain string) (string, error) {
	a, err := w.dns.TXT(w.ctx, domain)
	if err != nil && !errors.Is(err, dns.ErrNoName) && !errors.Is(err, dns.ErrNoData) {
		return "", err
	}
	var text string
	for _, t := range a.Records {
		if version, _, _ := strings.Cut(t, " "); !strings.EqualFold(version, "v=spf1") {
			continue
		}
		if text != "" {
			return "", fmt.Errorf("%w: %s has several: merge them into one", ErrPermanent, domain)
		}
		text = t
	}
	if text == "" {
		return "", fmt.Errorf("%w at %s", ErrNone, domain)
	}
	return text, nil
}

// domain walks one record; top says that it is the first one.
func (w *walk) domain(domain string, top bool) error {
	text, err := w.record(domain)
	if err != nil {
		if !top && errors.Is(err, ErrNone) { // §5.2
			return fmt.Errorf("%w: it includes %s, which has none", ErrPermanent, domain)
		}
		return err
	}
	if top {
		w.found.Text = text
	}
	redirect := ""
	for _, term := range strings.Fields(text)[1:] {
		if to, is := strings.CutPrefix(strings.ToLower(term), "redirect="); is {
			redirect = to
			continue
		}
		if strings.Contains(strings.SplitN(term, ":", 2)[0], "=") {
			continue // a modifier that says nothing about who may send
		}
		all, err := w.mechanism(domain, term, top)
		if err != nil {
			return err
		}
		if all {
			return nil // what follows is never looked at, nor is redirect (§5.1)
		}
	}
	if redirect == "" {
		return nil
	}
	return w.below(redirect, top)
}

// below walks a record that another one names.
func (w *walk) below(domain string, top bool) error {
	if err := w.lookup(); err != nil || strings.Contains(domain, "%") {
		return err // a name made of the sender's, which there is none of here
	}
	w.found.Names = append(w.found.Names, domain)
	before := w.found.Text
	err := w.domain(domain, top)
	w.found.Text = before
	return err
}

func (w *walk) lookup() error {
	if w.found.Lookups++; w.found.Lookups > maxLookups {
		return fmt.Errorf("%w: more than %d terms of it ask the DNS: replace some by ip4 and ip6, or remove them", ErrPermanent, maxLookups)
	}
	return nil
}

// mechanism walks one term (§5); all says that it is "all".
func (w *walk) mechanism(domain, term string, top bool) (all bool, err error) {
	qualifier := byte('+')
	if strings.ContainsRune("+-~?", rune(term[0])) {
		qualifier, term = term[0], term[1:]
	}
	end := strings.IndexAny(term, ":/")
	if end < 0 {
		end = len(term)
	}
	name, rest := strings.ToLower(term[:end]), strings.TrimPrefix(term[end:], ":")
	bad := fmt.Errorf("%w: %q in the record of %s", ErrPermanent, term, domain)
	switch name {
	case "all":
		if top {
			w.found.All = qualifier
		}
		return true, nil
	case "include":
		if rest == "" {
			return false, bad
		}
		if qualifier != '+' {
			return false, w.lookup()
		}
		return false, w.below(rest, false)
	case "ip4", "ip6":
		network, err := prefix(rest)
		if err != nil || network.Addr().Is4() != (name == "ip4") {
			return false, bad
		}
		w.add(qualifier, network)
		return false, nil
	case "a", "mx":
		return false, w.hosts(domain, name, rest, qualifier)
	case "ptr", "exists":
		return false, w.lookup()
	}
	return false, bad
}

func (w *walk) add(qualifier byte, n netip.Prefix) {
	if qualifier == '+' && len(w.found.Networks) < maxNetworks {
		w.found.Networks = append(w.found.Networks, n.Masked())
	}
}

// prefix is an address or a network.
func prefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Prefix(a.BitLen())
}

// hosts adds the addresses of a domain or of its exchangers (§5.3, §5.4), with the
// lengths behind them: "domain/24//64".
func (w *walk) hosts(domain, name, rest string, qualifier byte) error {
	if err := w.lookup(); err != nil {
		return err
	}
	host, lengths, _ := strings.Cut(rest, "/")
	if host == "" {
		host = domain
	}
	four, six, _ := strings.Cut(lengths, "/")
	six = strings.TrimPrefix(six, "/")
	if strings.Contains(host, "%") {
		return nil
	}
	names := []string{host}
	if name == "mx" {
		a, err := w.dns.MX(w.ctx, host)
		if errors.Is(err, dns.ErrTemporary) {
			return err
		}
		names = nil
		for _, mx := range a.Records[:min(len(a.Records), maxLookups)] {
			names = append(names, mx.Host)
		}
	}
	for _, n := range names {
		a, err := w.dns.Addrs(w.ctx, n, dns.Any)
		if errors.Is(err, dns.ErrTemporary) {
			return err
		}
		for _, ip := range a.Records {
			bits, length := ip.BitLen(), four
			if ip.Is6() {
				length = six
			}
			if m, err := strconv.Atoi(length); err == nil && m >= 0 && m <= bits {
				bits = m
			}
			if network, err := ip.Prefix(bits); err == nil {
				w.add(qualifier, network)
			}
		}
	}
	return nil
}
