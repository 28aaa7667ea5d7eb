// Package dsn writes delivery status notifications: a text for a person, the same
// for programs (RFC 3464), and the message it is about, or its header section, in
// one multipart/report (RFC 6522).
package dsn

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"strings"
	"time"

	"postino/spool"
	"postino/spool/address"
	"postino/spool/header"
)

// Action is what became of the recipients of a report (RFC 3464 §2.3.3).
type Action string

// The actions.
const (
	Failed    Action = "failed"
	Delayed   Action = "delayed"
	Relayed   Action = "relayed" // to a host that sends no reports of its own
	Delivered Action = "delivered"
	Expanded  Action = "expanded"
)

// Report is one report: about one message, and one thing that became of some of
// its recipients. All fields but Until must be set.
type Report struct {
	// ID is the queue ID of the report itself.
	ID     spool.ID
	Action Action
	// Message is as it is after what is reported: its recipients have their last
	// Reply and their count of attempts.
	Message *spool.Message
	// Recipients are indices into Message.Recipients; at least one.
	Recipients []int
	// To gets the report: the reverse-path of Message, or an operator.
	To address.Address
	// Hostname is ours. Domain is that of MAILER-DAEMON and postmaster.
	Hostname, Domain string
	// Now is when it happened. Until is when a delayed message is given up.
	Now, Until time.Time
}

const (
	// maxReturned is how many octets of a message a report gives back. A larger one
	// comes back as its header section: whoever sent it has it.
	maxReturned = 50 << 10
	// maxLine is the longest line, in octets, that mail may have (RFC 5322 §2.1.1).
	maxLine = 998
)

// Write writes the report, in CRLF lines. content is that of the message it is
// about; no more than maxReturned octets of it are read. An error that content
// gives is returned, since half a message must not look like a whole one.
func (r *Report) Write(w io.Writer, content io.Reader) error {
	original, err := readOriginal(content)
	if err != nil {
		return err
	}
	full := r.Action == Failed && !r.headersOnly() && original.returnable()
	boundary := fmt.Sprintf("=_%s.%016x", r.ID, rand.Uint64()) // which no message can know
	var b bytes.Buffer
	r.writeHeader(&b, boundary)
	part(&b, boundary, "Notification", "text/plain; charset=utf-8", r.text(full))
	kind, status := r.status()
	raw(&b, boundary, "Delivery report", kind, []byte(status))
	original.write(&b, boundary, full, r.Message.UTF8)
	fmt.Fprintf(&b, "\r\n--%s--\r\n", boundary)
	_, err = w.Write(b.Bytes())
	return err
}

// headersOnly reports whether the body must not go back: it was asked for, or the
// message was for protected paths alone (RFC 8689 §5).
func (r *Report) headersOnly() bool {
	return r.Message.RequireTLS || strings.EqualFold(r.Message.Return, "HDRS")
}

// writeHeader writes the header section. The report answers the message (RFC 3834
// §3.1), so that a mail program shows them together and no program answers it.
func (r *Report) writeHeader(b *bytes.Buffer, boundary string) {
	field := func(name, value string) { fmt.Fprintf(b, "%s: %s\r\n", name, fold(len(name)+2, value)) }
	field("From", header.Mailbox("Mail Delivery System", address.Address{Local: "MAILER-DAEMON", Domain: r.Domain}))
	field("To", r.To.String())
	field("Subject", encoded(r.Subject()))
	field("Date", header.Date(r.Now))
	field("Message-ID", fmt.Sprintf("<%s.%08x@%s>", r.ID, rand.Uint32(), r.Hostname))
	if id := r.Message.MessageID; isMessageID(id) {
		field("In-Reply-To", id)
		field("References", id)
	}
	field("Auto-Submitted", "auto-replied")
	field("X-Postino-Queue-Id", r.Message.ID.String())
	field("MIME-Version", "1.0")
	field("Content-Type", fmt.Sprintf("multipart/report; report-type=delivery-status; boundary=%q", boundary))
	b.WriteString("\r\nThis is a delivery report in the form of RFC 3464.\r\n")
}

// isMessageID reports whether a Message-ID can be repeated as it is. It comes from
// the message, and so from anybody.
func isMessageID(id string) bool {
	return len(id) > 2 && len(id) < maxLine-len("In-Reply-To: ") && id[0] == '<' && id[len(id)-1] == '>' &&
		strings.Count(id, "<") == 1 && strings.Count(id, ">") == 1 &&
		!strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' })
}

// encoded is text for an unstructured field (RFC 2047 §5).
func encoded(text string) string { return mime.QEncoding.Encode("utf-8", text) }

// fold breaks a field's value into lines at blanks, where it has some. used is
// what stands before it in the first line.
func fold(used int, value string) string { return foldTo(lineWidth, used, value) }

// lineWidth is how many characters of a line people see at once.
const lineWidth = 76

func foldTo(width, used int, value string) string {
	var b strings.Builder
	for i, word := range strings.Split(value, " ") {
		if i > 0 && used+1+len(word) > width {
			b.WriteString("\r\n")
			used = 0
		}
		if i > 0 {
			b.WriteByte(' ')
			used++
		}
		b.WriteString(word)
		used += len(word)
	}
	return b.String()
}

// Subject is the report's subject, not yet encoded: what became of which mail to
// whom, so that reports can be told apart in a list.
func (r *Report) Subject() string {
	verb := map[Action]string{Failed: "Not delivered", Delayed: "Still trying", Relayed: "Handed on", Delivered: "Delivered", Expanded: "Distributed"}[r.Action]
	what := "your mail"
	if s := r.originalSubject(); s != "" {
		what = `"` + s + `"`
	}
	to := spool.CleanText(r.recipient(0).Address.String())
	if more := len(r.Recipients) - 1; more > 0 {
		to = fmt.Sprintf("%s and %d more", to, more)
	}
	return fmt.Sprintf("%s: %s to %s", verb, what, to)
}

// maxSubject is how many characters of a subject are repeated: enough to know it by.
const maxSubject = 60

func (r *Report) originalSubject() string {
	s := r.Message.Subject
	if decoded, err := new(mime.WordDecoder).DecodeHeader(s); err == nil {
		s = decoded
	}
	runes := []rune(spool.CleanText(s))
	if len(runes) > maxSubject {
		return strings.TrimSpace(string(runes[:maxSubject])) + "…"
	}
	return string(runes)
}

// recipient is the nth one reported.
func (r *Report) recipient(n int) *spool.Recipient { return &r.Message.Recipients[r.Recipients[n]] }

// UTF8 reports whether the report can only be sent with SMTPUTF8 (RFC 6533 §1): the
// message it gives back needs it as well, but is no more than text here.
func (r *Report) UTF8() bool { return r.To.UTF8() }
