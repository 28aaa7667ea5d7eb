package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"postino/delivery/control"
	"postino/spool"
)

// runShow is the show command.
func runShow(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) != 1 {
		return usageError(`show takes one queue ID: "postino queue" lists them`)
	}
	id, err := parseID(operands[0])
	if err != nil {
		return err
	}
	if o.content {
		return a.copyContent(ctx, id)
	}
	return a.query(ctx, func(w io.Writer, s source) error {
		t, err := s.Show(ctx, id)
		if err != nil {
			return err
		}
		return a.writeTraces(w, o, one(t))
	})
}

func parseID(text string) (spool.ID, error) {
	id, err := spool.ParseID(text)
	if err != nil {
		return 0, usageError("%w", err)
	}
	return id, nil
}

// one yields t alone.
func one(t control.Trace) func(func(control.Trace, error) bool) {
	return func(yield func(control.Trace, error) bool) { yield(t, nil) }
}

// runTrace is the trace command.
func runTrace(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) != 1 || operands[0] == "" {
		return usageError("trace takes one thing to look for: a queue ID, a Message-ID, an address or a part of a subject")
	}
	return a.query(ctx, func(w io.Writer, s source) error {
		n := 0
		counted := func(yield func(control.Trace, error) bool) {
			for t, err := range s.Trace(ctx, operands[0]) {
				n++
				if !yield(t, err) {
					return
				}
			}
		}
		err := a.writeTraces(w, o, counted)
		if err == nil && n == 0 {
			err = &exitError{status: exFailure, err: fmt.Errorf("%q: no message known by that", operands[0])}
		}
		return err
	})
}

func (a *app) writeTraces(w io.Writer, o options, traces func(func(control.Trace, error) bool)) error {
	if o.json {
		return writeLines(w, traces)
	}
	var failed failures
	first := true
	for t, err := range traces {
		if err != nil {
			failed.add(err)
			continue
		}
		if !first {
			fmt.Fprintln(w)
		}
		first = false
		p := tracePrinter{w: w, zone: a.zone}
		p.message(&t)
	}
	return failed.err()
}

// tracePrinter prints one message for people.
type tracePrinter struct {
	w    io.Writer
	zone *time.Location
}

const traceTime = "2006-01-02 15:04:05 -0700"

func (p tracePrinter) time(t time.Time) string { return t.In(p.zone).Format(traceTime) }

// field prints one line of what is known, if anything is.
func (p tracePrinter) field(name, value string) {
	if value = spool.CleanText(value); value != "" {
		fmt.Fprintf(p.w, "  %-11s %s\n", name, value)
	}
}

func (p tracePrinter) message(t *control.Trace) {
	fmt.Fprintf(p.w, "%s %s\n", t.ID, t.Status)
	p.field("arrived", p.time(t.Arrived)+" "+origin(t))
	p.field("from", "<"+t.Sender+">")
	p.field("subject", t.Subject)
	p.field("message-id", t.MessageID)
	p.field("size", fmt.Sprintf("%d octets", t.Size))
	p.field("held", t.Held)
	if t.NoAliases {
		p.field("aliases", "not looked up, as the sender asked (sendmail -n)")
	}
	for _, at := range t.Attempts {
		p.attempt(&at)
	}
	for _, r := range t.Recipients {
		p.recipient(t, &r)
	}
	for _, id := range t.Reports {
		p.field("report", id.String())
	}
	if !t.Finished.IsZero() {
		what := p.time(t.Finished)
		if t.Kept {
			what += fmt.Sprintf(`, content kept: "postino retry %s" sends it again`, t.ID)
		}
		if t.Captured {
			what += fmt.Sprintf(`, content kept: "postino capture show %s" prints it`, t.ID)
		}
		p.field("finished", what)
	}
}

// origin says who handed a message in, and how.
func origin(t *control.Trace) string {
	text := fmt.Sprintf("by %s from uid %d", t.Via, t.UID)
	if t.Program != "" {
		text += ", " + t.Program
	}
	if t.PID != 0 {
		text += fmt.Sprintf(" (pid %d)", t.PID)
	}
	return text
}

