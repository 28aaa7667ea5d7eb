package handoff

import (
	"strconv"
	"strings"

	"postino/spool/address"
)

// The wire form of a submission is an SMTP session with one BDAT chunk
// (RFC 3030), the same on the socket and in a drop file.

// submissionDomain ends the EHLO name that carries the ID.
const submissionDomain = ".submission.invalid"

// NoAliases is the command by which a session asks that no alias is looked up for its
// recipients. SMTP has no parameter for that, and NOOP may have any (RFC 5321 §4.1.1.9):
// a runner that does not know this one takes the message all the same.
const NoAliases = "NOOP no-aliases"

// opening is the session up to the first recipient.
func (s *Submission) opening() []byte {
	b := make([]byte, 0, 512)
	b = append(b, "EHLO "...)
	b = append(b, hexID(s.ID)...)
	b = append(b, submissionDomain+"\r\n"...)
	if s.NoAliases {
		b = append(b, NoAliases+"\r\n"...)
	}
	b = append(b, "MAIL FROM:<"...)
	b = append(b, path821(s.Sender)...)
	b = append(b, "> SIZE="...)
	b = strconv.AppendInt(b, s.size(), 10)
	if s.EightBit {
		b = append(b, " BODY=8BITMIME"...)
	}
	if s.UTF8 {
		b = append(b, " SMTPUTF8"...)
	}
	if s.RequireTLS {
		b = append(b, " REQUIRETLS"...)
	}
	if s.Return != "" {
		b = append(b, " RET="...)
		b = append(b, s.Return...)
	}
	if s.EnvelopeID != "" {
		b = append(b, " ENVID="...)
		b = appendXtext(b, s.EnvelopeID)
	}
	return append(b, "\r\n"...)
}

// appendRecipients appends the commands for some of the recipients.
func appendRecipients(b []byte, recipients []Recipient) []byte {
	for _, r := range recipients {
		b = append(b, "RCPT TO:<"...)
		b = append(b, path821(r.Address)...)
		b = append(b, '>')
		if len(r.Notify) > 0 {
			b = append(b, " NOTIFY="...)
			b = append(b, strings.Join(r.Notify, ",")...)
		}
		if r.Original != "" {
			b = append(b, " ORCPT="...)
			b = append(b, r.OriginalType...)
			b = append(b, ';')
			if strings.EqualFold(r.OriginalType, "utf-8") {
				b = appendUTF8Xtext(b, r.Original)
			} else {
				b = appendXtext(b, r.Original)
			}
		}
		b = append(b, "\r\n"...)
	}
	return b
}

// writeContent writes lead, the command that announces the content, and the
// content to fd.
func (s *Submission) writeContent(fd int, lead []byte) error {
	lead = append(lead, "BDAT "...)
	lead = strconv.AppendInt(lead, s.size(), 10)
	lead = append(lead, " LAST\r\n"...)
	return s.Body.writeTo(fd, lead, s.Head)
}

// path821 is a as it stands between angle brackets. SMTP has no bare names
// (RFC 5321 §4.1.2), and only the runner knows what completes them.
func path821(a address.Address) string {
	if a.Domain == "" && !a.IsNull() {
		a.Domain = "localhost"
	}
	return a.String()
}

// appendXtext encodes s as xtext (RFC 3461 §4).
func appendXtext(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c > ' ' && c < 0x7f && c != '+' && c != '=' {
			b = append(b, c)
		} else {
			b = append(b, '+', digits[c>>4], digits[c&15])
		}
	}
	return b
}

// appendUTF8Xtext encodes s as utf-8-addr-xtext (RFC 6533 §3).
func appendUTF8Xtext(b []byte, s string) []byte {
	for _, c := range s {
		if c > ' ' && c < 0x7f && c != '+' && c != '=' && c != '\\' {
			b = append(b, byte(c))
			continue
		}
		b = append(b, `\x{`...)
		b = append(b, strings.ToUpper(strconv.FormatInt(int64(c), 16))...)
		b = append(b, '}')
	}
	return b
}
