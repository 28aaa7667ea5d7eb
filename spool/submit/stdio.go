package submit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"postino/spool"
	"postino/spool/address"
	"postino/spool/handoff"
	"postino/spool/header"
)

// Stdio is SMTP on a pair of pipes, as sendmail -bs speaks it for its caller: each
// message is handed over to the spool in Dir as the front end would, to the runner if one
// listens, else as a drop file.
type Stdio struct {
	Dir, Hostname string
	// MaxMessageSize, in octets, and MaxRecipients are what the runner is going to take,
	// so that a client is refused while it can still do something else; 0 is not known.
	MaxMessageSize int64
	MaxRecipients  int
	// NoAliases: see spool.Message.
	NoAliases bool
	// Handed is called after each message; dropped says that it is in drop/.
	Handed func(dropped bool)
}

// Serve goes on until QUIT or the end of in. It may wait for its client for hours.
func (o Stdio) Serve(in io.Reader, out io.Writer) error {
	if o.MaxMessageSize <= 0 || o.MaxMessageSize > handoff.MaxBody {
		o.MaxMessageSize = handoff.MaxBody
	}
	if o.MaxRecipients <= 0 || o.MaxRecipients > handoff.MaxRecipients {
		o.MaxRecipients = handoff.MaxRecipients
	}
	c := &stdioConn{r: in, w: out, done: make(chan struct{})}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &stdioSession{Stdio: o}, nil
	}))
	server.Domain = o.Hostname
	server.MaxLineLength = 0 // conn has a limit of its own; this one would cut content
	server.EnableDSN = true
	server.EnableSMTPUTF8 = true
	server.EnableREQUIRETLS = true
	server.ErrorLog = serverLog{slog.New(slog.DiscardHandler)}
	listener := newHandover()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	listener.pass(newConn(c, spool.Origin{Via: spool.ViaStdio, UID: os.Getuid()}, 0))
	<-c.done
	err := server.Shutdown(context.Background()) // its one connection is closed
	<-ended
	return errors.Join(err, c.err)
}

// stdioSession is a session of somebody who may not write to the spool: what it
// takes becomes a submission of the same uid.
type stdioSession struct {
	Stdio
	s    *handoff.Submission // nil between transactions
	seen map[string]bool     // recipients by address.Key
}

func (t *stdioSession) Mail(from string, o *smtp.MailOptions) error {
	if t.s != nil {
		return nestedMail()
	}
	if err := checkEnvelopeID(o); err != nil {
		return err
	}
	sender, err := bare(from)
	if err != nil {
		return refuse(553, smtp.EnhancedCode{5, 1, 7}, "%v", err)
	}
	if o.Size > t.MaxMessageSize {
		return tooLarge(t.MaxMessageSize)
	}
	t.s = &handoff.Submission{
		Sender: sender, Return: string(o.Return), EnvelopeID: o.EnvelopeID,
		UTF8: o.UTF8 || sender.UTF8(), RequireTLS: o.RequireTLS, NoAliases: t.NoAliases,
	}
	t.seen = make(map[string]bool)
	return nil
}

func (t *stdioSession) Rcpt(to string, o *smtp.RcptOptions) error {
	a, err := bare(to)
	if err != nil {
		return refuse(553, smtp.EnhancedCode{5, 1, 3}, "%v", err)
	}
	if t.seen[a.Key()] {
		return nil
	}
	if err := checkOriginal(o); err != nil {
		return err
	}
	if len(t.s.Recipients) >= t.MaxRecipients {
		// The client sends the rest by and by (RFC 5321 §4.5.3.1.10).
		return refuse(452, smtp.EnhancedCode{4, 5, 3}, "more than %d recipients: limits.max_recipients sets the limit", t.MaxRecipients)
	}
	t.seen[a.Key()] = true
	t.s.UTF8 = t.s.UTF8 || a.UTF8()
	r := handoff.Recipient{Address: a, OriginalType: string(o.OriginalRecipientType), Original: o.OriginalRecipient}
	for _, word := range o.Notify {
		r.Notify = append(r.Notify, string(word))
	}
	t.s.Recipients = append(t.s.Recipients, r)
	return nil
}

// bare is the address of a path, where localhost again means a bare name: only
// the runner knows what completes it.
func bare(path string) (address.Address, error) {
	if path == "" {
		return address.Address{}, nil
	}
	a, err := parsePath(path)
	if strings.EqualFold(a.Domain, "localhost") {
		a.Domain = ""
	}
	return a, err
}

// Data hands the message over and answers for it.
func (t *stdioSession) Data(r io.Reader) error {
	s := t.s
	if len(s.Recipients) == 0 {
		return noRecipients()
	}
	section, rest, err := header.Read(r, header.Options{})
	if errors.Is(err, header.ErrTooLarge) {
		return tooLargeSection()
	}
	if err != nil {
		return err
	}
	s.Body = handoff.NewBuffer(t.Dir)
	defer s.Body.Close()
	if _, err := s.Body.ReadFrom(rest); err != nil {
		return t.answer(err)
	}
	var head bytes.Buffer
	section.Drop("Bcc", "Resent-Bcc", "Return-Path", "Content-Length")
	if _, err := section.WriteTo(&head); err != nil {
		return err
	}
	s.Head = head.Bytes()
	s.EightBit = section.EightBit() || s.Body.EightBit()
	s.ID = handoff.NewID(time.Now())
	id, dropped, err := handoff.Submit(t.Dir, s)
	if err != nil {
		return t.answer(err)
	}
	t.Handed(dropped)
	return queuedAs(id)
}

// answer is the reply to what stopped a submission.
func (t *stdioSession) answer(err error) error {
	var refused *handoff.Refused
	var failure *handoff.Failure
	switch {
	case errors.As(err, &refused):
		return &smtp.SMTPError{Code: refused.Code, EnhancedCode: enhanced(refused.Status), Message: refused.Text}
	case errors.Is(err, handoff.ErrTooLarge):
		return refuse(552, smtp.EnhancedCode{5, 3, 4}, "%v", err)
	case errors.As(err, &failure) && failure.NoRoom():
		return refuse(452, smtp.EnhancedCode{4, 3, 1}, "%v", err)
	case errors.As(err, &failure):
		return refuse(451, smtp.EnhancedCode{4, 3, 0}, "%v", err)
	}
	return err
}

// enhanced reads an enhanced status code; none where it is not well-formed.
func enhanced(status string) smtp.EnhancedCode {
	parts := strings.Split(status, ".")
	var code smtp.EnhancedCode
	if len(parts) != len(code) {
		return smtp.NoEnhancedCode
	}
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return smtp.NoEnhancedCode
		}
		code[i] = n
	}
	return code
}

func (t *stdioSession) Reset()        { t.s, t.seen = nil, nil }
func (t *stdioSession) Logout() error { return nil }

// stdioConn is a pair of pipes, or whatever the caller has at our ends.
type stdioConn struct {
	carrier
	r    io.Reader
	w    io.Writer
	err  error // of writing: the client went away
	done chan struct{}
}

func (c *stdioConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *stdioConn) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

func (c *stdioConn) Close() error {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
	return nil
}

var _ net.Conn = (*stdioConn)(nil)
