package spool

import (
	"io"
	"time"

	"postino/spool/address"
)

// Message is what the spool knows of one message, its content apart.
type Message struct {
	ID         ID           `json:"id"`
	Submission SubmissionID `json:"submission,omitzero"`
	Arrived    time.Time    `json:"arrived"`
	// Sender is the reverse-path; the zero Address is the null one.
	Sender address.Address `json:"sender"`
	// BareSender: it was given without a domain, as Recipient.Bare.
	BareSender bool        `json:"bare_sender,omitempty"`
	Recipients []Recipient `json:"recipients"`
	Origin     Origin      `json:"origin"`
	// Return and EnvelopeID are the DSN parameters RET and ENVID (RFC 3461), the
	// latter decoded; empty when the submitter gave none.
	Return     string `json:"return,omitempty"`
	EnvelopeID string `json:"envid,omitempty"`
	// Size is the content's length in octets, line ends counted as CRLF.
	Size int64 `json:"size"`
	// EightBit: octets above 127 in the content. UTF8: the header section or the
	// envelope needs SMTPUTF8 (RFC 6531).
	EightBit bool `json:"eightbit,omitempty"`
	UTF8     bool `json:"utf8,omitempty"`
	// RequireTLS: it may only go to hosts that prove who they are by TLS and keep to
	// this too (REQUIRETLS, RFC 8689).
	RequireTLS bool `json:"require_tls,omitempty"`
	// TLSOptional: the header section says that it is worth more to its sender than
	// what domains demand of TLS (TLS-Required: No, RFC 8689 §3).
	TLSOptional bool `json:"tls_optional,omitempty"`
	// NoAliases: no alias is looked up for its recipients (sendmail -n).
	NoAliases bool `json:"no_aliases,omitempty"`
	// MessageID, Subject and From are copied from the header section so that a
	// person can find the message.
	MessageID string `json:"message_id,omitempty"`
	Subject   string `json:"subject,omitempty"`
	From      string `json:"from,omitempty"`
	// Bulk: the header section says that the message is one of many (Precedence,
	// List-Id, List-Unsubscribe). Others are attempted before it.
	Bulk bool `json:"bulk,omitempty"`
	// Held is why nothing is attempted until somebody releases the message; empty
	// when it is not held. HeldBy is what holds it, where that matters later.
	Held   string `json:"held,omitempty"`
	HeldBy Holder `json:"held_by,omitempty"`

	Content Content `json:"content"`
	// Attempts counts the attempts recorded so far, whoever they were for.
	Attempts int `json:"attempts,omitempty"`
	// Reports are the IDs of the delivery reports that were sent about the message.
	Reports []ID `json:"reports,omitempty"`
	// Finished is when the last recipient was settled; zero while one is not.
	Finished time.Time `json:"finished,omitzero"`
	// Captured says that the content is kept for reading after the end.
	Captured bool `json:"captured,omitempty"`
	// Kept says that the content is kept since a recipient failed, so that Revive can
	// send the message again. Retried is when that happened last; zero is never.
	Kept    bool      `json:"kept,omitempty"`
	Retried time.Time `json:"retried,omitzero"`
	// Gathered is what there is to say of a report that waits for others; nil in any
	// other message.
	Gathered *Gathered `json:"gathered,omitempty"`
	// Refused is why policy does not take the message, which was accepted before
	// anybody could say so: all of its recipients fail with that. Nil is not.
	Refused *Reply `json:"refused,omitempty"`
}

// Holder is what holds a message. The zero value is everything that only a person
// undoes: an administrator's hold, damage, a policy.
type Holder string

// The holders that are told apart.
const (
	ByLimit      Holder = "limit"      // its uid had handed in too much
	BySuspension Holder = "suspension" // its uid is suspended; Resume releases it
)

// Content says where a message's content rests and what it must hash to.
type Content struct {
	// File: in content/<ID>, not in the database.
	File bool `json:"file,omitempty"`
	// Sum is the CRC-32C of the content. It finds damage, not forgery: who can
	// write the spool can write the sum.
	Sum uint32 `json:"sum"`
}

// Origin is who handed a message in, as the kernel says it.
type Origin struct {
	Via Via `json:"via"`
	UID int `json:"uid"`
	// PID and Program are the submitting process's parent, which is the caller of
	// sendmail; 0 and "" when unknown, as for drop files.
	PID     int    `json:"pid,omitempty"`
	Program string `json:"program,omitempty"`
	// Action is what a report says: failed, delayed, relayed, delivered or expanded
	// (RFC 3464 §2.3.3). Empty: it is none, or of an older postino.
	Action string `json:"action,omitempty"`
	// Reports is how many reports a digest has in it; 0: it is none.
	Reports int `json:"reports,omitempty"`
}

// Via is the carrier a submission came by.
type Via string

// The carriers.
const (
	ViaSocket Via = "socket"
	ViaDrop   Via = "drop"
	ViaStdio  Via = "bs"
	ViaTCP    Via = "tcp"
	ViaDSN    Via = "dsn"
)

