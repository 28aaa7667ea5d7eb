package main

import (
	"flag"
	"fmt"
	"io"
	"os/user"
	"strconv"
	"strings"
	"time"

	"postino/config"
	"postino/delivery/control"
)

// options are what the flags of all commands set; each command has some of them.
type options struct {
	json, all, content, untilEmpty bool
	yes, dryRun                    bool
	selection                      control.Selection
	user                           *int   // nil: none is named
	why                            string // of a suspension
	kind                           string // of a key
	host                           string // to forget
	since                          time.Time
	lines                          int
	follow, remove, prometheus     bool
	secrets                        string // a directory
	queue                          bool   // of another program
	setup                          setup
	account                        string // the user name at a relay
}

// flags defines flags that belong together. The usage of a flag is what help says
// about it, with the name of its value in back quotes.
type flags func(*flag.FlagSet, *options)

// flagSet is the flag set of a command: --config and --spool, and those it has.
func (a *app) flagSet(name string, o *options, groups []flags) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&a.config, "config", a.config, "the configuration `FILE`")
	fs.StringVar(&a.spool, "spool", a.spool, "the spool `DIR`ectory")
	fs.BoolFunc("user", "the configuration and the spool of the calling user", func(string) error { return a.perUser() })
	for _, define := range groups {
		define(fs, o)
	}
	return fs
}

func flagJSON(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.json, "json", o.json, "print one JSON object a line")
}

func flagContent(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.content, "content", false, "print the message as it is stored")
}

func flagUntilEmpty(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.untilEmpty, "until-empty", false, "end when no message is left to attempt")
}

func flagDryRun(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.dryRun, "dry-run", false, "list the messages and change nothing")
}

func flagYes(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.yes, "yes", false, "do not ask, not even on a terminal")
}

func flagUser(fs *flag.FlagSet, o *options) {
	fs.Func("uid", "a `USER`'s number or name", func(s string) error {
		uid, err := parseUser(s)
		o.user = &uid
		return err
	})
}

func flagAccount(fs *flag.FlagSet, o *options) {
	fs.Func("account", "`NAME` of the account, where there are several: relay.username", text(&o.account))
}

func flagKind(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.kind, "type", "rsa", "the `KIND` of key: rsa, which everybody can verify, or ed25519 beside one")
}

func flagForget(fs *flag.FlagSet, o *options) {
	fs.Func("forget", "forget what is known of `HOST`: a name or an address", text(&o.host))
}

func flagWhy(fs *flag.FlagSet, o *options) {
	fs.Func("reason", "`TEXT` that says why, for those who see the mail held", text(&o.why))
}

func flagAll(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.all, "all", false, "all messages of the queue")
}

// flagsSelection are the filters, which say together which messages are meant.
func flagsSelection(fs *flag.FlagSet, o *options) {
	sel := &o.selection
	fs.Func("from", "the sender: `ADDRESS`, @domain, local part, or a pattern with * and ?", text(&sel.From))
	fs.Func("to", "a recipient that still waits: `ADDRESS`, as for --from", text(&sel.To))
	fs.Func("uid", "who submitted it: a `USER`'s number or name", func(s string) error {
		uid, err := parseUser(s)
		sel.UID = &uid
		return err
	})
	fs.Func("hop", "a part of the next `HOP`, as \"postino route\" prints it", text(&sel.Hop))
	fs.Func("status", "`STATUS` of the message or of a recipient: queued, deferred, held, failed, ...", func(s string) error {
		sel.Status = s
		return control.CheckStatus(s)
	})
	fs.Func("older", "arrived longer ago than `TIME`: 90s, 2h, 5d", func(s string) (err error) {
		sel.Before, err = ago(s)
		return err
	})
	fs.Func("newer", "arrived within the last `TIME`", func(s string) (err error) {
		sel.After, err = ago(s)
		return err
	})
	fs.Func("reason", "a part of the last reply: `TEXT`", text(&sel.Reason))
}

