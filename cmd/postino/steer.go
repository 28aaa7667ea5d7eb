package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postino/delivery/control"
	"postino/spool"
)

// maxPreview is how many messages are shown before a question.
const maxPreview = 5

// steer makes a command of a verb. There must be a runner: it alone writes.
func steer(v control.Verb, past string) func(context.Context, *app, options, []string) error {
	return func(ctx context.Context, a *app, o options, operands []string) error {
		sel, err := o.chosen(string(v), operands)
		if err != nil {
			return err
		}
		client := control.Dial(a.spool)
		defer client.Close()
		if o.dryRun {
			return a.output(func(w io.Writer) error {
				return a.writeSteered(w, o, "would be "+past, client.Preview(ctx, v, sel))
			})
		}
		if v == control.Delete && len(sel.IDs) == 0 && !o.yes && isTerminal(a.stdin) {
			// Of what arrives while the question stands nothing was said.
			if now := time.Now(); sel.Before.IsZero() || now.Before(sel.Before) {
				sel.Before = now
			}
			if err := a.ask(client.Preview(ctx, v, sel)); err != nil {
				return err
			}
		}
		return a.output(func(w io.Writer) error { return a.writeSteered(w, o, past, client.Steer(ctx, v, sel)) })
	}
}

// chosen is what a command is for. Nothing said is not everything meant.
func (o *options) chosen(command string, operands []string) (control.Selection, error) {
	sel := o.selection
	given := 0
	for _, is := range []bool{o.all, len(operands) > 0, len(sel.Values()) > 0} {
		if is {
			given++
		}
	}
	if given != 1 {
		return sel, usageError(`%s takes queue IDs, or filters, or --all, and one of them alone: "postino queue" lists what they mean`, command)
	}
	var err error
	sel.IDs, err = parseIDs(operands)
	return sel, err
}

func parseIDs(operands []string) ([]spool.ID, error) {
	var ids []spool.ID
	for _, text := range operands {
		id, err := parseID(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// writeSteered prints the messages that were, or would be, changed, and how many.
func (a *app) writeSteered(w io.Writer, o options, past string, steered iter.Seq2[control.Message, error]) error {
	var failed failures
	done := 0
	for m, err := range steered {
		if errors.Is(err, control.ErrNoRunner) || errors.Is(err, control.ErrNotAllowed) {
			return err // there is nothing to count
		}
		if err != nil {
			failed.add(err)
			continue
		}
		done++
		switch {
		case o.json:
			line, err := control.Line(m)
			if err != nil {
				return err
			}
			w.Write(line)
		case o.dryRun:
			a.writeShort(w, &m)
		}
	}
	if err := failed.err(); !o.json && (done > 0 || err == nil) {
		fmt.Fprintf(w, "%s %s\n", messages(done), past)
	}
	return failed.err()
}

func messages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

// writeShort prints one message in one line.
func (a *app) writeShort(w io.Writer, m *control.Message) {
	to, more := "", 0
	for _, r := range m.Recipients {
		switch {
		case !listed(m, &r):
		case to == "":
			to = recipientText(m, r.Address)
		default:
			more++
		}
	}
	if more > 0 {
		to += fmt.Sprintf(" and %d more", more)
	}
	fmt.Fprintf(w, "%s %s %s -> %s\n", m.ID, m.Arrived.In(a.zone).Format(mailqTime), senderText(m), to)
}

// ask shows what would be deleted and returns nil when a person agrees. It talks
// on standard error, so that standard output has the result alone.
func (a *app) ask(found iter.Seq2[control.Message, error]) error {
	n := 0
	for m, err := range found {
		if err != nil {
			return err
		}
		if n++; n <= maxPreview {
			a.writeShort(a.stderr, &m)
		}
	}
	if n == 0 {
		return nil
	}
	if n > maxPreview {
		fmt.Fprintf(a.stderr, "and %d more\n", n-maxPreview)
	}
	fmt.Fprintf(a.stderr, "Delete %s? [y/N] ", messages(n))
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &exitError{status: exFailure, err: errors.New("nothing was deleted")}
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
