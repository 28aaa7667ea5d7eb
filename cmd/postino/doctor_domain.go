package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"postino/delivery/dkim"
	"postino/delivery/dns"
	"postino/delivery/spf"
)

// lookupFailed is the finding where the DNS does not answer.
func lookupFailed(check string, err error) finding {
	return finding{check, skipped, err.Error(), "see that the resolver answers: /etc/resolv.conf or mx.resolver"}
}

// hostname looks at the name in EHLO, and where mail goes directly at its address.
func (d *doctor) hostname(ctx context.Context) []finding {
	const check = "host.name"
	name := d.config.Hostname
	bad := warning
	if d.config.Relay == nil {
		bad = failing
	}
	if !strings.Contains(name, ".") || strings.HasPrefix(name, "localhost.") || strings.HasSuffix(name, ".localdomain") || strings.HasSuffix(name, ".local") {
		return []finding{{check, bad, fmt.Sprintf("%q is no full name, and other servers want one in EHLO", name), `set hostname = "host.your.domain"`}}
	}
	a, err := d.dns.Addrs(ctx, name, dns.Any)
	switch {
	case errors.Is(err, dns.ErrTemporary):
		return []finding{lookupFailed(check, err)}
	case err != nil:
		return []finding{{check, warning, name + " has no address in the DNS", "publish its A and AAAA records, or set hostname to a name that has"}}
	}
	found := []finding{{check, well, name + " is " + addrs(a.Records), ""}}
	if d.config.Relay == nil {
		found = append(found, d.reverse(ctx, a.Records))
	}
	return found
}

func addrs(list []netip.Addr) string {
	var texts []string
	for _, a := range list {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ", ")
}

// reverse looks whether the address that others see has a name that leads back to it.
// Behind a translator (NAT) that is the address of the host name, if anything.
func (d *doctor) reverse(ctx context.Context, forward []netip.Addr) finding {
	const check = "ip.ptr"
	for _, ip := range forward {
		a, err := d.dns.PTR(ctx, ip)
		switch {
		case errors.Is(err, dns.ErrTemporary):
			return lookupFailed(check, err)
		case err != nil:
			return finding{check, failing, fmt.Sprintf("%v has no name (PTR): many refuse mail from it", ip), fmt.Sprintf("have whoever gave you the address set it to %s", d.config.Hostname)}
		case !slices.ContainsFunc(a.Records, func(n string) bool { return strings.EqualFold(n, d.config.Hostname) }):
			return finding{check, warning, fmt.Sprintf("%v is called %s, and we say %s", ip, strings.Join(a.Records, ", "), d.config.Hostname), "make them the same: have the PTR changed, or set hostname"}
		}
	}
	return finding{check, well, addrs(forward) + " lead to " + d.config.Hostname + " and back", ""}
}

// exchangers looks whether mail could go directly: port 25 is closed to many.
func (d *doctor) exchangers(ctx context.Context) []finding {
	const check = "mx.port"
	if d.config.Relay != nil {
		return nil
	}
	a, err := d.dns.MX(ctx, d.domain)
	if errors.Is(err, dns.ErrTemporary) {
		return []finding{lookupFailed(check, err)}
	}
	hosts := []string{d.domain}
	if len(a.Records) > 0 {
		hosts = nil
		for _, mx := range a.Records {
			hosts = append(hosts, mx.Host)
		}
	}
	var last error = errors.New("no exchanger to try")
	for _, host := range hosts[:min(len(hosts), 3)] {
		ips, err := d.dns.Addrs(ctx, host, dns.Any)
		if err != nil {
			last = err
			continue
		}
		for _, ip := range ips.Records[:min(len(ips.Records), 2)] {
			const wait = 4 * time.Second
			at := net.JoinHostPort(ip.String(), strconv.Itoa(d.config.MX.Port))
			conn, err := (&net.Dialer{Timeout: wait}).DialContext(ctx, "tcp", at)
			if err == nil {
				conn.Close()
				return []finding{{check, well, fmt.Sprintf("an exchanger of %s answers at %s", d.domain, at), ""}}
			}
			last = err
		}
	}
	return []finding{{check, failing, fmt.Sprintf("no exchanger of %s could be reached: %v", d.domain, last),
		"many networks close port 25: send by a smarthost (postino setup)"}}
}

