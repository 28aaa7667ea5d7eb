package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"postino/spool"
)

const (
	// envelopeVersion is the form of envelopes. It changes when an older postino
	// would read a newer envelope wrongly; what it does not know it refuses anyway.
	envelopeVersion = 1
	// MaxEnvelope bounds an envelope, in octets: 10,000 recipients with long replies.
	MaxEnvelope = 32 << 20
	// maxImportSize bounds content, in octets: the front end's own limit.
	maxImportSize = 1 << 30
	// maxImportLead is how far the clock of another host may be ahead.
	maxImportLead = time.Hour
	// maxImportText bounds what was copied from the header section, in octets.
	maxImportText = 64 << 10
)

// Envelope is a message without its content, as `postino export` writes it.
type Envelope struct {
	Version int            `json:"postino_envelope"`
	Message *spool.Message `json:"message"`
}

// ParseEnvelope reads an envelope that may have been written by anybody. The message
// is one that could have been queued here, at least one recipient unsettled, with
// text that can be shown; now bounds its times.
func ParseEnvelope(text []byte, now time.Time) (*spool.Message, error) {
	var e Envelope
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("envelope: there is something behind it")
	}
	if e.Version != envelopeVersion || e.Message == nil {
		return nil, fmt.Errorf("envelope: of version %d, this postino knows %d", e.Version, envelopeVersion)
	}
	if err := checkMessage(e.Message, now); err != nil {
		return nil, fmt.Errorf("envelope: %w", err)
	}
	return e.Message, nil
}

func checkMessage(m *spool.Message, now time.Time) error {
	switch o := &m.Origin; {
	case m.ID == 0:
		return errors.New("no queue ID")
	case m.Arrived.Year() < 1970 || m.Arrived.After(now.Add(maxImportLead)):
		return fmt.Errorf("arrived at %v: not a time before now", m.Arrived.Format(time.RFC3339))
	case m.Size < 0 || m.Size > maxImportSize:
		return fmt.Errorf("size %d: not between 0 and %d", m.Size, maxImportSize)
	case !m.Finished.IsZero() || m.Captured || m.Settled():
		return errors.New("the message is finished")
	case m.Attempts < 0 || m.Attempts > 1<<30:
		return fmt.Errorf("%d attempts", m.Attempts)
	case !slices.Contains([]string{"", "FULL", "HDRS"}, m.Return):
		return fmt.Errorf("return %q: not FULL or HDRS", m.Return)
	case !slices.Contains([]spool.Via{spool.ViaSocket, spool.ViaDrop, spool.ViaStdio, spool.ViaTCP, spool.ViaDSN}, o.Via):
		return fmt.Errorf("via %q: not known", o.Via)
	case !slices.Contains([]string{"", "failed", "delayed", "relayed", "delivered", "expanded"}, o.Action):
		return fmt.Errorf("action %q: not known", o.Action)
	case o.Reports < 0 || o.Reports > 1<<30:
		return fmt.Errorf("%d reports", o.Reports)
	case o.UID < 0 || o.PID < 0 || int64(o.UID) > 1<<32-1:
		return fmt.Errorf("uid %d, pid %d", o.UID, o.PID)
	}
	for _, text := range []string{m.MessageID, m.Subject, m.From, m.EnvelopeID} {
		if len(text) > maxImportText || strings.ContainsAny(text, "\r\n\x00") {
			return errors.New("a text copied from the header is too long, or has lines")
		}
	}
	m.Held, m.Origin.Program = spool.CleanText(m.Held), spool.CleanText(m.Origin.Program)
	m.Kept, m.Refused, m.Retried, m.Gathered = false, nil, time.Time{}, nil
	m.HeldBy = "" // what holds it here is for somebody here to say
	for i := range m.Recipients {
		if err := checkRecipient(&m.Recipients[i]); err != nil {
			return fmt.Errorf("recipient %d: %w", i+1, err)
		}
		if r := &m.Recipients[i]; r.Target != "" {
			r.Target, r.Final = "", false // which programs run here is for the aliases here to say
		}
		m.UTF8 = m.UTF8 || m.Recipients[i].Address.UTF8()
	}
	m.UTF8 = m.UTF8 || m.Sender.UTF8()
	return nil
}

// enhanced is an enhanced status code (RFC 3463 §2).
var enhanced = regexp.MustCompile(`^[245]\.[0-9]{1,3}\.[0-9]{1,3}$`)

func checkRecipient(r *spool.Recipient) error {
	known := []spool.Status{spool.Queued, spool.Deferred, spool.Delivered, spool.Relayed, spool.Expanded, spool.Failed}
	switch {
	case r.Address.IsNull():
		return errors.New("no address")
	case !slices.Contains(known, r.Status):
		return fmt.Errorf("status %q: not known", r.Status)
	case r.Attempts < 0 || r.Attempts > 1<<30:
		return fmt.Errorf("%d attempts", r.Attempts)
	case r.Reply.Code != 0 && (r.Reply.Code < 200 || r.Reply.Code > 599):
		return fmt.Errorf("reply code %d", r.Reply.Code)
	case r.Reply != (spool.Reply{}) && !enhanced.MatchString(r.Reply.Status):
		return fmt.Errorf("reply status %q: not one of RFC 3463", r.Reply.Status)
	case spool.CleanText(r.Original) != r.Original:
		return errors.New("an original recipient that is no printable text")
	}
	for _, n := range r.Notify {
		if !slices.Contains([]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}, n) {
			return fmt.Errorf("notify %q: not known", n)
		}
	}
	for _, text := range []*string{&r.Reply.Text, &r.Reply.Host, &r.Reply.Command, &r.Reply.TLS} {
		*text = spool.CleanText(*text)
	}
	return nil
}

// crlfOnly passes on content whose lines all end in CRLF, as everything in a spool
// does: a lone CR or LF is a line end to one server and none to the next.
type crlfOnly struct {
	w  io.Writer
	cr bool // the last octet was CR
}

func (c *crlfOnly) Write(p []byte) (int, error) {
	for _, b := range p {
		if c.cr != (b == '\n') {
			return 0, errors.New("the content has a CR or LF of its own: lines end in CRLF")
		}
		c.cr = b == '\r'
	}
	return c.w.Write(p)
}
