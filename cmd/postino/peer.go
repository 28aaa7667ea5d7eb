package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"postino/config/peer"
)

// runConfigImport is the config import command: it prints the configuration of another
// mail program as ours, and with --queue takes its mail over.
func runConfigImport(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) == 0 || len(operands) > 2 {
		return usageError("config import takes the name of a mail program, and a file at most: postino config import postfix")
	}
	if o.queue {
		return a.takeOver(ctx, o, operands)
	}
	if o.secrets != "" && !filepath.IsAbs(o.secrets) {
		return usageError("--secrets %q: want an absolute path, as the configuration does", o.secrets)
	}
	in := peer.Import{Secrets: o.secrets, Hostname: hostname()}
	if in.Secrets == "" {
		in.Secrets = a.secrets()
	}
	if os.Geteuid() != 0 {
		in.Home = a.env("HOME", "")
		in.ConfigHome = a.env("XDG_CONFIG_HOME", filepath.Join(in.Home, ".config"))
	}
	file := ""
	if len(operands) == 2 {
		var err error
		if file, err = filepath.Abs(operands[1]); err != nil {
			return err
		}
	}
	found, err := in.From(operands[0], file)
	if err != nil {
		return &exitError{status: exConfig, err: err}
	}
	if o.secrets != "" {
		if err := a.writePasswords(o.secrets, found.Passwords); err != nil {
			return err
		}
	}
	err = a.output(func(w io.Writer) error {
		_, err := io.WriteString(w, found.Text)
		return err
	})
	if len(found.Notes) > 0 {
		a.report(errors.New("some of it was not taken over: the comments at the top say what"))
	}
	if o.secrets == "" && len(found.Passwords) > 0 {
		a.report(fmt.Errorf("%s is not written: --secrets %s does that", found.Passwords[0].Path, in.Secrets))
	}
	return err
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

// writePasswords writes each password into its file, which the runner's user alone
// can read. A file that has it already is left as it is.
func (a *app) writePasswords(dir string, list []peer.Password) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return &exitError{status: exCantCreate, err: err}
	}
	for _, p := range list {
		if err := a.writeSecret(p.Path, p.Text); err != nil {
			return err
		}
	}
	if _, err := os.Stat(a.spool); err != nil && os.Geteuid() == 0 && len(list) > 0 {
		a.report(fmt.Errorf("%s is not there, so the passwords are root's: give them to the runner's user once there is one", a.spool))
	}
	return nil
}

// writeSecret writes a secret into a new file. One with that secret in it will do.
func (a *app) writeSecret(path, text string) error {
	text += "\n"
	err := a.writeKey(path, []byte(text))
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if old, readErr := os.ReadFile(path); readErr == nil && bytes.Equal(old, []byte(text)) {
		return nil
	}
	return &exitError{status: exCantCreate, err: fmt.Errorf("%s: there is such a file with something else in it: remove it first", path)}
}
