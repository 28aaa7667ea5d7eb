// Package control is how people and programs ask a running postino: HTTP and JSON
// over control.sock in the spool directory. Everybody may connect, and the kernel
// says who did. A [View] answers the same questions without a runner.
package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"time"

	"postino/spool"
	"postino/spool/address"
)

// The values of Message.Status.
const (
	StatusQueued   = "queued"
	StatusHeld     = "held"
	StatusFinished = "finished"
)

// Message is a message as `postino queue --json` shows it, one object a line. Its
// times are UTC.
type Message struct {
	ID      spool.ID  `json:"id"`
	Arrived time.Time `json:"arrived"`
	// Sender is the reverse-path; empty when it is the null one or Hidden.
	Sender string `json:"sender"`
	UID    int    `json:"uid"`
	Size   int64  `json:"size"` // octets of content
	Status string `json:"status"`
	// Held is why the message is held.
	Held string `json:"held,omitempty"`
	// Kept says that the message is in the failed list.
	Kept bool `json:"kept,omitempty"`
	// Hidden says that the asker may not know addresses and reasons: they are empty.
	Hidden     bool        `json:"hidden,omitempty"`
	Recipients []Recipient `json:"recipients"`
}

// Recipient is one recipient of a Message.
type Recipient struct {
	Address  string       `json:"address"`
	Status   spool.Status `json:"status"`
	Attempts int          `json:"attempts"`
	// Next is the earliest time of the next attempt; zero once it is settled.
	Next time.Time `json:"next,omitzero"`
	// Reply is the last outcome; nil before the first.
	Reply *spool.Reply `json:"reply,omitempty"`
	// Maybe says that the last attempt ended without an answer to its content.
	Maybe bool `json:"maybe_delivered,omitempty"`
}

// Trace is the whole life of a message as `postino trace --json` shows it.
type Trace struct {
	Message
	MessageID string `json:"message_id"`
	// Subject has its encoded words (RFC 2047) decoded where that can be done.
	Subject  string    `json:"subject"`
	Via      spool.Via `json:"via"`
	PID      int       `json:"pid"`
	Program  string    `json:"program"`
	Finished time.Time `json:"finished,omitzero"`
	Captured bool      `json:"captured,omitempty"`
	// NoAliases: see spool.Message.
	NoAliases bool      `json:"no_aliases,omitempty"`
	Attempts  []Attempt `json:"attempts"`
	// Reports are the IDs of the delivery reports sent about the message.
	Reports []spool.ID `json:"reports"`
}

// Attempt is one attempt; Replies has one entry for each of Recipients.
type Attempt struct {
	At         time.Time     `json:"at"`
	TookMS     int64         `json:"took_ms"`
	Hop        string        `json:"hop"`
	TLS        string        `json:"tls"`
	From       string        `json:"from,omitempty"` // the reverse-path, where it was another
	Recipients []string      `json:"recipients"`
	Replies    []spool.Reply `json:"replies"`
}

// Status is what the runner says of itself.
type Status struct {
	PID        int       `json:"pid"`
	Version    string    `json:"version"`
	Mode       string    `json:"mode"`
	Pending    int       `json:"pending"` // messages that it is going to attempt
	Started    time.Time `json:"started"`
	UptimeMS   int64     `json:"uptime_ms"`
	UntilEmpty bool      `json:"until_empty"` // it ends when nothing is pending
	Warnings   []string  `json:"warnings"`    // see spool.Warnings
	Alerts     []Alert   `json:"alerts"`      // what somebody has to mend
}

// Alert is a way on which nothing goes until somebody has mended something.
type Alert struct {
	Hop string `json:"hop"`
	// Sender is whose mail waits; empty is everybody's.
	Sender string    `json:"sender,omitempty"`
	Since  time.Time `json:"since"`
	Next   time.Time `json:"next"`  // the next probe
	Reply  string    `json:"reply"` // what was said last, by the relay or by us
	Remedy string    `json:"remedy"`
}

