package relay

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"postino/spool"
)

const (
	// contentTime and contentRate bound how long the content of one message may
	// take in all, over and above the timeout of each write: a quarter of an hour,
	// and a second for each 4 KiB. A slower remote would hold a connection for days.
	contentTime = 15 * time.Minute
	contentRate = 4 << 10
)

// job is one call of Deliver: a batch and its replies so far. Recipients are
// named by their position in the batch.
type job struct {
	*spool.Batch
	replies []spool.Reply
}

// settle gives the recipients at these positions one reply.
func (j *job) settle(at []int, reply spool.Reply) {
	for _, i := range at {
		j.replies[i] = reply
	}
}

func (j *job) recipient(at int) *spool.Recipient { return &j.Message.Recipients[j.Recipients[at]] }

// verdict is what a transaction leaves to do, beside the replies it settled.
type verdict struct {
	// again: recipients that this remote takes in another transaction.
	again []int
	// elsewhere: recipients whose reply says nothing about them, only about this
	// host or connection. Another host may be asked.
	elsewhere []int
	// stale: the session ended before anything of the message was taken.
	stale bool
}

// transact sends the message once, to the recipients at positions to.
func (s *session) transact(j *job, to []int) verdict {
	s.fate = sayQuit
	if reply, ok := s.unfit(j, to); !ok {
		s.fate = keep
		j.settle(to, reply)
		return verdict{elsewhere: to}
	}
	content, err := j.Open()
	if err != nil {
		s.fate = keep
		j.settle(to, s.local("open", "4.3.0", "cannot read the content: "+err.Error()))
		return verdict{}
	}
	defer content.Close()
	s.taken++
	c, err := s.adopt(j.Message)
	if err != nil {
		return s.lose(j, to, s.broken("MAIL", err), true)
	}
	reply := s.step("MAIL", 2, func() error { return c.Mail(j.Message.Sender.String(), mailOptions(j, to)) })
	if reply.Class() != spool.Success {
		if s.over(reply) {
			return s.lose(j, to, reply, true)
		}
		j.settle(to, reply)
		return verdict{}
	}
	accepted, again, lost := s.recipients(c, j, to)
	if lost != nil {
		return *lost
	}
	if len(accepted) == 0 {
		return verdict{}
	}
	v := s.content(c, j, accepted, content)
	if s.fate == keep {
		v.again = again
	}
	return v
}

// unfit reports why the remote cannot take the message at all, if so.
func (s *session) unfit(j *job, to []int) (spool.Reply, bool) {
	if limit := s.ext.maxSize(); limit > 0 && j.Message.Size > limit {
		return s.local("MAIL", "5.3.4", fmt.Sprintf("the message has %d octets, the relay takes %d", j.Message.Size, limit)), false
	}
	if needsUTF8(j, to) && !s.ext.has("SMTPUTF8") {
		return s.local("MAIL", "5.6.7", "the message needs SMTPUTF8, which the relay does not offer"), false
	}
	return spool.Reply{}, true
}

// needsUTF8 reports whether the message cannot go without SMTPUTF8 (RFC 6531).
func needsUTF8(j *job, to []int) bool {
	if j.Message.UTF8 || j.Message.Sender.UTF8() {
		return true
	}
	for _, i := range to {
		if j.recipient(i).Address.UTF8() {
			return true
		}
	}
	return false
}

// adopt puts a go-smtp client over the session as it stands. The client is told
// the greeting and the extensions that are known already, and of these only what
// this message needs: it would send BODY=8BITMIME with any message.
func (s *session) adopt(m *spool.Message) (*smtp.Client, error) {
	script := []string{"220 adopted", "250-adopted"}
	for _, keyword := range []string{"SIZE", "SMTPUTF8", "DSN"} {
		if s.ext.has(keyword) {
			script = append(script, "250-"+keyword)
		}
	}
	if m.EightBit && s.ext.has("8BITMIME") {
		script = append(script, "250-8BITMIME")
	}
	s.g.replay = []byte(strings.Join(append(script, "250 OK", ""), "\r\n"))
	s.g.muted = true
	c := smtp.NewClient(s.g)
	c.CommandTimeout = time.Duration(s.time.Command)
	c.SubmissionTimeout = time.Duration(s.time.Dot)
	return c, c.Hello(s.name)
}

// step runs one command and returns the Reply to it. What counts is the reply
// that the guard read, not go-smtp's opinion of it, which wants exact codes. One
// that is no refusal and not of class want ends the session: who answers what
// can no longer be told.
func (s *session) step(command string, want int, run func() error) spool.Reply {
	s.g.forget()
	err := run()
	switch {
	case s.g.err != nil:
		return s.ended(command)
	case !s.g.ended:
		// go-smtp itself refused the arguments.
		return s.local(command, "4.3.0", "cannot be sent: "+err.Error())
	}
	if class := s.g.last.code / 100; class != want && class < 4 {
		s.g.err = errUnasked
		return s.misplaced(command, s.g.last)
	}
	return s.judgeMail(command, s.g.last)
}

