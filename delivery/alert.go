package delivery

import (
	"fmt"
	"os"
	"strings"
	"time"

	"postino/config"
	"postino/spool"
	"postino/spool/address"
)

// tellOperator sends bounce_to a notice that a way is shut, where it can go by another
// one: it must not wait for what it is about. What may pass by itself, and what holds up
// one sender alone, is told in the log and by status only: there may be many of these.
func (r *Runner) tellOperator(s *spool.Spool, p *plan, route string, a Alert) {
	if p.config.BounceTo == "" || p.config.Mode != config.Deliver || a.Reply.Fault != spool.FaultRelay && a.Reply.Fault != spool.FaultPort {
		return
	}
	to, err := address.Parse(p.config.BounceTo)
	if err != nil {
		return // the configuration was checked
	}
	by, hop := p.way(address.Address{}, &spool.Recipient{Address: to})
	if by.hop == route || hop == route {
		return
	}
	draft, err := s.NewDraft(0)
	if err == nil {
		_, err = draft.Write([]byte(a.mail(draft.ID(), to, p.config)))
	}
	if err == nil {
		_, err = draft.Commit(&spool.Message{
			Arrived: a.Since, Subject: a.subject(), From: "MAILER-DAEMON@" + p.config.Domain,
			Recipients: []spool.Recipient{{Address: to, Status: spool.Queued, Notify: []string{"NEVER"}}},
			Origin:     spool.Origin{Via: spool.ViaDSN, UID: os.Geteuid()},
		})
	} else if draft != nil {
		draft.Discard()
	}
	if err != nil {
		r.log.Error("notice not written", "to", to.String(), "err", err)
	}
}

func (a *Alert) subject() string { return "Mail waits: " + spool.CleanText(a.Hop) }

// mail is the notice as it is sent.
func (a *Alert) mail(id spool.ID, to address.Address, c *config.Config) string {
	var b strings.Builder
	for _, line := range []string{
		"From: Mail Delivery System <MAILER-DAEMON@" + c.Domain + ">",
		"To: " + to.String(),
		"Subject: " + ascii(a.subject()),
		"Date: " + a.Since.Format(time.RFC1123Z),
		fmt.Sprintf("Message-ID: <%s@%s>", id, c.Hostname),
		"Auto-Submitted: auto-generated",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
		"",
		"No mail goes by this route until something has been mended:",
		"",
		"    " + a.Hop,
		"",
		"What was said:",
		"",
		"    " + a.Reply.Said(),
		"",
		"What to do:",
		"",
		"    " + a.Reply.Remedy,
		"",
		"Nothing is lost and nothing is returned to its sender: all mail for this",
		"route waits. It is tried again by itself from time to time, and goes when",
		"that succeeds. To try at once: postino retry --all",
		"",
		"Sent by postino on " + c.Hostname + ".",
	} {
		b.WriteString(line + "\r\n")
	}
	return b.String()
}

// ascii is s with a question mark for each other character.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r > 126 {
			return '?'
		}
		return r
	}, s)
}