// Route is where mail for an address would go.
type Route struct {
	Address string `json:"address"` // completed
	Hop     string `json:"hop"`
	// TLS is what connections to mail exchangers must come to, Problem why nothing can be
	// sent to any, in words.
	TLS     string `json:"tls,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// Access is what an asker may see. The zero value is root's own mail alone.
type Access struct {
	UID int
	// All: addresses, reasons and history of everybody's mail.
	All bool
	// Admin: as All, and content as well.
	Admin bool
}

func (a Access) sees(m *spool.Message) bool { return a.All || a.owns(m) }

// owns reports whether the asker may read the content of m.
func (a Access) owns(m *spool.Message) bool { return a.Admin || a.UID == m.Origin.UID }

func newMessage(m *spool.Message, a Access) Message {
	out := Message{
		ID: m.ID, Arrived: m.Arrived.UTC(), Sender: m.Sender.String(), UID: m.Origin.UID, Size: m.Size,
		Status: StatusQueued, Held: m.Held, Kept: m.Kept && !m.Finished.IsZero(), Recipients: make([]Recipient, len(m.Recipients)),
	}
	switch {
	case !m.Finished.IsZero():
		out.Status = StatusFinished
	case m.Held != "":
		out.Status = StatusHeld
	}
	for i := range m.Recipients {
		out.Recipients[i] = newRecipient(m, &m.Recipients[i])
	}
	if !a.sees(m) {
		out.hide()
	}
	return out
}

func newRecipient(m *spool.Message, r *spool.Recipient) Recipient {
	out := Recipient{Address: r.Address.String(), Status: r.Status, Attempts: r.Attempts, Maybe: r.Reply.Maybe}
	if !r.Status.Settled() {
		out.Next = r.Next.UTC()
		if r.Next.IsZero() { // at once
			out.Next = m.Arrived.UTC()
		}
	}
	if r.Reply != (spool.Reply{}) {
		reply := r.Reply
		out.Reply = &reply
	}
	return out
}

// hide leaves what anybody may know: that there is mail, since when, how large.
func (m *Message) hide() {
	m.Hidden, m.Sender, m.Held = true, "", ""
	for i := range m.Recipients {
		r := &m.Recipients[i]
		r.Address = ""
		if r.Reply != nil {
			r.Reply.Text, r.Reply.Host, r.Reply.Remedy = "", "", ""
		}
	}
}

// newTrace is for an asker who sees m.
func newTrace(m *spool.Message, attempts []spool.Attempt) Trace {
	out := Trace{
		Message:   newMessage(m, Access{All: true}),
		MessageID: m.MessageID, Subject: decodeWords(m.Subject),
		Via: m.Origin.Via, PID: m.Origin.PID, Program: m.Origin.Program,
		Captured: m.Captured, NoAliases: m.NoAliases, Attempts: make([]Attempt, len(attempts)), Reports: append([]spool.ID{}, m.Reports...),
	}
	if !m.Finished.IsZero() {
		out.Finished = m.Finished.UTC()
	}
	for i, a := range attempts {
		t := &out.Attempts[i]
		*t = Attempt{At: a.At.UTC(), TookMS: a.Took.Milliseconds(), Hop: a.Hop, TLS: a.TLS, Recipients: []string{}, Replies: []spool.Reply{}}
		if !a.From.IsNull() {
			t.From = a.From.String()
		}
		for _, o := range a.Outcomes {
			var rcpt address.Address
			if o.Recipient >= 0 && o.Recipient < len(m.Recipients) {
				rcpt = m.Recipients[o.Recipient].Address
			}
			t.Recipients = append(t.Recipients, rcpt.String())
			t.Replies = append(t.Replies, o.Reply)
		}
	}
	return out
}

// decodeWords decodes encoded words (RFC 2047 §2); text in a character set that is
// not known stays as it is.
func decodeWords(s string) string {
	decoded, err := new(mime.WordDecoder).DecodeHeader(s)
	if err != nil {
		return s
	}
	return decoded
}

// Line is v as JSON in one line. Characters that a terminal would obey are escaped
// too: JSON itself lets DEL, the C1 controls and text direction marks pass.
func Line(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	text := buf.Bytes()
	if bytes.IndexFunc(text, unsafeRune) < 0 {
		return text, nil
	}
	out := make([]byte, 0, len(text)+16)
	for _, r := range string(text) {
		if unsafeRune(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = append(out, string(r)...)
		}
	}
	return out, nil
}

func unsafeRune(r rune) bool {
	return r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x061c || r == 0x200e || r == 0x200f
}
