package submit

import (
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"postino/spool"
	"postino/spool/handoff"
	"postino/spool/header"
)

// maxRepeated is how many recipients of a message may have been named before, beside
// two for each. Front ends name each once; go-smtp keeps every one in memory.
const maxRepeated = 100

// session is one SMTP session, whatever carries it.
type session struct {
	srv        *Server
	conn       *conn
	submission spool.SubmissionID // zero: none, or not to be trusted

	mu sync.Mutex
	tx *transaction // guarded by mu: go-smtp may reset while Data still runs
}

// transaction is one message on its way through a session.
type transaction struct {
	policy Policy
	msg    *spool.Message
	seen   map[string]bool // recipients by address.Key
	// repeated counts those that were there already: the server remembers them too.
	repeated int
	leave    func() // gives its place back; nil when it has none
	busy     bool   // guarded by the session's mu: Data runs, and gives the place back
}

// current returns the transaction under way, nil when there is none.
func (s *session) current() *transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tx
}

// begin is current for Data, which may run on when the transaction is reset.
func (s *session) begin() *transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tx != nil {
		s.tx.busy = true
	}
	return s.tx
}

func (s *session) set(tx *transaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tx = tx
}

// Reset ends a transaction that was not completed.
func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tx != nil && !s.tx.busy {
		s.giveUp(s.tx)
	}
	s.tx = nil
}

// Logout ends the session.
func (s *session) Logout() error {
	s.Reset()
	return nil
}

// needPlace gets tx a place among those that have much in memory.
func (s *session) needPlace(tx *transaction) error {
	where, uid := &s.srv.places, s.conn.origin.UID
	if s.conn.origin.Via == spool.ViaDrop {
		if len(tx.msg.Recipients) < fewDropRecipients {
			return nil // dropWorkers is the limit
		}
		where = &s.srv.large
	} else if uid == 0 {
		return nil
	}
	if tx.leave != nil {
		return nil
	}
	if tx.leave = where.take(uid, placeWait); tx.leave == nil {
		return refuse(451, smtp.EnhancedCode{4, 3, 2}, "too many large submissions at a time")
	}
	s.conn.paced.Store(true)
	return nil
}

// giveUp gives the place of tx back.
func (s *session) giveUp(tx *transaction) {
	if tx.leave != nil {
		tx.leave()
		s.conn.paced.Store(false)
	}
}

// Mail begins a transaction.
func (s *session) Mail(from string, o *smtp.MailOptions) error {
	s.conn.refused.Store(false)
	if s.submission != (spool.SubmissionID{}) && s.conn.committed != 0 {
		// It would be taken for a second arrival of the first.
		return refuse(503, smtp.EnhancedCode{5, 5, 1}, "a submission is one message")
	}
	if s.current() != nil {
		return nestedMail()
	}
	if err := checkEnvelopeID(o); err != nil {
		return err
	}
	tx := &transaction{policy: *s.srv.policy.Load(), seen: make(map[string]bool)}
	sender, err := tx.path(from)
	if err != nil {
		return refuse(553, smtp.EnhancedCode{5, 1, 7}, "%v", err)
	}
	tx.msg = &spool.Message{
		Submission: s.submission,
		Sender:     sender,
		BareSender: from != "" && isBare(from),
		Origin:     s.conn.origin,
		Return:     string(o.Return),
		EnvelopeID: o.EnvelopeID,
		UTF8:       o.UTF8 || sender.UTF8(),
		RequireTLS: o.RequireTLS,
		NoAliases:  s.conn.noAliases,
	}
	if o.Size > tx.policy.MaxMessageSize {
		if err := tx.object(tooLarge(tx.policy.MaxMessageSize)); err != nil {
			return err
		}
	}
	tx.msg.Sender = tx.policy.sender(sender)
	tx.msg.BareSender = tx.msg.BareSender && tx.msg.Sender == sender
	s.set(tx)
	return nil
}

// Rcpt adds a recipient; one that is there already is taken and dropped.
func (s *session) Rcpt(to string, o *smtp.RcptOptions) error {
	tx := s.current()
	a, err := tx.path(to)
	if err != nil {
		return refuse(553, smtp.EnhancedCode{5, 1, 3}, "%v", err)
	}
	if tx.seen[a.Key()] {
		// Root, root@localhost and root with our domain are one.
		if tx.repeated++; tx.repeated > maxRepeated+2*len(tx.msg.Recipients) {
			return s.tooMany("more than %d recipients that were named before", tx.repeated-1)
		}
		return nil
	}
	if len(tx.msg.Recipients) >= tx.policy.MaxRecipients {
		e := s.tooMany("more than %d recipients: limits.max_recipients sets the limit", tx.policy.MaxRecipients)
		if len(tx.msg.Recipients) >= handoff.MaxRecipients {
			return e
		}
		if err := tx.object(e); err != nil {
			return err
		}
	}
	if len(tx.msg.Recipients) >= fewRecipients {
		if err := s.needPlace(tx); err != nil {
			return err
		}
	}
	tx.seen[a.Key()] = true
	if err := checkOriginal(o); err != nil {
		return err
	}
	r := spool.Recipient{Address: a, Status: spool.Queued, Bare: isBare(to)}
	for _, n := range o.Notify {
		r.Notify = append(r.Notify, string(n))
	}
	if o.OriginalRecipient != "" {
		// The library has made it upper case; nobody writes it so.
		r.Original = strings.ToLower(string(o.OriginalRecipientType)) + ";" + o.OriginalRecipient
	}
	tx.msg.UTF8 = tx.msg.UTF8 || a.UTF8()
	tx.msg.Recipients = append(tx.msg.Recipients, r)
	return nil
}

