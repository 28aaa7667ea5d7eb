package spool

import (
	"strconv"
	"strings"
	"time"
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
	// Notifies says that the next hop took over to report success (RFC 3461 §5.2.1).
	Notifies bool `json:"notifies,omitempty"`
	// Unannounced says that the remote took 8-bit content without offering 8BITMIME
	// (RFC 6152): what it made of it nobody knows.
	Unannounced bool `json:"unannounced,omitempty"`
	// Maybe says that the connection ended after the end of the content and before
	// the answer to it: the remote may have taken the message (RFC 1047).
	Maybe bool `json:"maybe_delivered,omitempty"`
	// Fault says that the outcome is not about this mail but about the way that it was
	// to go, which the operator has to mend. Such a Reply is temporary, and while that
	// is so nothing expires. Empty is an outcome like any other.
	Fault Fault `json:"fault,omitempty"`
	// Remedy is what the operator can do about a Fault.
	Remedy string `json:"remedy,omitempty"`
}

// Fault is what is wrong with the way that mail was to go.
type Fault string

// The faults.
const (
	FaultRelay   Fault = "relay"   // password, certificate, account: it stays until somebody mends it
	FaultNetwork Fault = "network" // no session came about: it may pass by itself
	FaultSender  Fault = "sender"  // the relay wants no mail from this sender
	FaultPort    Fault = "port"    // no mail exchanger can be reached: the port seems closed
)

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

// lastAnswer stands in the text of a Reply that Expired made, before what it was
// made of.
const lastAnswer = "; last: "

// Expired is r as the last outcome for a recipient that is given up after lifetime:
// the status says so (RFC 3463 §3.5), and what r said stays in the text.
func (r Reply) Expired(lifetime time.Duration) Reply {
	said := r.Said()
	r.Status = "4.4.7"
	r.Text = CleanText("not delivered within " + lifetime.String() + lastAnswer + said)
	return r
}

// Said is what was said, by the remote or by us: r as String gives it, with our own
// words alone where no remote answered, and before it Expired.
func (r Reply) Said() string {
	if _, said, expired := strings.Cut(r.Text, lastAnswer); expired && r.Status == "4.4.7" {
		return said
	}
	if r.Code == 0 {
		return r.Text
	}
	if class := r.Code / 100; r.Status != "" && (class == 4 || class == 5) {
		r.Status = strconv.Itoa(class) + r.Status[1:] // the verdict may be another
	}
	return r.String()
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
		case r < 0x20, r >= 0x7f && r < 0xa0,
			// What ends a line (U+2028, U+2029) or turns the direction of text.
			r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x061c, r == 0x200e, r == 0x200f:
			return '?'
		}
		return r
	}, s)
	if len(s) > MaxReplyText {
		s = strings.ToValidUTF8(s[:MaxReplyText], "")
	}
	return strings.TrimSpace(s)
}
