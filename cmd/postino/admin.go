package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"postino/config"
	"postino/delivery/control"
	"postino/spool"
)

// failures are errors that do not stop a walk: the first few, and how many.
type failures struct {
	first []error
	more  int
}

// maxFailures is how many errors of one walk are told.
const maxFailures = 20

func (f *failures) add(err error) {
	if len(f.first) < maxFailures {
		f.first = append(f.first, err)
	} else {
		f.more++
	}
}

func (f *failures) err() error {
	if f.more > 0 {
		return errors.Join(append(f.first, fmt.Errorf("and %d more like these", f.more))...)
	}
	return errors.Join(f.first...)
}

// verb is what hold, release, retry and delete do to one message.
type verb struct {
	name, past string
	do         func(*control.Client, context.Context, spool.ID) (control.Message, error)
	// concerns reports whether --all means a message.
	concerns func(*control.Message) bool
	// all does it to all messages at once; nil when each has to be asked for.
	all func(*control.Client, context.Context) error
}

// runVerb makes a command of a verb. There must be a runner: it alone writes.
func runVerb(v verb) func(context.Context, *app, options, []string) error {
	return func(ctx context.Context, a *app, o options, operands []string) error {
		if o.all == (len(operands) > 0) {
			return usageError(`%s takes queue IDs, or --all: "postino queue" lists them`, v.name)
		}
		var ids []spool.ID
		for _, text := range operands {
			id, err := parseID(text)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		client := control.Dial(a.spool)
		defer client.Close()
		if o.all && v.all != nil {
			return v.all(client, ctx)
		}
		if o.all {
			for m, err := range client.Queue(ctx) {
				if err != nil {
					return err
				}
				if v.concerns(&m) {
					ids = append(ids, m.ID)
				}
			}
		}
		return a.output(func(w io.Writer) error { return a.apply(ctx, w, o, v, client, ids) })
	}
}

// apply does v to all of ids, and goes on when one cannot be done.
func (a *app) apply(ctx context.Context, w io.Writer, o options, v verb, client *control.Client, ids []spool.ID) error {
	var failed failures
	done := 0
	for _, id := range ids {
		m, err := v.do(client, ctx, id)
		if errors.Is(err, control.ErrNoRunner) || errors.Is(err, control.ErrNotAllowed) {
			return err // true of all others as well
		}
		if err != nil {
			if !(o.all && errors.Is(err, control.ErrConflict)) { // it was finished meanwhile
				failed.add(err)
			}
			continue
		}
		done++
		if o.json {
			line, err := control.Line(m)
			if err != nil {
				return err
			}
			w.Write(line)
		}
	}
	if !o.json && (done > 0 || o.all) {
		s := "s"
		if done == 1 {
			s = ""
		}
		fmt.Fprintf(w, "%d message%s %s\n", done, s, v.past)
	}
	return failed.err()
}

// runConfigCheck is the config check command.
func runConfigCheck(_ context.Context, a *app, _ options, operands []string) error {
	if len(operands) > 1 {
		return usageError("config check takes one file at most")
	}
	path, verdict := a.config, "ok"
	if len(operands) == 1 {
		path = operands[0]
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		// A file that was named must be there; the usual one may be missing.
		if path != defaultConfig {
			return &exitError{status: exConfig, err: err}
		}
		verdict = "not there, the defaults hold: nothing is sent without a [relay]"
	}
	if _, err := config.Load(path); err != nil {
		return &exitError{status: exConfig, err: err}
	}
	return a.output(func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s\n", spool.CleanText(path), verdict)
		return err
	})
}

// runConfigShow is the config show command.
func runConfigShow(_ context.Context, a *app, _ options, operands []string) error {
	if len(operands) > 0 {
		return usageError("config show takes no operands: --config names a file")
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		_, err := c.WriteTo(w)
		return err
	})
}

// runVersion is the version command.
func runVersion(_ context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError("version takes no operands")
	}
	return a.output(func(w io.Writer) error {
		if !o.json {
			_, err := fmt.Fprintf(w, "postino %s\n", version)
			return err
		}
		line, err := control.Line(struct {
			Version string `json:"version"`
		}{version})
		w.Write(line)
		return err
	})
}
