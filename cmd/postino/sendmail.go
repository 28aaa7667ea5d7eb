package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"postino/delivery/control"
	"postino/spool"
)

// isSendmail reports whether we are called by the name of one of sendmail's
// programs. The front end executes us under its own name for whatever is not a
// message to take.
func isSendmail(name string) bool {
	switch name {
	case "sendmail", "send-mail", "mailq", "newaliases", "hoststat", "purgestat", "runq", "smtpd":
		return true
	}
	return false
}

// The letters of sendmail's options by the values they take, as cmd/sendmail has
// them.
const (
	withValue    = "ABCFLNORVXbefhopr" // the rest of the word, else the next word
	withAttached = "dEJq"              // the rest of the word, which may be empty
	withoutValue = "cGIimnstUvx"
)

// sendmailOptions is as much of a command line as decides what to do.
type sendmailOptions struct {
	mode     string // the value of -b; "" when there is none
	queue    *string
	header   bool // -t
	config   bool // -C
	help     bool
	aliases  string // the value of -oA
	operands []string
	// noAliases is -n.
	noAliases bool
}

const sendmailUsage = `usage: mailq
       newaliases
       sendmail -bp | -bi | -bs | -q

See mailq(1), sendmail(8) and postino(8).
`

// sendmail does what that program does besides taking messages.
func (a *app) sendmail(ctx context.Context, name string, args []string) error {
	o, err := parseSendmail(args)
	if err != nil {
		return err
	}
	if o.help {
		return a.output(func(w io.Writer) error {
			_, err := io.WriteString(w, sendmailUsage)
			return err
		})
	}
	mode := o.mode
	if byName, ok := modeOf(name); ok {
		mode = byName
	}
	if o.config && os.Geteuid() != 0 {
		// We read no sendmail.cf. Root's scripts may name one; from anybody else it is
		// an attempt at something.
		return usageError("-C is for root alone")
	}
	runsQueue := o.queue != nil && (mode == "" || mode == "m")
	if (o.header || len(o.operands) > 0) && (runsQueue || strings.Contains("pPihHqVdlDC", mode) && mode != "") {
		// Whoever names recipients may have a message for them, which is not read here.
		return usageError("this mode takes neither recipients nor -t: it reads no message")
	}
	if runsQueue {
		if isInterval(*o.queue) && a.mayRun() == nil {
			return a.daemon(ctx)
		}
		return a.flush(ctx, *o.queue)
	}
	return a.mode(ctx, mode, o)
}

// modeOf is the mode that a program name stands for.
func modeOf(name string) (mode string, ok bool) {
	switch name {
	case "mailq":
		return "p", true
	case "newaliases":
		return "i", true
	case "hoststat":
		return "h", true
	case "purgestat":
		return "H", true
	case "smtpd":
		return "d", true
	case "runq":
		return "q", true
	}
	return "", false
}

// mode does what -b asks for. Nothing here reads a message from standard input.
func (a *app) mode(ctx context.Context, mode string, o sendmailOptions) error {
	switch mode {
	case "p", "P":
		if mode == "P" {
			return a.countQueue(ctx)
		}
		return runQueue(ctx, a, options{}, nil)
	case "i":
		var file []string
		if o.aliases != "" {
			file = []string{o.aliases}
		}
		err := runAliasesCheck(ctx, a, options{}, file)
		if err == nil {
			err = a.askToReload(ctx)
		}
		return err
	case "h", "H":
		return nil // there is no table of hosts
	case "q":
		return a.flush(ctx, "")
	case "C":
		return runConfigCheck(ctx, a, options{}, nil)
	case "V":
		return runVersion(ctx, a, options{}, nil)
	case "d", "l":
		return a.daemon(ctx)
	case "D":
		if err := a.mayRun(); err != nil {
			return err
		}
		return runRunner(ctx, a, false)
	case "s":
		return stdio(a, o.noAliases)
	case "v":
		return runRoute(ctx, a, options{}, o.operands)
	case "", "m":
		return usageError("postino takes no messages itself: install the program sendmail under that name")
	}
	return usageError("-b%s is not a mode of this sendmail", mode)
}

