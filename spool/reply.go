package spool

import (
	"strconv"
	"strings"
)

// Reply is the one outcome type: whatever happens to a recipient, from refused
// TCP to 250, is a Reply, and schedule, mailq, log, history and reports read it.
type Reply struct {
	// Code is the remote's three-digit reply code; 0 when no remote answered.
	Code int `json:"code"`
	// Status is the enhanced status code (RFC 3463), always set, such as "4.4.1".
	// Its class is the verdict: 2 done, 4 try again, 5 failed. A remote's 5yz that
	// is about us and not about the recipient (a wrong password) has class 4.
	Status string `json:"status"`
	// Text is the remote's text, or ours; one line of printable characters.
	Text string `json:"text"`
	// Host is who said it: "name[address]", empty when nobody was reached.
	Host string `json:"host"`
	// Command is what it answers: MAIL, RCPT, DATA, dot, AUTH, connect, …
	Command string `json:"command"`
	// TLS is how the connection was protected: "TLS1.3 verified", "" in plaintext.
	TLS string `json:"tls,omitempty"`
	// Maybe says that the connection ended after the end of the content and before
	// the answer to it: the remote may have taken the message (RFC 1047).
	Maybe bool `json:"maybe_delivered,omitempty"`
}

// Class is the verdict of a Reply.
type Class int

// The three verdicts; the numbers are the first digits of Reply.Status.
const (
	Success   Class = 2
	Temporary Class = 4
	Permanent Class = 5
)

// Class returns the verdict. A Reply without a well-formed Status is Temporary:
// what we do not understand is tried again, never given up.
func (r Reply) Class() Class {
	switch {
	case strings.HasPrefix(r.Status, "2."):
		return Success
	case strings.HasPrefix(r.Status, "5."):
		return Permanent
	}
	return Temporary
}

// String is the reply as a person reads it: "451 4.2.1 Mailbox busy".
func (r Reply) String() string {
	s := r.Status + " " + r.Text
	if r.Code != 0 {
		s = strconv.Itoa(r.Code) + " " + s
	}
	return strings.TrimSpace(s)
}

// MaxReplyText is how many octets of a remote's text are kept. Longer than any
// reply line RFC 5321 §4.5.3.1.5 allows, short enough for 1,000 recipients.
const MaxReplyText = 1000

// CleanText makes a remote's text one printable line of at most MaxReplyText
// octets: a reply ends in logs, terminals and reports, and whoever wrote it is
// not trusted with any of them.
func CleanText(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t':
			return ' '
		case r < 0x20, r >= 0x7f && r < 0xa0, r == 0x2028, r == 0x2029, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return '?'
		}
		return r
	}, s)
	if len(s) > MaxReplyText {
		s = strings.ToValidUTF8(s[:MaxReplyText], "")
	}
	return strings.TrimSpace(s)
}
