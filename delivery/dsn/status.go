package dsn

import (
	"fmt"
	"strings"

	"postino/spool"
	"postino/spool/header"
)

// status is the part for programs (RFC 3464 §2), and its type. It is all ASCII:
// addresses that are not are written in the encoding of RFC 6533 §3, which every channel
// lets pass. A report that needs SMTPUTF8 itself has them as they are.
func (r *Report) status() (kind, text string) {
	var b strings.Builder
	kind, encode := "message/delivery-status", encodeUnicode
	if r.UTF8() {
		kind, encode = "message/global-delivery-status", func(s string) string { return s }
	}
	field := func(name, value string) {
		fmt.Fprintf(&b, "%s: %s\r\n", name, fold(len(name)+2, r.visible(value)))
	}
	m := r.Message
	field("Reporting-MTA", "dns; "+r.Hostname)
	if m.EnvelopeID != "" {
		field("Original-Envelope-Id", m.EnvelopeID)
	}
	field("Arrival-Date", header.Date(m.Arrived))
	field("X-Postino-Queue-Id", m.ID.String())
	for n := range r.Recipients {
		b.WriteString("\r\n")
		rcpt := r.recipient(n)
		if rcpt.Original != "" {
			field("Original-Recipient", originalAddress(rcpt.Original, encode))
		}
		field("Final-Recipient", finalAddress(rcpt, encode))
		field("Action", string(r.Action))
		field("Status", r.statusCode(rcpt.Reply))
		if host := hostName(rcpt.Reply.Host); rcpt.Reply.Code != 0 && host != "" {
			field("Remote-MTA", "dns; "+host)
		}
		field("Diagnostic-Code", diagnostic(rcpt.Reply))
		field("Last-Attempt-Date", header.Date(r.Now))
		if r.Action == Delayed {
			field("Will-Retry-Until", header.Date(r.Until))
		}
		field("Final-Log-ID", m.ID.String())
	}
	return kind, b.String()
}

// statusCode is the enhanced status, of a class that suits the action: a failure
// may have class 4 where we gave up trying (RFC 3464 §2.3.4).
func (r *Report) statusCode(reply spool.Reply) string {
	class := map[Action]string{Failed: "45", Delayed: "4"}[r.Action]
	if class == "" {
		class = "2"
	}
	switch {
	case reply.Status != "" && strings.Contains(class, reply.Status[:1]):
		return reply.Status
	case r.Action == Failed:
		return "5.0.0"
	}
	return class + ".0.0"
}

// diagnostic is what the remote said, or, of another type, what we say: nobody shall
// take our words for an SMTP reply (RFC 3464 §2.3.6).
func diagnostic(reply spool.Reply) string {
	if reply.Code != 0 {
		return "smtp; " + reply.Said()
	}
	return "X-Postino; " + reply.Said()
}

// hostName is the name in "name[address]", or the address in brackets alone.
func hostName(host string) string {
	if name, _, _ := strings.Cut(host, "["); name != "" {
		return name
	}
	return host
}

// originalAddress is ORCPT, which is kept as type;address, the address decoded.
func originalAddress(original string, encode func(string) string) string {
	kind, addr, _ := strings.Cut(original, ";")
	if strings.EqualFold(kind, "utf-8") {
		addr = encode(addr)
	}
	return kind + ";" + addr
}

func finalAddress(rcpt *spool.Recipient, encode func(string) string) string {
	if rcpt.Address.UTF8() {
		return "utf-8; " + encode(rcpt.Address.String())
	}
	return "rfc822; " + rcpt.Address.String()
}

// encodeUnicode is the form utf-8-addr-xtext of RFC 6533 §3.
func encodeUnicode(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c <= ' ' || c > '~' || c == '+' || c == '=' || c == '\\' {
			fmt.Fprintf(&b, `\x{%02X}`, c)
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// maxValue bounds the value of a field, in octets: folded at blanks it stays, with
// its name, below the longest line that mail may have even if it has no blank.
const maxValue = 900

// visible is s as it can stand in a field: others wrote it. It is ASCII where the part
// is.
func (r *Report) visible(s string) string {
	s = strings.TrimSpace(s)
	if r.UTF8() {
		s = spool.CleanText(s)
		return strings.ToValidUTF8(s[:min(len(s), maxValue)], "")
	}
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
	return s[:min(len(s), maxValue)]
}
