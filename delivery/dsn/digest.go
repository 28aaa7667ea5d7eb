package dsn

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"postino/spool"
	"postino/spool/address"
	"postino/spool/header"
)

// Digest is several reports to one recipient in one mail: a list for a person, and the
// reports as they would have been sent. All fields but More must be set.
type Digest struct {
	// ID is the queue ID of the digest itself.
	ID    spool.ID
	To    address.Address
	Items []Item
	// More is how many reports there are that Items does not have.
	More int
	// Hostname is ours. Domain is that of MAILER-DAEMON and postmaster.
	Hostname, Domain string
	Now              time.Time
}

// Item is one report of a Digest.
type Item struct {
	About   spool.ID
	Action  Action
	Subject string
	At      time.Time
	Gist    []string
	// Open opens the report.
	Open func() (io.ReadCloser, error)
}

// maxAttached is how many octets of reports a digest has with it; what it says of the
// others has to do.
const maxAttached = 1 << 20

// Gist is what a report says, in a few lines: of its first recipients what became of
// them and who said what.
func (r *Report) Gist() []string {
	const most = 3
	var lines []string
	for n := range r.Recipients[:min(len(r.Recipients), most)] {
		rcpt := r.recipient(n)
		explained := r.explain(rcpt) // what it means and who said what; more is in the report
		lines = append(lines, spool.CleanText(rcpt.Address.String()+": "+explained[0]))
		if len(explained) > 1 {
			lines = append(lines, spool.CleanText(explained[1]))
		}
	}
	if more := len(r.Recipients) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

// Subject is the digest's subject: how much of what.
func (d *Digest) Subject() string {
	failed, late := d.count()
	switch {
	case late == 0:
		return fmt.Sprintf("Not delivered: %d mails", failed)
	case failed == 0:
		return fmt.Sprintf("Still trying: %d mails", late)
	}
	return fmt.Sprintf("Not delivered: %d mails; still trying: %d", failed, late)
}

// count is how many reports are of failures, and how many of mail that is late. What
// the digest does not list counts as failed, which it nearly always is.
func (d *Digest) count() (failed, late int) {
	failed = d.More
	for i := range d.Items {
		if d.Items[i].Action == Delayed {
			late++
		} else {
			failed++
		}
	}
	return failed, late
}

// Write writes the digest, in CRLF lines. A report that cannot be read is listed alone.
func (d *Digest) Write(w io.Writer) error {
	boundary := fmt.Sprintf("=_%s.%016x", d.ID, rand.Uint64())
	var b bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, fold(len(name)+2, value)) }
	field("From", header.Mailbox("Mail Delivery System", address.Address{Local: "MAILER-DAEMON", Domain: d.Domain}))
	field("To", d.To.String())
	field("Subject", encoded(d.Subject()))
	field("Date", header.Date(d.Now))
	field("Message-ID", fmt.Sprintf("<%s.%08x@%s>", d.ID, rand.Uint32(), d.Hostname))
	field("Auto-Submitted", "auto-generated")
	field("MIME-Version", "1.0")
	field("Content-Type", fmt.Sprintf("multipart/mixed; boundary=%q", boundary))
	b.WriteString("\r\nThese are several delivery reports in one.\r\n")
	attached := d.attached()
	part(&b, boundary, "Notification", "text/plain; charset=utf-8", d.text(len(attached)))
	for _, report := range attached {
		raw(&b, boundary, "Report", "message/rfc822", report)
	}
	fmt.Fprintf(&b, "\r\n--%s--\r\n", boundary)
	_, err := w.Write(b.Bytes())
	return err
}

// attached are the reports that there is room for.
func (d *Digest) attached() (reports [][]byte) {
	left := int64(maxAttached)
	for i := range d.Items {
		r, err := d.Items[i].Open()
		if err != nil {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(r, left+1))
		r.Close()
		if err == nil && int64(len(text)) <= left {
			left -= int64(len(text))
			reports = append(reports, text)
		}
	}
	return reports
}

func (d *Digest) text(attached int) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	failed, late := d.count()
	if failed > 0 {
		say("Mails that could not be delivered: %d", failed)
	}
	if late > 0 {
		say("Mails that are late, and still tried: %d", late)
	}
	say("\r\n%s\r\n", wrap(0, fmt.Sprintf("They were sent on %s. Reports come once an hour at most, and so these come together.", d.Hostname)))
	for i := range d.Items {
		item := &d.Items[i]
		say("    %s", wrap(4, spool.CleanText(item.Subject)))
		for _, line := range item.Gist {
			say("        %s", wrap(8, line))
		}
		say("        %s, %s\r\n", item.At.Format("Mon, 2 Jan 2006 15:04:05 -0700"), item.About)
	}
	if d.More > 0 {
		say("    and %d more\r\n", d.More)
	}
	which := "The reports are attached."
	if attached < len(d.Items)+d.More {
		which = fmt.Sprintf("The first %d reports are attached.", attached)
	}
	say("%s", wrap(0, which+` What failed is kept for a while: on `+d.Hostname+` "postino queue --failed" lists it, and "postino retry" with the ID above sends it again.`))
	return b.String()
}
