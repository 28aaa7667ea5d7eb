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
		verdict = "not there, the defaults hold: mail goes directly to the exchangers of its recipients"
	}
	if _, err := config.Load(path, a.environ...); err != nil {
		return &exitError{status: exConfig, err: err}
	}
	return a.output(func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s\n", spool.CleanText(path), verdict)
		return err
	})
}

// runConfigShow is the config show command.
func runConfigShow(_ context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError("config show takes no operands: --config names a file")
	}
	if _, err := a.loadConfig(); err != nil {
		return err
	}
	settings, err := config.List(a.config, a.environ...)
	if err != nil {
		return &exitError{status: exConfig, err: err}
	}
	return a.output(func(w io.Writer) error {
		if !o.json {
			_, err := settings.WriteTo(w)
			return err
		}
		for _, s := range settings {
			if err := writeLine(w, s); err != nil {
				return err
			}
		}
		return nil
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
