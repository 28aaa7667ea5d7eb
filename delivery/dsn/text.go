package dsn

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"postino/spool"
)

// maxTold is how many recipients the text names. The part for programs names all.
const maxTold = 100

// text is the part for a person: what happened to which mail, what the remote said and
// what that means, whether anything must be done, and which ID to quote.
func (r *Report) text(full bool) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	say("%s\r\n", wrap(0, r.opening()))
	for n := range r.Recipients[:min(len(r.Recipients), maxTold)] {
		rcpt := r.recipient(n)
		say("    %s", spool.CleanText(rcpt.Address.String()))
		for _, line := range r.explain(rcpt) {
			say("        %s", wrap(8, line))
		}
		say("")
	}
	if more := len(r.Recipients) - maxTold; more > 0 {
		say("    and %d more, named in the delivery report below\r\n", more)
	}
	say("%s\r\n", wrap(0, r.closing()))
	say("%s", r.provenance(full))
	if r.forOperator() {
		say("%s", wrap(0, r.hints()))
	} else {
		say("For help write to postmaster@%s and quote %s.", r.Domain, r.Message.ID)
	}
	return b.String()
}

// hints are for whoever runs the mail of this machine.
func (r *Report) hints() string {
	text := fmt.Sprintf(`On %s "postino trace %s" tells its whole life, and "postino retry %s" sends it again while it is kept.`,
		r.Hostname, r.Message.ID, r.Message.ID)
	for n := range r.Recipients {
		if Read(r.recipient(n).Reply).Ours {
			return text + ` "postino doctor" looks for what is wrong with how mail is sent from there.`
		}
	}
	return text
}

// forOperator reports whether somebody else than the sender reads it.
func (r *Report) forOperator() bool { return r.To.Key() != r.Message.Sender.Key() }

func (r *Report) opening() string {
	mail := "Your mail"
	if r.forOperator() {
		mail = "Mail"
	}
	if s := r.originalSubject(); s != "" {
		mail += ` "` + s + `"`
	}
	switch {
	case r.forOperator() && r.Message.Sender.IsNull():
		mail += " without a sender"
	case r.forOperator():
		mail += " from " + r.Message.Sender.String()
	}
	switch r.Action {
	case Failed:
		return mail + " could not be delivered to:"
	case Delayed:
		return mail + " has not been delivered yet to:"
	case Relayed:
		return mail + " was handed on to the next mail server for:"
	case Expanded:
		return mail + " was passed on to everybody behind this address:"
	}
	return mail + " was delivered to:"
}

func (r *Report) closing() string {
	switch r.Action {
	case Failed:
		return "Nothing more will be tried."
	case Delayed:
		return fmt.Sprintf("You need not do anything, and need not send it again. It is tried until %s; if that comes to nothing, you will be told.",
			r.Until.Format("Mon, 2 Jan 2006 15:04 -0700"))
	case Relayed:
		return "That server sends no confirmations, so you will hear nothing more of it unless something goes wrong. You need not do anything."
	case Expanded:
		return "Who of them got it is not reported; you will be told if it fails for one of them. You need not do anything."
	}
	return "You need not do anything."
}

// provenance says which mail it was, for those who send thousands.
func (r *Report) provenance(full bool) string {
	m := r.Message
	who := "by user " + userName(m.Origin.UID)
	if m.Origin.Via == spool.ViaTCP {
		who = "over the network"
	}
	attached := "its header section is attached"
	if full {
		attached = "it is attached"
	}
	return fmt.Sprintf("The mail was sent %s on %s\r\non %s; %s.", who, spool.CleanText(r.Hostname),
		m.Arrived.Format("Mon, 2 Jan 2006 15:04:05 -0700"), attached)
}

// wrap breaks text into lines with that many blanks before all but the first.
func wrap(indent int, text string) string {
	text = foldTo(lineWidth-indent, 0, spool.CleanText(text))
	return strings.ReplaceAll(text, "\r\n ", "\r\n"+strings.Repeat(" ", indent))
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return spool.CleanText(u.Username)
	}
	return strconv.Itoa(uid)
}

// explain is what became of one recipient: what that means, who said what, and what
// can be done about it.
func (r *Report) explain(rcpt *spool.Recipient) []string {
	reply := rcpt.Reply
	trouble := r.Action == Failed || r.Action == Delayed
	var lines []string
	var reading Reading
	if trouble {
		reading = Read(reply)
		lines = append(lines, reading.Means+" ("+r.statusCode(reply)+").")
	}
	switch host := hostName(reply.Host); {
	case reply.Code != 0 && host != "":
		lines = append(lines, host+" said: "+reply.Said())
	case reply.Code != 0:
		lines = append(lines, "The server said: "+reply.Said())
	case reply.Text != "":
		lines = append(lines, "postino says: "+reply.Said())
	}
	if n := rcpt.Attempts; n > 1 && trouble {
		lines = append(lines, fmt.Sprintf("It was tried %d times in %s.", n, span(r.Now.Sub(r.Message.Arrived))))
	}
	if r.Action == Failed {
		lines = append(lines, reading.Do+".")
	}
	return lines
}

// span is a length of time in the words of a person.
func span(d time.Duration) string {
	unit := func(n int, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return strconv.Itoa(n) + " " + name + "s"
	}
	switch {
	case d >= 48*time.Hour:
		return unit(int(d/(24*time.Hour)), "day")
	case d >= 2*time.Hour:
		return unit(int(d/time.Hour), "hour")
	case d >= 2*time.Minute:
		return unit(int(d/time.Minute), "minute")
	}
	return unit(int(d/time.Second), "second")
}
