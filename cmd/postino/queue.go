package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"postino/delivery/control"
	"postino/spool"
)

// runQueue is the queue command.
func runQueue(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError(`queue takes no operands: "postino show" shows one message`)
	}
	return a.query(ctx, func(w io.Writer, s source) error {
		if o.json {
			return writeLines(w, s.Queue(ctx, o.selection))
		}
		return writeMailq(a, w, s.Queue(ctx, o.selection), o.selection.Failed)
	})
}

// writeLines prints one JSON object a line. What cannot be read is reported, and
// the rest printed.
func writeLines[T any](w io.Writer, elements iter.Seq2[T, error]) error {
	var failed failures
	for v, err := range elements {
		if err != nil {
			failed.add(err)
			continue
		}
		line, err := control.Line(v)
		if err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return failed.err()
}

// The columns of mailq are those of Postfix for long queue IDs, but that there
// are two blanks before the sender, as with its short ones: programs read both.
const (
	mailqHeader     = "----Queue ID----- --Size-- ----Arrival Time---- -Sender/Recipient-------"
	mailqSender     = "%-17s %8d %-20s %s\n"
	mailqRecipient  = "%-17s %8s %-20s %s\n"
	mailqReasonEnd  = 76 // where a reason ends, if it is short enough
	mailqTime       = "Mon Jan _2 15:04:05"
	nullSender      = "MAILER-DAEMON"
	hiddenAddress   = "[hidden]"
	octetsPerKbyte  = 1024
	mailqHeldMark   = "!"
	mailqQueuedMark = ""
)

// writeMailq prints the queue as mailq does. The last line is what monitoring
// looks at.
func writeMailq(a *app, w io.Writer, queue iter.Seq2[control.Message, error], failedList bool) error {
	var failed failures
	n, octets := 0, int64(0)
	for m, err := range queue {
		if err != nil {
			failed.add(err)
			continue
		}
		if n == 0 {
			fmt.Fprintln(w, mailqHeader)
		}
		n, octets = n+1, octets+m.Size
		writeMailqEntry(w, &m, a.zone)
	}
	switch n {
	case 0:
		if failedList {
			fmt.Fprintln(w, "No failed mail")
			break
		}
		fmt.Fprintln(w, "Mail queue is empty")
	case 1:
		fmt.Fprintf(w, "-- %d Kbytes in 1 Request.\n", octets/octetsPerKbyte)
	default:
		fmt.Fprintf(w, "-- %d Kbytes in %d Requests.\n", octets/octetsPerKbyte, n)
	}
	return failed.err()
}

func writeMailqEntry(w io.Writer, m *control.Message, zone *time.Location) {
	mark := mailqQueuedMark
	if m.Status == control.StatusHeld {
		mark = mailqHeldMark
	}
	fmt.Fprintf(w, mailqSender, m.ID.String()+mark, m.Size, m.Arrived.In(zone).Format(mailqTime), senderText(m))
	if m.Held != "" {
		writeReason(w, m.Held)
	}
	last := ""
	for _, r := range m.Recipients {
		if !listed(m, &r) {
			continue
		}
		// One reason stands for all recipients that follow it.
		if why := reason(r.Reply); why != last {
			writeReason(w, why)
			last = why
		}
		fmt.Fprintf(w, mailqRecipient, "", "", "", recipientText(m, r.Address))
	}
	fmt.Fprintln(w)
}

// listed reports whether a recipient is why its message is in the list.
func listed(m *control.Message, r *control.Recipient) bool {
	if m.Kept {
		return r.Status == spool.Failed
	}
	return !r.Status.Settled()
}

func writeReason(w io.Writer, why string) {
	why = spool.CleanText(why)
	if why == "" {
		return
	}
	pad := max(0, mailqReasonEnd-len([]rune(why)))
	fmt.Fprintf(w, "%s(%s)\n", strings.Repeat(" ", pad), why)
}

// reason is why a recipient is still here, as a person reads it, and what can be done.
func reason(r *spool.Reply) string {
	if r == nil || r.Text == "" && r.Host == "" {
		return ""
	}
	if r.Remedy != "" {
		return said(r) + "; remedy: " + r.Remedy
	}
	return said(r)
}

func said(r *spool.Reply) string {
	switch {
	case r.Code != 0 && r.Host != "":
		return fmt.Sprintf("host %s said: %s (in reply to %s)", r.Host, r.String(), r.Command)
	case r.Code != 0:
		return r.String()
	}
	return r.Text
}

func senderText(m *control.Message) string {
	if m.Sender == "" && !m.Hidden {
		return nullSender
	}
	return recipientText(m, m.Sender)
}

func recipientText(m *control.Message, address string) string {
	if m.Hidden {
		return hiddenAddress
	}
	return spool.CleanText(address)
}