// mx looks whether reports could come back.
func (d *doctor) mx(ctx context.Context) []finding {
	const check = "dom.mx"
	a, err := d.dns.MX(ctx, d.domain)
	switch {
	case errors.Is(err, dns.ErrTemporary):
		return []finding{lookupFailed(check, err)}
	case err == nil && a.Records[0].Host == "":
		return []finding{{check, failing, d.domain + " says that it takes no mail (null MX): many refuse mail from it, and reports are lost", "send from a domain that takes mail: set domain, or [from]"}}
	case err == nil:
		return []finding{{check, well, fmt.Sprintf("mail for %s goes to %s", d.domain, a.Records[0].Host), ""}}
	}
	if _, err := d.dns.Addrs(ctx, d.domain, dns.Any); err != nil {
		return []finding{{check, failing, fmt.Sprintf("%s has neither MX nor address: many refuse mail from it, and reports are lost", d.domain), "send from a domain that takes mail: set domain, or [from]"}}
	}
	return []finding{{check, well, d.domain + " takes mail at its own address", ""}}
}

// senders looks at what the domain publishes about its mail.
func (d *doctor) senders(ctx context.Context) []finding {
	spfFound, spfGood := d.spf(ctx)
	found := []finding{spfFound}
	keys, signed := d.keys(ctx)
	found = append(found, keys...)
	return append(found, d.dmarc(ctx, spfGood, signed))
}

// spf looks whether the domain lets the next hop send; good says that it does.
func (d *doctor) spf(ctx context.Context) (f finding, good bool) {
	const check = "dom.spf"
	want, remedy := "", "v=spf1 ip4:YOUR.ADDRESS -all"
	bad := failing // where nobody but us could sign or send
	if d.config.Relay != nil {
		want, bad = d.config.Relay.Preset.SPF(), warning
		remedy = "v=spf1 include:WHAT-THE-SMARTHOST-SAYS ~all"
	}
	if want != "" {
		remedy = fmt.Sprintf("v=spf1 include:%s ~all", want)
	}
	r, err := spf.Read(ctx, d.dns, d.domain)
	switch {
	case errors.Is(err, spf.ErrNone):
		return finding{check, bad, err.Error(), fmt.Sprintf("publish TXT at %s: %q", d.domain, remedy)}, false
	case errors.Is(err, spf.ErrPermanent):
		return finding{check, failing, err.Error(), "receivers take it for none: mend it"}, false
	case err != nil:
		return lookupFailed(check, err), false
	case r.All == '+':
		return finding{check, failing, r.Text + ": everybody may send", "end it with ~all or -all"}, false
	case want != "" && !r.Includes(want):
		return finding{check, warning, fmt.Sprintf("%s: it does not include %s", r.Text, want), fmt.Sprintf("add include:%s, unless the envelope sender is in a domain of the provider's", want)}, false
	case want != "":
		return finding{check, well, fmt.Sprintf("%s: includes %s, %d of 10 lookups", r.Text, want, r.Lookups), ""}, true
	case d.config.Relay != nil:
		return finding{check, well, fmt.Sprintf("%s: whether the smarthost's addresses are in it is for its operator to say", r.Text), ""}, true
	}
	a, err := d.dns.Addrs(ctx, d.config.Hostname, dns.Any)
	if err != nil {
		return finding{check, skipped, r.Text + ": which address we send from is not known", ""}, true
	}
	for _, ip := range a.Records {
		if !r.Covers(ip) {
			return finding{check, failing, fmt.Sprintf("%s: %v, the address of %s, is not in it", r.Text, ip, d.config.Hostname), "add ip4: or ip6: with the address that mail leaves from"}, false
		}
	}
	return finding{check, well, r.Text, ""}, true
}

// keys compares the keys to sign with with what is published; signed says that mail of
// the domain has a signature that is good for it.
func (d *doctor) keys(ctx context.Context) (found []finding, signed bool) {
	const check = "dom.dkim"
	for _, k := range d.config.DKIM {
		key, err := dkim.Load(k.Domain, k.Selector, k.KeyFile)
		if err != nil {
			found = append(found, finding{check, failing, err.Error(), "mail waits until the runner's user can read it"})
			continue
		}
		f := d.published(ctx, key)
		found = append(found, f)
		signed = signed || f.Status == well && (strings.EqualFold(k.Domain, d.domain) || strings.HasSuffix(strings.ToLower(d.domain), "."+strings.ToLower(k.Domain)))
	}
	if len(d.config.DKIM) == 0 {
		f := finding{check, warning, "mail is not signed here", "postino dkim keygen " + d.domain + " s1 /etc/postino/dkim/s1.pem"}
		if d.config.Relay != nil {
			f = finding{check, skipped, "mail is not signed here; the smarthost may do it", ""}
		}
		found = append(found, f)
	}
	return found, signed
}

