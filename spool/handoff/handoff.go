// Package handoff is the front end's side of a submission: it gives a message to
// the runner over the socket submit.sock or, when nobody listens there or at any
// doubt, leaves the same bytes as a file in drop/ for the runner to find.
//
// It is on the path that every caller of sendmail waits for, so it uses system
// calls and the light part of the standard library alone.
package handoff

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"postino/spool/address"
)

// Submission is one message and its envelope.
type Submission struct {
	// ID names the submission; the runner makes one message of all that arrives
	// under one ID, so a second try never makes a second copy.
	ID [16]byte
	// Sender is the reverse-path, the zero Address the null one. A bare name in
	// the envelope travels as name@localhost and is completed by the runner.
	Sender     address.Address
	Recipients []Recipient
	// Return is the DSN parameter RET, for the caller to validate, EnvelopeID is
	// ENVID before its encoding (RFC 3461 §4); empty when not given.
	Return, EnvelopeID string
	// EightBit: octets above 127 in the content. UTF8: the message needs SMTPUTF8.
	// RequireTLS, NoAliases: see spool.Message.
	EightBit, UTF8, RequireTLS, NoAliases bool
	// Head is the header section with the empty line that ends it. Lines of Head
	// and Body end in CRLF.
	Head []byte
	// Body is what follows; nil is nothing.
	Body *Buffer
}

// Recipient is a recipient and its DSN parameters (RFC 3461 §4), which may be
// empty. Notify holds the words of NOTIFY, for the caller to validate.
// OriginalType, such as RFC822, and Original are ORCPT before its encoding.
type Recipient struct {
	Address                address.Address
	Notify                 []string
	OriginalType, Original string
}

// MaxRecipients is how many recipients one message may have: the most that a
// configuration can allow. What is refused here need not be refused when it is found
// in drop/ and nobody waits for an answer any more.
const MaxRecipients = 100_000

// ErrTooManyRecipients is returned for a message with more than MaxRecipients.
var ErrTooManyRecipients = errors.New("more than 100000 recipients: send it in parts")

// NewID makes the ID of a submission that begins at now. Its first 64 bits are
// the queue ID it proposes, microseconds since 1970 and 12 random bits, the rest
// is random: nobody can guess it and block or claim the submission.
func NewID(now time.Time) (id [16]byte) {
	put := func(b []byte, n uint64) {
		for i := range b {
			b[i] = byte(n >> (56 - 8*i))
		}
	}
	put(id[:8], uint64(now.UnixMicro())<<12|rand.Uint64N(1<<12))
	put(id[8:], rand.Uint64())
	return id
}

// size is the length of the content in octets.
func (s *Submission) size() int64 { return int64(len(s.Head)) + s.Body.Size() }

// hexID is id as it stands in the EHLO name and in the name of a drop file.
func hexID(id [16]byte) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 2*len(id))
	for _, c := range id {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return string(b)
}

// Refused is the error when the runner refused the message for good. A second
// try with the same message would end the same way.
type Refused struct {
	Code int // 500 to 599
	// Status is the enhanced status code (RFC 3463), "5.7.1"; empty when the reply
	// had none.
	Status string
	Text   string // one printable line
}

func (r *Refused) Error() string {
	s := strconv.Itoa(r.Code)
	if r.Status != "" {
		s += " " + r.Status
	}
	return "refused: " + s + " " + r.Text
}

// Failure is the error when a message could not be stored. Nothing is left of it.
type Failure struct {
	Path   string // what it is about
	Err    error
	Remedy string // what to do; may be empty
	// Create: the place for the message is missing or closed to us. Otherwise
	// writing or syncing failed.
	Create bool
	// Runner is why the runner did not take it; nil when nobody listened.
	Runner error
}

func (f *Failure) Error() string {
	s := f.Path + ": " + f.Err.Error()
	if f.Remedy != "" {
		s += ": " + f.Remedy
	}
	if f.Runner != nil {
		s += " (the runner did not take it either: " + f.Runner.Error() + ")"
	}
	return s
}

func (f *Failure) Unwrap() error { return f.Err }

// NoRoom reports whether it failed for want of room: another try may do once there
// is some.
func (f *Failure) NoRoom() bool { return full(f.Err) }

// Submit hands s over to the spool in the directory dir, an absolute path. It
// returns no error only when s is on stable storage: acknowledged by the runner,
// or left as a synced drop file, which dropped reports. id is the queue ID that
// the runner gave it; for a drop file the one that the runner is going to give
// it, unless it is taken by then. The error is a *Refused, a *Failure or
// ErrTooManyRecipients.
func Submit(dir string, s *Submission) (id string, dropped bool, err error) {
	return submit(dir, s, ioTimeout)
}

func submit(dir string, s *Submission, timeout time.Duration) (id string, dropped bool, err error) {
	if len(s.Recipients) > MaxRecipients {
		return "", false, ErrTooManyRecipients
	}
	id, err = send(dir, s, timeout)
	var refused *Refused
	if err == nil || errors.As(err, &refused) {
		return id, false, err
	}
	// Whatever else happened, the runner may or may not have the message. The ID
	// makes leaving it once more harmless.
	failure := drop(dir, s)
	if failure == nil {
		return s.proposedID(), true, nil
	}
	if !errors.Is(err, errNobody) {
		failure.Runner = err
	}
	return "", false, failure
}

// proposedID is the queue ID that the submission's ID proposes.
func (s *Submission) proposedID() string {
	return strings.ToUpper(hexID(s.ID)[:len(hexID(s.ID))/2])
}