// Data takes the content and answers for it: the reply is given when the message
// is on disk, and never if r does not come to its proper end.
func (s *session) Data(r io.Reader) error {
	tx := s.begin()
	if tx == nil {
		return smtp.ErrDataReset
	}
	defer s.giveUp(tx)
	if !s.srv.enter() {
		return refuse(421, smtp.EnhancedCode{4, 3, 2}, "shutting down")
	}
	defer s.srv.active.Done()
	if s.conn.refused.Load() && s.conn.trusted() {
		return refuse(554, smtp.EnhancedCode{5, 5, 1}, "nothing sent: a sender or recipient was refused")
	}
	if len(tx.msg.Recipients) == 0 {
		return noRecipients()
	}
	id, err := s.store(tx, r)
	if err != nil {
		var answer *smtp.SMTPError
		if errors.As(err, &answer) {
			return answer
		}
		if errors.Is(err, smtp.ErrDataReset) || errors.Is(err, io.ErrUnexpectedEOF) {
			return err // the client went away; nobody reads the answer
		}
		if errors.Is(err, spool.ErrNoSpace) {
			s.srv.often.Error("no room: not accepted", "uid", s.conn.origin.UID, "err", err)
			return noRoom()
		}
		s.srv.often.Error("not accepted", "uid", s.conn.origin.UID, "err", err)
		return refuse(451, smtp.EnhancedCode{4, 3, 0}, "the message could not be stored")
	}
	s.conn.committed = id
	return queuedAs(id.String())
}

// queuedAs is the reply to a message that is stored. An SMTPError is go-smtp's way
// to set the text of a success.
func queuedAs(id string) error {
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.NoEnhancedCode, Message: "Ok: queued as " + id}
}

func (s *session) store(tx *transaction, r io.Reader) (spool.ID, error) {
	limited := &limitReader{r: r, left: tx.policy.MaxMessageSize, err: tooLarge(tx.policy.MaxMessageSize)}
	if s.conn.origin.Via == spool.ViaDrop {
		limited.left = maxDropSize // what is above the policy's limit is held
	}
	section, body, err := header.Read(limited, header.Options{Large: func() error { return s.needPlace(tx) }})
	if errors.Is(err, header.ErrTooLarge) {
		return 0, tooLargeSection()
	}
	if err != nil {
		return 0, err
	}
	if err := tx.checkHops(section); err != nil {
		return 0, err
	}
	draft, err := s.srv.spool.NewDraft(s.submission.QueueID())
	if err != nil {
		return 0, err
	}
	tx.complete(section, draft.ID(), s.conn.arrived)
	if err := tx.checkFrom(section); err != nil {
		draft.Discard()
		return 0, err
	}
	if _, err = section.WriteTo(draft); err == nil {
		_, err = io.Copy(draft, body)
	}
	if err != nil {
		draft.Discard()
		return 0, err
	}
	m := tx.msg
	m.MessageID, m.Subject, m.From = section.Value("Message-ID"), section.Value("Subject"), section.Value("From")
	m.Bulk = isBulk(section)
	m.TLSOptional = !m.RequireTLS && strings.EqualFold(section.Value("TLS-Required"), "no")
	limits := s.srv.limits.Load()
	over := limits.admit(m, time.Now())
	counted := m.Held == ""
	id, err := draft.Commit(m)
	if counted && (err != nil || id != draft.ID() || m.Held != "") {
		limits.count(m, time.Now(), -1)
	}
	if err != nil {
		return 0, err
	}
	if id != draft.ID() {
		s.srv.log.Info("accepted again", "id", id, "uid", m.Origin.UID, "via", m.Origin.Via)
		return id, nil
	}
	log := s.srv.log
	if m.Held != "" {
		log = log.With("held", m.Held)
	}
	if over != nil {
		limits.alert(s.srv.log, over, m, time.Now())
	}
	log.Info("accepted", "id", id, "from", m.Sender.String(), "rcpts", len(m.Recipients), "size", m.Size,
		"via", m.Origin.Via, "uid", m.Origin.UID)
	return id, nil
}

// limitReader fails with err, rather than ending, where the limit is passed.
type limitReader struct {
	r    io.Reader
	left int64
	err  error
}

func (l *limitReader) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, l.err
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, l.err
	}
	return n, err
}