func flagPrometheus(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.prometheus, "prometheus", false, "print the runner's metrics as Prometheus reads them")
}

// flagFailed is for commands that know the failed list.
func flagFailed(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.selection.Failed, "failed", false, "messages of the failed list, not of the queue")
}

// flagLimit is no filter of lines of log, of which the newest are wanted.
func flagLimit(fs *flag.FlagSet, o *options) {
	sel := &o.selection
	fs.Func("limit", "the oldest `N` of them", func(s string) (err error) {
		if sel.Limit, err = strconv.Atoi(s); err != nil || sel.Limit <= 0 {
			err = fmt.Errorf("want a number from 1")
		}
		return err
	})
}

func flagsLog(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.follow, "follow", false, "go on with what happens, until interrupted")
	fs.Func("since", "begin `TIME` ago: 10m, 1h, 2d", func(s string) (err error) {
		o.since, err = ago(s)
		return err
	})
	fs.Func("n", "the newest `N` lines", func(s string) (err error) {
		if o.lines, err = strconv.Atoi(s); err != nil || o.lines <= 0 || o.lines > control.MaxLogLines {
			err = fmt.Errorf("want a number from 1 to %d", control.MaxLogLines)
		}
		return err
	})
}

func flagRemove(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.remove, "remove", false, "when all is on disk, remove the messages from the queue")
}

func flagsSetup(fs *flag.FlagSet, o *options) {
	s := &o.setup
	fs.Func("provider", "the `PRESET` of a provider, as for relay.preset", text(&s.provider))
	fs.Func("host", "the smarthost: `HOST` or host:port", text(&s.host))
	fs.Func("username", "`NAME` to log in with", text(&s.username))
	fs.Func("password-file", "read the password from `FILE`, - is standard input", text(&s.passwordFile))
	fs.Func("client-id", "log in by OAuth, as the application that has this `ID`", text(&s.clientID))
	fs.Func("address", "the `ADDRESS` that mail is from", text(&s.address))
	fs.Func("to", "send a test mail to `ADDRESS`", text(&s.to))
	fs.Func("ca-file", "trust the certificates in `FILE` instead of the system's", text(&s.caFile))
	fs.BoolVar(&s.force, "force", false, "replace what is there, and keep it under another name")
	fs.BoolVar(&s.untested, "no-test", false, "do not connect to the smarthost")
}

func flagsImport(fs *flag.FlagSet, o *options) {
	fs.Func("secrets", "write passwords into files in `DIR`", text(&o.secrets))
	fs.BoolVar(&o.queue, "queue", false, "list the mail that waits there instead")
	fs.BoolVar(&o.remove, "remove", false, "with --queue, move the mail here")
}

// text sets a field that must not be empty: an empty variable in a script must not
// select everything.
func text(field *string) func(string) error {
	return func(s string) error {
		if s == "" {
			return fmt.Errorf("it is empty")
		}
		*field = s
		return nil
	}
}

func ago(s string) (time.Time, error) {
	var d config.Duration
	if err := d.UnmarshalText([]byte(s)); err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(-d.D()), nil
}

// parseUser reads a user by number or name.
func parseUser(s string) (uid int, err error) {
	digits := s
	if u, err := user.Lookup(s); err == nil {
		digits = u.Uid
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("no user %q: give the number", s)
	}
	return int(n), nil
}

// usage prints the flags of a command, one a line.
func (c *command) usage(w io.Writer) {
	fmt.Fprintf(w, "usage: postino %s\n\n%s.\n\n", strings.TrimSpace(c.name+" [FLAG ...] "+c.operands), upperFirst(c.about))
	fs := new(app).flagSet(c.name, new(options), c.flags)
	fs.VisitAll(func(f *flag.Flag) {
		value, about := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  %-18s %s\n", strings.TrimSpace("--"+f.Name+" "+value), about)
	})
}
