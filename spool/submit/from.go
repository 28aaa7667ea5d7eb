package submit

import (
	"strings"

	"postino/spool/address"
	"postino/spool/header"
)

// From is what becomes of the addresses that mail is from. The zero From is that of
// RFC 6409 §8.1: bare ones are completed.
type From struct {
	Envelope, Header Rewrite
	// Address takes their place where it is forced. In it {user} stands for the local
	// part of the one it replaces, and {hostname} for Policy.Hostname.
	Address string
	// KeepAs names the field that keeps the From that was replaced, if the message has
	// none of that name; empty is none.
	KeepAs string
}

// Rewrite is what is done to an address.
type Rewrite string

// The ways to treat an address. SMTP has no bare ones (RFC 5321 §4.1.2), so that in
// the envelope Keep completes them too.
const (
	Qualify Rewrite = "" // a bare one is completed
	Keep    Rewrite = "keep"
	Force   Rewrite = "force" // From.Address takes its place
)

// forced is what takes the place of a. Where no address comes of that, because the
// local part of a does not fit, a stays.
func (p *Policy) forced(a address.Address) address.Address {
	i := strings.LastIndexByte(p.From.Address, '@')
	if i < 0 {
		return a
	}
	fill := strings.NewReplacer("{user}", a.Local, "{hostname}", p.Hostname)
	to := address.Address{Local: fill.Replace(p.From.Address[:i]), Domain: fill.Replace(p.From.Address[i+1:])}
	if back, err := address.Parse(to.String()); err != nil || back != to {
		return a
	}
	return to
}

// rewrite does to the header section what the policy says of the addresses in it.
func (p *Policy) rewrite(section *header.Section) {
	if p.From.Header == Keep {
		return
	}
	section.Qualify(p.Domain)
	if p.From.Header != Force {
		return
	}
	was := section.Value("From")
	if section.Rewrite(p.forced, "From") && p.From.KeepAs != "" && !section.Has(p.From.KeepAs) {
		section.Append(p.From.KeepAs, was)
	}
	section.Rewrite(p.forced, "Sender", "Resent-From", "Resent-Sender")
}
