package relay

import (
	"bufio"
	"fmt"
	"strings"

	"postino/spool"
)

// maxRecipients is how many recipients go in one transaction: what every server
// takes (RFC 5321 §4.5.3.1.8).
const maxRecipients = 100

// fit returns the recipients of j that can go in one transaction over s. Those who
// cannot get the message over it at all are settled, and those beyond the remote's
// limits wait for another transaction.
func (s *session) fit(j *job) []int {
	refuse := s.unfit(j)
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if refuse != nil {
		s.begun = false
		j.pass(j.to, *refuse)
		return nil
	}
	fit := j.to
	if !s.ext.has("SMTPUTF8") {
		fit = nil
		for _, i := range j.to {
			if ascii(j.recipient(i).Address.Local) {
				fit = append(fit, i)
				continue
			}
			j.pass([]int{i}, s.local("RCPT", "5.6.7", "the recipient's address needs SMTPUTF8, which "+s.pool.peer.host+" does not offer"))
		}
	}
	s.begun = len(fit) > 0
	now, later := s.split(j, fit)
	if len(later) > 0 {
		p.put(&job{delivery: j.delivery, to: later, plain: j.plain}, false)
	}
	return now
}

// unfit is why the remote cannot take the message at all, if so.
func (s *session) unfit(j *job) *spool.Reply {
	var reply spool.Reply
	m := j.Message
	switch limit := s.ext.maxSize(); {
	case limit > 0 && m.Size > limit:
		reply = s.local("MAIL", "5.3.4", fmt.Sprintf("the message has %d octets, %s takes %d", m.Size, s.pool.peer.host, limit))
	case m.RequireTLS && s.exposes(m) != "":
		reply = s.local("MAIL", "5.7.30", "the message requires TLS "+s.exposes(m))
	case s.ext.has("SMTPUTF8"):
		return nil
	case !ascii(m.Sender.Local):
		reply = s.local("MAIL", "5.6.7", "the sender's address needs SMTPUTF8, which "+s.pool.peer.host+" does not offer")
	case m.UTF8 && m.EightBit && headerUTF8(j.Batch):
		reply = s.local("MAIL", "5.6.7", "the header needs SMTPUTF8, which "+s.pool.peer.host+" does not offer")
	default:
		return nil
	}
	return &reply
}

// exposes says what a message that requires TLS would lack here (RFC 8689 §4.2.1);
// empty is nothing. With the null reverse-path it is a report, which goes all the
// same (§5), and a mail store is where the way ends.
func (s *session) exposes(m *spool.Message) string {
	host := s.pool.peer.host
	switch {
	case m.Sender.IsNull(), s.pool.peer.lmtp:
	case s.tls == "", strings.HasSuffix(s.tls, " unverified"):
		return "with a host that proves its name, which " + host + " does not"
	case !s.ext.has("REQUIRETLS"):
		return "all the way: REQUIRETLS, which " + host + " does not offer"
	}
	return ""
}

// headerUTF8 reports whether the header section of b's content has octets above
// 127 (RFC 6532). Message.UTF8 may say no more than that an address has.
func headerUTF8(b *spool.Batch) bool {
	content, err := b.Open()
	if err != nil {
		return false // the transaction will find out what that means
	}
	defer content.Close()
	for in := bufio.NewReader(content); ; {
		line, err := in.ReadSlice('\n') // a part of one is as good
		if !ascii(string(line)) {
			return true
		}
		if err != nil && err != bufio.ErrBufferFull || len(strings.TrimRight(string(line), "\r\n")) == 0 {
			return false
		}
	}
}

// split divides recipients into those for one transaction and the rest, by what the
// remote takes in one (RFC 9422 §4): at least one of them.
func (s *session) split(j *job, to []int) (now, later []int) {
	most := maxRecipients
	if s.rcptMax > 0 {
		most = min(most, s.rcptMax)
	}
	domains := s.ext.limit("RCPTDOMAINMAX")
	seen := map[string]bool{}
	for _, i := range to {
		domain := strings.ToLower(j.recipient(i).Address.Domain)
		if len(now) == most || domains > 0 && !seen[domain] && len(seen) == domains {
			later = append(later, i)
			continue
		}
		if domains > 0 {
			seen[domain] = true
		}
		now = append(now, i)
	}
	return now, later
}
