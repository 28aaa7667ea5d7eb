// Command postino runs the mail queue and is how people look after it. Under the
// names of sendmail's relatives (mailq, newaliases, …) it does what they do.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postino/config"
	"postino/spool"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = "dev"

const (
	defaultConfig = "/etc/postino/postino.toml"
	defaultSpool  = "/var/spool/postino"
)

// app is one call of the program: what it was told by its surroundings.
type app struct {
	name   string // what messages begin with
	config string // path of postino.toml
	spool  string // the spool directory
	user   bool   // both are of the calling user
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	zone   *time.Location // of the times people read
	// environ is the environment as far as it may be believed.
	environ []string
}

func main() {
	a := &app{
		name:    "postino",
		environ: believed(),
		stdin:   os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		zone: time.Local,
	}
	a.config, a.spool = a.env("POSTINO_CONFIG", defaultConfig), a.env("POSTINO_SPOOL", defaultSpool)
	os.Exit(a.main(context.Background(), os.Args))
}

// loadConfig reads the configuration. The usual file may be missing; one that was
// named must be there, or a slip in the name would send what was to be captured.
func (a *app) loadConfig() (*config.Config, error) {
	var err error
	if a.config != defaultConfig {
		_, err = os.Stat(a.config)
	}
	var c *config.Config
	if err == nil {
		c, err = config.Load(a.config, a.environ...)
	}
	if err != nil {
		return nil, &exitError{status: exConfig, err: err}
	}
	return c, nil
}

// believed is the environment: none where a set-user-ID program of somebody else
// called us without leaving its caller behind, who may then not say what we run.
func believed() []string {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return nil
	}
	return os.Environ()
}

// env is the value of a variable; an empty one is none.
func (a *app) env(name, otherwise string) string {
	for _, pair := range a.environ {
		if value, found := strings.CutPrefix(pair, name+"="); found && value != "" {
			return value
		}
	}
	return otherwise
}

// main is the program; it returns the exit status.
func (a *app) main(ctx context.Context, argv []string) int {
	if len(argv) == 0 {
		argv = []string{"postino"} // execve allows that
	}
	var err error
	if name := filepath.Base(argv[0]); isSendmail(name) {
		a.name = name
		if !filepath.IsAbs(a.spool) {
			a.report(fmt.Errorf("POSTINO_SPOOL=%q: want an absolute path", a.spool))
			return exCantCreate
		}
		err = a.sendmail(ctx, name, argv[1:])
	} else {
		err = a.postino(ctx, argv[1:])
	}
	a.report(err)
	return exitStatus(err)
}

// report prints err on standard error, each of its lines with our name.
func (a *app) report(err error) {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(a.stderr, "%s: %s\n", a.name, spool.CleanText(line)) // who closed it reads the status instead
	}
}

// output has f write to standard output; nothing is printed when f fails before
// it has much to say.
func (a *app) output(f func(w io.Writer) error) error {
	var buf bytes.Buffer
	err := f(&buf)
	if _, writeErr := a.stdout.Write(buf.Bytes()); writeErr != nil {
		err = errors.Join(err, &exitError{status: exIO, err: fmt.Errorf("standard output: %w", writeErr)})
	}
	return err
}

// postino runs the command that args name.
func (a *app) postino(ctx context.Context, args []string) error {
	o := options{}
	early := a.flagSet("postino", &o, nil)
	if err := early.Parse(args); err != nil {
		return a.badFlags(err, nil)
	}
	args = early.Args()
	if len(args) == 0 {
		return usageError(`no command: "postino help" lists them`)
	}
	c, args, err := findCommand(args)
	if errors.Is(err, flag.ErrHelp) {
		return runHelp(ctx, a, o, early.Args()[:1])
	}
	if err != nil {
		return err
	}
	operands, err := parseAnywhere(a.flagSet(c.name, &o, c.flags), args)
	if err != nil {
		return a.badFlags(err, c)
	}
	return c.run(ctx, a, o, operands)
}

// parseAnywhere parses flags before, between and behind operands, up to a "--",
// and returns the operands.
func parseAnywhere(fs *flag.FlagSet, args []string) (operands []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		rest := fs.Args()
		if parsed := len(args) - len(rest); len(rest) == 0 || parsed > 0 && args[parsed-1] == "--" {
			return append(operands, rest...), nil
		}
		operands, args = append(operands, rest[0]), rest[1:]
	}
}

// badFlags is what to do when flags cannot be parsed: help where that was asked
// for, else an error.
func (a *app) badFlags(err error, c *command) error {
	if !errors.Is(err, flag.ErrHelp) {
		hint := "postino help"
		if c != nil {
			hint += " " + c.name
		}
		return usageError("%v: %q shows the usage", err, hint)
	}
	return a.output(func(w io.Writer) error {
		if c == nil {
			return overview(w)
		}
		return c.help(w)
	})
}