// published compares one key with its record.
func (d *doctor) published(ctx context.Context, key *dkim.Key) finding {
	const check = "dom.dkim"
	want, err := key.Record()
	if err != nil {
		return finding{check, failing, err.Error(), ""}
	}
	a, err := d.dns.TXT(ctx, key.Name())
	switch {
	case errors.Is(err, dns.ErrTemporary):
		return lookupFailed(check, err)
	case err != nil:
		return finding{check, failing, key.Name() + " is not published: nobody can verify the signatures", fmt.Sprintf("publish TXT: %s", want)}
	case len(a.Records) > 1:
		return finding{check, failing, fmt.Sprintf("%s has %d records, and there may be one", key.Name(), len(a.Records)), "keep this one: " + want}
	case tag(a.Records[0], "p") == "":
		return finding{check, failing, key.Name() + " is revoked: its p= is empty", "make another key: postino dkim keygen"}
	case tag(a.Records[0], "p") != tag(want, "p"):
		return finding{check, failing, key.Name() + " is of another key than " + "the one that signs", "publish TXT: " + want}
	case strings.Contains(":"+tag(a.Records[0], "t")+":", ":y:"):
		return finding{check, warning, key.Name() + " is published for testing (t=y): receivers take mail for unsigned", "remove t=y"}
	}
	return finding{check, well, key.Name() + " is of the key that signs", ""}
}

// tag is a value of a tag=value list (RFC 6376 §3.2) without blanks.
func tag(record, name string) string {
	for part := range strings.SplitSeq(record, ";") {
		if key, value, ok := strings.Cut(part, "="); ok && strings.TrimSpace(key) == name {
			return strings.Join(strings.Fields(value), "")
		}
	}
	return ""
}

// dmarc looks at what the domain wants done with mail that is not aligned (RFC 7489),
// and whether ours is.
func (d *doctor) dmarc(ctx context.Context, spfGood, signed bool) finding {
	const check = "dom.dmarc"
	record, where, err := d.policy(ctx)
	if err != nil {
		return lookupFailed(check, err)
	}
	if record == "" {
		return finding{check, warning, "no DMARC policy at _dmarc." + d.domain + ": large receivers want one", fmt.Sprintf("publish TXT at _dmarc.%s: %q", d.domain, "v=DMARC1; p=none")}
	}
	policy := strings.ToLower(tag(record, "p"))
	if sub := tag(record, "sp"); where != d.domain && sub != "" {
		policy = strings.ToLower(sub)
	}
	text := fmt.Sprintf("%s at _dmarc.%s", record, where)
	switch {
	case policy == "" || !slices.Contains([]string{"none", "quarantine", "reject"}, policy):
		return finding{check, failing, text + ": no policy in it", "write p=none, p=quarantine or p=reject"}
	case signed:
		return finding{check, well, text + "; our signature is aligned", ""}
	case spfGood:
		return finding{check, well, text + "; the envelope sender is aligned while it is in " + d.domain, ""}
	case policy == "none":
		return finding{check, well, text + "; nothing of ours is known to be aligned", ""}
	case d.config.Relay != nil:
		return finding{check, warning, text + ": neither SPF nor a signature of ours is aligned", "sign here (postino dkim keygen), or have the smarthost sign for " + d.domain}
	}
	return finding{check, failing, text + ": neither SPF nor a signature of ours is aligned, so that our mail is refused", "mend SPF, or sign: postino dkim keygen " + d.domain + " s1 /etc/postino/dkim/s1.pem"}
}

// policy finds the DMARC record of the domain or of its organization's.
func (d *doctor) policy(ctx context.Context) (record, where string, err error) {
	names := []string{d.domain}
	if org, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(d.domain)); err == nil && org != strings.ToLower(d.domain) {
		names = append(names, org)
	}
	for _, name := range names {
		a, err := d.dns.TXT(ctx, "_dmarc."+name)
		if errors.Is(err, dns.ErrTemporary) {
			return "", "", err
		}
		var list []string
		for _, t := range a.Records {
			if strings.HasPrefix(t, "v=DMARC1") {
				list = append(list, t)
			}
		}
		if len(list) == 1 { // several count as none (§6.6.3)
			return list[0], name, nil
		}
	}
	return "", "", nil
}
