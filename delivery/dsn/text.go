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

// text is the part for a person: what happened to which mail, whether anything must
// be done, what the remote said and what that means, and which ID to quote.
func (r *Report) text(full bool) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	say("%s\r\n", r.opening())
	for n := range r.Recipients[:min(len(r.Recipients), maxTold)] {
		rcpt := r.recipient(n)
		say("    %s", spool.CleanText(rcpt.Address.String()))
		for _, line := range r.explain(rcpt) {
			say("        %s", line)
		}
		say("")
	}
	if more := len(r.Recipients) - maxTold; more > 0 {
		say("    and %d more, named in the delivery report below\r\n", more)
	}
	say("%s\r\n", r.closing())
	say("%s", r.provenance())
	attached := "Its header section is attached."
	if full {
		attached = "It is attached."
	}
	say("%s\r\nFor help ask postmaster@%s and mention %s.", attached, r.Domain, r.Message.ID)
	return b.String()
}

func (r *Report) opening() string {
	mail := "Your mail"
	if s := r.originalSubject(); s != "" {
		mail += ` "` + s + `"`
	}
	switch r.Action {
	case Failed:
		return mail + " could not be delivered to:"
	case Delayed:
		return mail + " has not been delivered yet to:"
	case Relayed:
		return mail + " was handed on. The next server does not send confirmations,\r\nso nothing more will be heard unless something goes wrong, about:"
	case Expanded:
		return mail + " was distributed to the members of:"
	}
	return mail + " was delivered to:"
}

func (r *Report) closing() string {
	switch r.Action {
	case Failed:
		return "Nothing more will be tried. Mend what is named above and send the mail again."
	case Delayed:
		return fmt.Sprintf("You need not do anything, and need not send it again. It is tried until\r\n%s; if that comes to nothing, you will be told.",
			r.Until.Format("Mon, 2 Jan 2006 15:04 -0700"))
	}
	return "You need not do anything."
}

// provenance says which mail it was, for those who send thousands.
func (r *Report) provenance() string {
	m := r.Message
	who := "by user " + userName(m.Origin.UID)
	if m.Origin.Via == spool.ViaTCP {
		who = "over the network"
	}
	return fmt.Sprintf("The mail was sent %s on %s\r\non %s.", who, spool.CleanText(r.Hostname), m.Arrived.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return spool.CleanText(u.Username)
	}
	return strconv.Itoa(uid)
}

// explain is what became of one recipient: what that means, then who said what.
func (r *Report) explain(rcpt *spool.Recipient) []string {
	reply := rcpt.Reply
	var lines []string
	if r.Action == Failed || r.Action == Delayed {
		lines = append(lines, Meaning(reply.Status)+" ("+r.statusCode(reply)+").")
	}
	switch host := hostName(reply.Host); {
	case reply.Code != 0 && host != "":
		lines = append(lines, host+" said: "+reply.Said())
	case reply.Code != 0:
		lines = append(lines, "The server said: "+reply.Said())
	case reply.Text != "":
		lines = append(lines, "postino says: "+reply.Said())
	}
	if n := rcpt.Attempts; n > 1 {
		lines = append(lines, fmt.Sprintf("It was tried %d times in %s.", n, span(r.Now.Sub(r.Message.Arrived))))
	}
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(fold(8, spool.CleanText(line)), "\r\n", "\r\n       ")
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

// Meaning is an enhanced status (RFC 3463, RFC 5248) in the words of a person; of
// one that is not known, what its subject says.
func Meaning(status string) string {
	class, detail, _ := strings.Cut(status, ".")
	switch detail {
	case "1.1", "1.6":
		return "There is no such mailbox at this address"
	case "1.2":
		return "There is no such domain, or it takes no mail"
	case "1.3":
		return "The address is not written correctly"
	case "1.7", "1.8":
		return "The server does not accept the sender's address"
	case "1.10":
		return "This domain does not take any mail"
	case "2.1":
		if class == "4" {
			return "The mailbox takes no mail at the moment"
		}
		return "The mailbox is disabled"
	case "2.2":
		return "The mailbox is full"
	case "2.3", "3.4":
		return "The mail is too large for this mailbox or server"
	case "2.4":
		return "The mailing list could not be expanded"
	case "3.1":
		return "The server has no room at the moment"
	case "3.2":
		return "The server does not take mail at the moment"
	case "4.1":
		return "The server cannot be reached"
	case "4.2":
		return "The connection to the server was lost"
	case "4.3":
		return "The domain name system has no answer for this domain at the moment"
	case "4.4":
		return "No server is known for this domain"
	case "4.6":
		return "The mail goes in circles and was stopped"
	case "4.7":
		return "It could not be delivered in the time it had"
	case "5.3":
		return "The server takes fewer recipients at a time"
	case "6.7":
		return "The server cannot handle addresses with characters such as these"
	case "6.1", "6.2", "6.3":
		return "The server cannot handle the form of this mail"
	case "7.1":
		return refusal(class, "by a rule of the server")
	case "7.20", "7.21", "7.22":
		return refusal(class, "because of its DKIM signature")
	case "7.23", "7.24":
		return refusal(class, "because the SPF record of the sender's domain does not allow this server")
	case "7.25":
		return refusal(class, "because the name and the address of the sending server do not match (reverse DNS)")
	case "7.26":
		return refusal(class, "because it is not authenticated (SPF, DKIM or DMARC)")
	case "7.27":
		return "The sender's domain takes no mail itself"
	case "7.8", "7.9", "7.0":
		return "The server does not accept our credentials, or wants some"
	}
	return bySubject(class, detail)
}

func refusal(class, why string) string {
	if class == "4" {
		return "The mail was refused for now " + why
	}
	return "The mail was refused " + why
}

// bySubject is what the second number says (RFC 3463 §3).
func bySubject(class, detail string) string {
	subject, _, _ := strings.Cut(detail, ".")
	switch subject {
	case "1":
		return "Something is wrong with the address"
	case "2":
		return "Something is wrong with the mailbox"
	case "3":
		return "The mail system of the recipient has a problem"
	case "4":
		return "The mail could not be brought to the server"
	case "5":
		return "The servers did not understand each other"
	case "6":
		return "The server cannot handle the content of this mail"
	case "7":
		return refusal(class, "for reasons of security or policy")
	}
	if class == "4" {
		return "The server refused it for now"
	}
	return "The server refused it"
}