// Status is the state of a recipient (see the state table in architecture(7)).
type Status string

// The states of a recipient. Queued and Deferred are unsettled.
const (
	Queued    Status = "queued"
	Deferred  Status = "deferred"
	Delivered Status = "delivered" // in a mailbox, or captured
	Relayed   Status = "relayed"   // the next hop answers for it now
	Expanded  Status = "expanded"  // replaced by other recipients
	Failed    Status = "failed"
)

// Settled reports whether a recipient in this state needs no further attempt.
func (s Status) Settled() bool { return s != Queued && s != Deferred }

// Recipient is one recipient of a message and what became of it.
type Recipient struct {
	Address address.Address `json:"address"`
	Status  Status          `json:"status"`
	// Attempts counts the attempts made for this recipient.
	Attempts int `json:"attempts"`
	// Waited are those of them that a Fault ended: they do not count against it.
	Waited int `json:"waited,omitempty"`
	// Next is the earliest time of the next attempt; zero is at once.
	Next time.Time `json:"next,omitzero"`
	// Reply is the last outcome; the zero Reply before the first attempt.
	Reply Reply `json:"reply"`
	// Bare: it was given without a domain, or as one of localhost, and so is this
	// machine's whatever the domain that completed it. Final: it is a mailbox, and no
	// alias is looked up for it.
	Bare  bool `json:"bare,omitempty"`
	Final bool `json:"final,omitempty"`
	// Target is what an alias names that is no address, "|command" or "/file"; Address is
	// that of the alias then. Empty is none.
	Target string `json:"target,omitempty"`
	// Owner is who hears of this recipient, and is the reverse-path of what it is sent,
	// in the place of Message.Sender; zero is nobody else.
	Owner address.Address `json:"owner,omitzero"`
	// Warned says that the sender was told that it is late.
	Warned bool `json:"warned,omitempty"`
	// Notify and Original are the DSN parameters NOTIFY and ORCPT (RFC 3461).
	Notify   []string `json:"notify,omitempty"`
	Original string   `json:"original,omitempty"`
}

// key is the same for recipients that are one.
func (r *Recipient) key() string {
	if r.Target != "" {
		return r.Target
	}
	return r.Address.Key()
}

// SenderFor is the reverse-path of the message for a recipient.
func (m *Message) SenderFor(r *Recipient) address.Address {
	if r.Owner.IsNull() {
		return m.Sender
	}
	return r.Owner
}

// Settled reports whether all recipients are.
func (m *Message) Settled() bool {
	for i := range m.Recipients {
		if !m.Recipients[i].Status.Settled() {
			return false
		}
	}
	return true
}

// Next returns when m is due: the earliest Next of its unsettled recipients.
// The second result is false when there is nothing to attempt.
func (m *Message) Next() (time.Time, bool) {
	var next time.Time
	found := false
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.Status.Settled() {
			continue
		}
		if !found || r.Next.Before(next) {
			next, found = r.Next, true
		}
	}
	return next, found && m.Held == ""
}

// Attempt is one attempt to deliver a message to some of its recipients.
type Attempt struct {
	At   time.Time     `json:"at"`
	Took time.Duration `json:"took"`
	// Hop is the next hop as the route names it: "relay smtp.example.net:587".
	Hop string `json:"hop"`
	TLS string `json:"tls,omitempty"`
	// From is the reverse-path, where the way has another than the message: a route's
	// own, or the owner of an alias.
	From address.Address `json:"from,omitzero"`
	// Outcomes has one entry for each recipient attempted.
	Outcomes []Outcome `json:"outcomes"`
	// Children take the place of recipients that were expanded. Addresses that the
	// message has already are left out.
	Children []Recipient `json:"children,omitempty"`
	// Keep: the content is to be kept for reading when the message is finished.
	// KeepFailed: so that it can be sent again, since a recipient failed.
	Keep       bool `json:"-"`
	KeepFailed bool `json:"-"`
}

// Outcome is what an Attempt did to one recipient.
type Outcome struct {
	// Recipient is an index into Message.Recipients.
	Recipient int       `json:"recipient"`
	Status    Status    `json:"status"`
	Next      time.Time `json:"next,omitzero"`
	Reply     Reply     `json:"reply"`
	// Final and Owner: see Recipient. With Status Queued that is all there is to the
	// outcome.
	Final bool            `json:"final,omitempty"`
	Owner address.Address `json:"owner,omitzero"`
	// Several: more than one took the place of an expanded recipient, so that nobody
	// will tell of its success (RFC 3461 §5.2.7.3).
	Several bool `json:"several,omitempty"`
	// Warned: a report with the attempt tells the sender that it is late.
	Warned bool `json:"warned,omitempty"`
}

// Batch is the work of one attempt: a message and those of its recipients that
// have the same next hop.
type Batch struct {
	Message *Message
	// Recipients are indices into Message.Recipients.
	Recipients []int
	// Open opens the content, whose checksum is verified while it is read: a read
	// error other than io.EOF must never end as a complete message at the remote.
	Open func() (io.ReadCloser, error)
}
