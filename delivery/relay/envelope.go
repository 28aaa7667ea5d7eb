package relay

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"postino/spool/address"
)

// badAddress reports what must not go on the wire: what would end the path or the
// line early and have the rest read as parameters or commands, and a domain that
// has no form in ASCII. A local part may hold anything else, since Address.String
// quotes it.
func badAddress(a address.Address) bool {
	const controls = "\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f"
	return a.Local == "" || a.Domain == "" || !utf8.ValidString(a.Local+a.Domain) ||
		strings.ContainsAny(a.Local, controls) ||
		strings.ContainsAny(a.Domain, controls+" <>()\"\\,;@") ||
		onWire(a) == ""
}

// onWire is a path without its brackets. The domain is in ASCII, as A-labels
// (RFC 5891 §4.4), so that SMTPUTF8 is needed for nothing but a local part. It is
// empty for the null reverse-path, and for a domain that has no such form.
func onWire(a address.Address) string {
	if !ascii(a.Domain) {
		domain, err := idna.Lookup.ToASCII(a.Domain)
		if err != nil || strings.ContainsAny(domain, " <>()\"\\,;@") {
			return ""
		}
		a.Domain = domain
	}
	return a.String()
}

func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 127 }) < 0
}

// mail is the MAIL command of a transaction to these recipients, with the
// parameters that the remote offers and the message needs.
func (s *session) mail(j *job, to []int) string {
	m := j.Message
	var b strings.Builder
	b.WriteString("MAIL FROM:<" + onWire(m.Sender) + ">")
	if s.ext.has("SIZE") && !j.plain {
		fmt.Fprintf(&b, " SIZE=%d", m.Size)
	}
	if m.EightBit && s.ext.has("8BITMIME") && !j.plain {
		b.WriteString(" BODY=8BITMIME")
	}
	if needsUTF8(j, to) && s.ext.has("SMTPUTF8") {
		b.WriteString(" SMTPUTF8")
	}
	if m.RequireTLS && s.ext.has("REQUIRETLS") {
		b.WriteString(" REQUIRETLS")
	}
	if s.ext.has("DSN") && !j.plain {
		if ret := strings.ToUpper(m.Return); ret == "FULL" || ret == "HDRS" {
			b.WriteString(" RET=" + ret)
		}
		if m.EnvelopeID != "" && printable(m.EnvelopeID) {
			b.WriteString(" ENVID=" + xtext(m.EnvelopeID))
		}
	}
	return b.String()
}

// needsUTF8 reports whether SMTPUTF8 is asked for (RFC 6531 §3.4).
func needsUTF8(j *job, to []int) bool {
	return j.Message.UTF8 && j.Message.EightBit || !ascii(j.Message.Sender.Local) ||
		slices.ContainsFunc(to, func(i int) bool { return !ascii(j.recipient(i).Address.Local) })
}

// rcpt is the RCPT command for the recipient at a position. A DSN parameter that makes no
// sense is left out, since mail is worth more than its parameters.
func (s *session) rcpt(j *job, at int) string {
	r := j.recipient(at)
	line := "RCPT TO:<" + onWire(r.Address) + ">"
	if !s.ext.has("DSN") || j.plain {
		return line
	}
	if words := notify(r.Notify); len(words) > 0 {
		line += " NOTIFY=" + strings.Join(words, ",")
	}
	kind, original, typed := strings.Cut(r.Original, ";")
	if !typed {
		kind, original = "rfc822", r.Original
	}
	switch kind = strings.ToLower(kind); {
	case original == "":
	case kind == "rfc822" && printable(original):
		line += " ORCPT=rfc822;" + xtext(original)
	case kind == "utf-8" && utf8.ValidString(original):
		line += " ORCPT=utf-8;" + utf8xtext(original)
	}
	return line
}

// notify are the words of NOTIFY that mean something, NEVER alone (RFC 3461 §4.1).
func notify(words []string) []string {
	var list []string
	for _, word := range words {
		switch word = strings.ToUpper(word); word {
		case "NEVER":
			return []string{word}
		case "SUCCESS", "FAILURE", "DELAY":
			if !slices.Contains(list, word) {
				list = append(list, word)
			}
		}
	}
	return list
}

// printable reports whether s can be xtext.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// xtext encodes printable text for a parameter (RFC 3461 §4).
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// utf8xtext encodes any text as utf-8-addr-xtext (RFC 6533 §3), which is ASCII and
// so can be sent whether SMTPUTF8 is there or not.
func utf8xtext(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r <= ' ' || r > '~' || r == '+' || r == '=' || r == '\\' {
			fmt.Fprintf(&b, `\x{%02X}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