// parseSendmail reads the arguments as BSD getopt does.
func parseSendmail(args []string) (sendmailOptions, error) {
	var o sendmailOptions
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0]
		args = args[1:]
		if word == "--" {
			break
		}
		switch word {
		case "--help":
			return sendmailOptions{help: true}, nil
		case "--version":
			return sendmailOptions{mode: "V"}, nil
		}
		for rest := word[1:]; rest != ""; {
			letter, value := rest[:1], ""
			rest = rest[1:]
			takes := strings.Contains(withValue, letter)
			if takes || strings.Contains(withAttached, letter) {
				value, rest = rest, ""
			}
			if takes && value == "" {
				if len(args) == 0 {
					return o, usageError("-%s needs a value", letter)
				}
				value, args = args[0], args[1:]
			}
			if err := o.set(letter, value); err != nil {
				return o, err
			}
		}
	}
	o.operands = args
	return o, nil
}

func (o *sendmailOptions) set(letter, value string) error {
	switch letter {
	case "b":
		o.mode = value
	case "I":
		o.mode = "i"
	case "q":
		o.queue = &value
	case "t":
		o.header = true
	case "C":
		o.config = true
	case "n":
		o.noAliases = true
	case "o":
		if file, ok := strings.CutPrefix(value, "A"); ok {
			o.aliases = file
		}
	default:
		if !strings.Contains(withValue+withAttached+withoutValue, letter) {
			return usageError("%q is not an option", "-"+letter)
		}
	}
	return nil
}

// countQueue prints how many messages are in the queue.
func (a *app) countQueue(ctx context.Context) error {
	return a.query(ctx, func(w io.Writer, s source) error {
		var failed failures
		n := 0
		for _, err := range s.Queue(ctx, control.Selection{}) {
			if err != nil {
				failed.add(err)
			}
			n++
		}
		fmt.Fprintln(w, n)
		return failed.err()
	})
}

// askToReload has the runner look at its files again. Package scripts call
// newaliases whatever the state of things, so that nothing is said where nobody
// listens or where the caller has no right to it.
func (a *app) askToReload(ctx context.Context) error {
	client := control.Dial(a.spool)
	defer client.Close()
	return unlessAlone(client.Reload(ctx))
}

// unlessAlone is err, but for the want of a runner or of the right to ask it.
func unlessAlone(err error) error {
	if errors.Is(err, control.ErrNoRunner) || errors.Is(err, control.ErrNotAllowed) {
		return nil
	}
	return err
}

// flush is -q: what it selects is attempted at once. Cron jobs and boot scripts
// call it whatever the state of things, so nothing is said where nobody listens
// or where the caller has no right to it.
func (a *app) flush(ctx context.Context, selection string) error {
	client := control.Dial(a.spool)
	defer client.Close()
	return unlessAlone(flushSelected(ctx, client, selection))
}

// isInterval reports whether the value of -q is a time, "30m": by that sendmail is
// asked to stay and run the queue, which is what our runner is for.
func isInterval(value string) bool {
	return value != "" && value[0] >= '0' && value[0] <= '9'
}

// flushSelected understands -qI, -qR and -qS (a part of the ID, of a recipient, of
// the sender). Any other value means the whole queue.
func flushSelected(ctx context.Context, client *control.Client, selection string) error {
	if selection == "" || !strings.Contains("IRS", selection[:1]) {
		return client.Flush(ctx)
	}
	var ids []spool.ID
	for m, err := range client.Queue(ctx, control.Selection{}) {
		if err != nil {
			return err
		}
		if m.Status == control.StatusQueued && selected(&m, selection[:1], selection[1:]) {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	for _, err := range client.Steer(ctx, control.Retry, control.Selection{IDs: ids}) {
		if err != nil && !errors.Is(err, control.ErrConflict) && !errors.Is(err, spool.ErrNotFound) {
			return err // the others were finished or held meanwhile
		}
	}
	return nil
}

func selected(m *control.Message, by, part string) bool {
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(part)) }
	switch by {
	case "I":
		return has(m.ID.String())
	case "S":
		return has(m.Sender)
	}
	return slices.ContainsFunc(m.Recipients, func(r control.Recipient) bool { return !r.Status.Settled() && has(r.Address) })
}

// mayRun refuses to let those run the runner who could not.
func (a *app) mayRun() error {
	info, err := os.Stat(a.spool)
	if os.Geteuid() == 0 || err == nil && ownedBy(info, os.Geteuid()) {
		return nil
	}
	return &exitError{status: exNoPerm, err: errors.New("only root and the owner of " + strconv.Quote(a.spool) + " may run the runner")}
}