// judgeMail is judge for what concerns the mail: refusals that are about us have
// class 4.
func (s *session) judgeMail(command string, a answer) spool.Reply {
	reply := s.judge(command, a)
	// 503 after a command that was in sequence is the session's fault.
	if aboutUs(reply) || reply.Code == 503 {
		reply = temporary(reply)
	}
	return reply
}

// ended is the Reply to an error of the connection: the 421 that the remote left
// behind, if any, else the error.
func (s *session) ended(command string) spool.Reply {
	failed := s.g.err
	if !s.g.sent {
		if a, ok := s.g.early(); ok && a.code == 421 {
			return s.judge(command, a)
		}
	}
	return s.broken(command, failed)
}

// over reports whether a reply is the last one of this session.
func (s *session) over(r spool.Reply) bool { return r.Code == 421 || s.g.err != nil }

// lose ends the session with the same reply for all who have no own one.
func (s *session) lose(j *job, undecided []int, reply spool.Reply, stale bool) verdict {
	s.fate = hangUp
	j.settle(undecided, reply)
	return verdict{elsewhere: undecided, stale: stale}
}

// recipients sends RCPT for each. Accepted ones have no reply of their own yet;
// again are those refused because there were enough.
func (s *session) recipients(c *smtp.Client, j *job, to []int) (accepted, again []int, lost *verdict) {
	for n, i := range to {
		r := j.recipient(i)
		reply := s.step("RCPT", 2, func() error { return c.Rcpt(r.Address.String(), rcptOptions(r)) })
		switch {
		case reply.Class() == spool.Success:
			accepted = append(accepted, i)
			continue
		case s.over(reply):
			v := s.lose(j, append(accepted, to[n:]...), reply, false)
			v.elsewhere = append(v.elsewhere, again...)
			return nil, nil, &v
		case len(accepted) > 0 && tooMany(reply):
			reply = temporary(reply)
			again = append(again, i)
		}
		j.replies[i] = reply
	}
	return accepted, again, nil
}

// content sends the message itself and settles the recipients that were
// accepted. Until the answer to its end is read, the only way out is to close the
// socket: anything sent would end the content and have it taken as it is.
func (s *session) content(c *smtp.Client, j *job, accepted []int, content io.Reader) verdict {
	var w *smtp.DataCommand
	reply := s.step("DATA", 3, func() (err error) {
		w, err = c.Data()
		return err
	})
	if w == nil {
		if s.over(reply) || reply.Code < 400 {
			return s.lose(j, accepted, reply, false)
		}
		j.settle(accepted, reply)
		return verdict{}
	}
	s.fate = hangUp
	s.g.patience = time.Duration(s.time.Data)
	s.g.until = time.Now().Add(contentTime + time.Duration(j.Message.Size/contentRate)*time.Second)
	defer func() { s.g.patience, s.g.until = time.Duration(s.time.Command), time.Time{} }()
	in := &source{Reader: content}
	_, err := io.Copy(w, in)
	switch {
	case in.err != nil:
		j.settle(accepted, s.local("DATA", "4.3.0", "cannot read the content: "+in.err.Error()))
		return verdict{}
	case err != nil:
		return s.cut(j, accepted)
	}
	return s.dot(w, j, accepted)
}

// dot ends the content and settles the recipients by the answer.
func (s *session) dot(w *smtp.DataCommand, j *job, accepted []int) verdict {
	s.g.forget()
	w.CloseWithResponse() // what it returns is less than the guard knows
	switch {
	case !s.g.sent:
		return s.cut(j, accepted)
	case s.g.err != nil || !s.g.ended || s.g.last.code/100 == 3:
		// The remote may have taken the message (RFC 1047). No other host is asked.
		err := s.g.err
		if err == nil {
			err = errUnasked
		}
		reply := s.broken("dot", err)
		reply.Text = spool.CleanText("the message may have been delivered: " + reply.Text)
		reply.Maybe = true
		j.settle(accepted, reply)
		return verdict{}
	}
	reply := s.judgeMail("dot", s.g.last)
	j.settle(accepted, reply)
	switch {
	case reply.Code == 421:
		return verdict{elsewhere: accepted}
	case reply.Class() == spool.Success:
		s.fate = keep
	default:
		s.fate = sayQuit
	}
	return verdict{}
}

// cut settles the recipients after the content could not be sent to its end: by
// the reply that the remote gave in the middle, if it was a refusal.
func (s *session) cut(j *job, accepted []int) verdict {
	failed := s.g.err
	if a, ok := s.g.early(); ok && a.code >= 400 {
		reply := s.judgeMail("DATA", a)
		j.settle(accepted, reply)
		if a.code != 421 {
			return verdict{}
		}
		return verdict{elsewhere: accepted}
	}
	j.settle(accepted, s.broken("DATA", failed))
	return verdict{elsewhere: accepted}
}

// source keeps the error of reading apart from the one of writing.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF { // as io.Copy sees it: a wrapped one is an error
		s.err = err
	}
	return n, err
}
