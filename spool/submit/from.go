package submit

import (
	"net/mail"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

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
	// Generic has the addresses that take the place of some, forced or not, unless they
	// are kept: by the local part of one of this machine, the address or "@domain", in
	// lower case. "@domain" as the value takes the place of the domain alone.
	Generic map[string]string
	// Name is what people see of the author where From.Header is Force: {name} in it stands
	// for the name that was there. Empty is that name.
	Name string
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

// isOwn reports whether a domain is this machine's.
func (p *Policy) isOwn(domain string) bool {
	own := func(d string) bool { return strings.EqualFold(d, domain) }
	return domain == "" || own("localhost") || own(p.Domain) || own(p.Hostname) || slices.ContainsFunc(p.LocalDomains, own)
}

// generic is what takes the place of a in all mail, a itself where nothing does. The
// address counts before the local part, and that before the domain.
func (p *Policy) generic(a address.Address) address.Address {
	local, domain := strings.ToLower(a.Local), strings.ToLower(a.Domain)
	to := p.From.Generic[local+"@"+domain]
	if to == "" && p.isOwn(a.Domain) {
		to = p.From.Generic[local]
	}
	if to == "" {
		to = p.From.Generic["@"+domain]
	}
	if to == "" {
		return a
	}
	if domain, wild := strings.CutPrefix(to, "@"); wild {
		return address.Address{Local: a.Local, Domain: domain}
	}
	if b, err := address.Parse(to); err == nil {
		return b
	}
	return a // the configuration was checked
}

// forced is what takes the place of a. Where no address comes of that, because the
// local part of a does not fit, a stays.
func (p *Policy) forced(a address.Address) address.Address {
	if to := p.generic(a); to != a {
		return to
	}
	return address.Fill(p.From.Address, a, p.Hostname)
}

// sender does to the reverse-path what the policy says. The null one is nobody's.
func (p *Policy) sender(a address.Address) address.Address {
	switch {
	case a.IsNull() || p.From.Envelope == Keep:
		return a
	case p.From.Envelope == Force:
		return p.forced(a)
	}
	return p.generic(a)
}

// rename gives the one author that From names the name of the policy. Where there are
// several, or none that can be read, the field stays.
func (p *Policy) rename(section *header.Section) {
	list, err := mail.ParseAddressList(section.Value("From"))
	if p.From.Name == "" || err != nil || len(list) != 1 {
		return
	}
	a, err := address.Parse(list[0].Address)
	if err != nil {
		return
	}
	name := strings.NewReplacer("{name}", list[0].Name, "{user}", a.Local, "{hostname}", p.Hostname).Replace(p.From.Name)
	section.Drop("From")
	section.Append("From", header.Mailbox(name, a))
}

// rewrite does to the header section what the policy says of the addresses in it.
func (p *Policy) rewrite(section *header.Section) {
	if p.From.Header == Keep {
		return
	}
	section.Qualify(p.Domain)
	author := p.generic
	if p.From.Header == Force {
		author = p.forced
	}
	was := section.Value("From")
	if p.From.Header == Force {
		p.rename(section)
	}
	if section.Rewrite(author, "From") && p.From.KeepAs != "" && !section.Has(p.From.KeepAs) {
		section.Append(p.From.KeepAs, was)
	}
	section.Rewrite(author, "Sender", "Resent-From", "Resent-Sender")
	if len(p.From.Generic) > 0 {
		section.Rewrite(p.generic, "Reply-To", "To", "Cc", "Bcc", "Resent-Reply-To", "Resent-To", "Resent-Cc", "Resent-Bcc")
	}
}

// checkFrom refuses a sender or an author that the user may not use. What the policy
// itself made of them is looked at, since that is what others will see. The null
// reverse-path is nobody's, and the author is looked at all the same.
func (tx *transaction) checkFrom(section *header.Section) error {
	patterns, restricted := tx.policy.allowed(tx.msg.Origin.UID)
	if !restricted {
		return nil
	}
	authors, err := section.Addresses("From", "Sender", "Resent-From", "Resent-Sender")
	if err != nil {
		return tx.objectFrom(patterns, "uid %d may use some addresses alone (limits.allow_from), and %v", tx.msg.Origin.UID, err)
	}
	for _, a := range append(authors, tx.msg.Sender) {
		if !a.IsNull() && !tx.policy.matches(patterns, a) {
			return tx.objectFrom(patterns, "uid %d may not send as %s: limits.allow_from does not allow it", tx.msg.Origin.UID, a)
		}
	}
	return nil
}

// objectFrom refuses who mail is from. The report about a drop file, which has the mail
// in it, must not go to an address that the user may not use: then it is for the user,
// or, where that one has no name here, for nobody.
func (tx *transaction) objectFrom(patterns []string, format string, args ...any) error {
	err := tx.object(refuse(550, smtp.EnhancedCode{5, 7, 1}, format, args...))
	if err != nil || tx.policy.matches(patterns, tx.msg.Sender) {
		return err
	}
	tx.msg.Sender, tx.msg.BareSender = address.Address{}, false
	if u, err := user.LookupId(strconv.Itoa(tx.msg.Origin.UID)); err == nil {
		if a, err := address.Parse(u.Username); err == nil && a.Domain == "" {
			tx.msg.Sender, tx.msg.BareSender = address.Address{Local: a.Local, Domain: tx.policy.Domain}, true
		}
	}
	return nil
}

// allowed are the patterns of the addresses that a user may use, if there are any.
func (p *Policy) allowed(uid int) (patterns []string, restricted bool) {
	if len(p.AllowFrom) == 0 {
		return nil, false
	}
	names := []string{strconv.Itoa(uid)}
	if u, err := user.LookupId(names[0]); err == nil {
		names = append(names, u.Username)
	}
	for _, name := range append(names, "*") {
		if patterns, restricted = p.AllowFrom[name]; restricted {
			break
		}
	}
	return patterns, restricted
}

// matches reports whether one of the patterns is for a: "*", "@domain", an address, or
// the local part of one of this machine.
func (p *Policy) matches(patterns []string, a address.Address) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		at := strings.LastIndexByte(pattern, '@')
		switch {
		case pattern == "*":
			return true
		case at < 0:
			return pattern == a.Local && p.isOwn(a.Domain)
		}
		local, domain := pattern[:at], pattern[at+1:]
		return strings.EqualFold(domain, a.Domain) && (local == "" || local == a.Local)
	})
}