func (p tracePrinter) attempt(at *control.Attempt) {
	text := fmt.Sprintf("%s %s, %d ms", p.time(at.At), at.Hop, at.TookMS)
	if at.TLS != "" {
		text += ", " + at.TLS
	}
	if at.From != "" {
		text += ", from <" + at.From + ">"
	}
	p.field("attempt", text)
	for i, rcpt := range at.Recipients {
		if i < len(at.Replies) {
			fmt.Fprintf(p.w, "    %s: %s\n", spool.CleanText(rcpt), spool.CleanText(verdict(&at.Replies[i])))
		}
	}
}

// verdict is a reply with whoever said it.
func verdict(r *spool.Reply) string {
	switch {
	case r.Host != "" && r.Command != "":
		return fmt.Sprintf("%s (%s, %s)", r, r.Host, r.Command)
	case r.Command != "":
		return fmt.Sprintf("%s (%s)", r, r.Command)
	}
	return r.String()
}

func (p tracePrinter) recipient(t *control.Trace, r *control.Recipient) {
	text := fmt.Sprintf("<%s> %s", r.Address, r.Status)
	switch {
	case r.Attempts == 1:
		text += " after 1 attempt"
	case r.Attempts > 1:
		text += fmt.Sprintf(" after %d attempts", r.Attempts)
	}
	if !r.Status.Settled() && t.Status != control.StatusHeld {
		text += ", next " + p.time(r.Next)
	}
	if r.Maybe {
		text += ", perhaps delivered: the connection ended before the answer"
	}
	p.field("to", text)
	if r.Reply != nil && *r.Reply != lastReply(t, r.Address) { // no attempt tells it
		fmt.Fprintf(p.w, "    %s\n", spool.CleanText(verdict(r.Reply)))
	}
}

// lastReply is what the last attempt for a recipient got.
func lastReply(t *control.Trace, address string) spool.Reply {
	for _, at := range slices.Backward(t.Attempts) {
		for i, rcpt := range at.Recipients {
			if rcpt == address && i < len(at.Replies) {
				return at.Replies[i]
			}
		}
	}
	return spool.Reply{}
}

// copyContent prints the content of a message as it is stored.
func (a *app) copyContent(ctx context.Context, id spool.ID) error {
	s, err := a.source(ctx)
	if err != nil {
		return err
	}
	content, err := s.Content(ctx, id)
	if _, remote := s.(*control.Client); !remote || err != nil {
		s.Close() // the content does not need it, and the runner may want it
	}
	if err != nil {
		return err
	}
	defer content.Close()
	_, err = io.Copy(a.stdout, content)
	if errors.Is(err, spool.ErrDamaged) {
		return &exitError{status: exIO, err: fmt.Errorf("%s: %w", id, err)}
	}
	return err
}

// runCaptureList is the capture list command.
func runCaptureList(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError(`capture list takes no operands: "postino capture show" prints one message`)
	}
	return a.query(ctx, func(w io.Writer, s source) error {
		if o.json {
			return writeLines(w, s.Captured(ctx))
		}
		var failed failures
		for t, err := range s.Captured(ctx) {
			if err != nil {
				failed.add(err)
				continue
			}
			to := ""
			for _, r := range t.Recipients {
				to += " " + spool.CleanText(r.Address)
			}
			fmt.Fprintf(w, "%s %s %s ->%s: %s\n", t.ID, t.Arrived.In(a.zone).Format(traceTime), senderText(&t.Message), to, spool.CleanText(t.Subject))
		}
		return failed.err()
	})
}

// runCaptureShow is the capture show command.
func runCaptureShow(ctx context.Context, a *app, _ options, operands []string) error {
	if len(operands) != 1 {
		return usageError(`capture show takes one queue ID: "postino capture list" lists them`)
	}
	id, err := parseID(operands[0])
	if err != nil {
		return err
	}
	return a.copyContent(ctx, id)
}
