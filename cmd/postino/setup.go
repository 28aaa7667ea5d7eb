package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postino/config"
	"postino/delivery/relay"
	"postino/spool"
	"postino/spool/address"
)

// checkWait bounds the test of a relay: whoever waits for it is a person.
const checkWait = time.Minute

// setup is what the flags, or the answers, say.
type setup struct {
	provider string // a preset; empty is a smarthost of its own
	host     string // host or host:port
	username string
	password string
	address  string // that mail is from
	to       string // who gets the test mail; "-" is nobody
	caFile   string
	clientID string // of OAuth, which then stands in for the password
	// passwordFile is where the password is read from instead.
	passwordFile    string
	force, untested bool
}

// runSetup is the setup command: it makes a configuration for a smarthost, tries it,
// writes it and sends a mail by it.
func runSetup(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError("setup takes no operands")
	}
	if os.Geteuid() != 0 && a.config == defaultConfig {
		return &exitError{status: exNoPerm, err: fmt.Errorf("%s is root's to write: call it as root, or for a postino of your own: postino --user setup", a.config)}
	}
	s := o.setup
	q := questions{a: a, asking: isTerminal(a.stdin)}
	if err := q.complete(&s); err != nil {
		return err
	}
	text, password, err := a.setupText(&s)
	if err != nil {
		return err
	}
	c, err := config.Parse(a.config, []byte(text))
	if err != nil {
		return &exitError{status: exConfig, err: err}
	}
	if err := a.mayReplace(&q, &s, text, password); err != nil {
		return err
	}
	if !s.untested && s.clientID == "" {
		if err := a.trySetup(ctx, &q, c, config.Secret(s.password)); err != nil {
			return err
		}
	}
	if err := a.writeSetup(text, password, s.password); err != nil {
		return err
	}
	if err := a.userEnvironment(); err != nil {
		return err
	}
	if s.clientID != "" {
		a.say("mail waits until somebody allows it: postino auth login; then postino doctor")
		return nil
	}
	return a.testMail(ctx, &s)
}

// say prints a line for the person at once.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.stdout, spool.CleanText(fmt.Sprintf(format, args...)))
}

// setupText is the configuration for what was said, and the file for its password,
// empty when there is none.
func (a *app) setupText(s *setup) (text, passwordFile string, err error) {
	sender, err := address.Parse(s.address)
	if err != nil || sender.Domain == "" {
		return "", "", usageError("--address %q: want the address that mail is from, such as web@example.com", s.address)
	}
	var b strings.Builder
	line := func(key string, value any) { b.WriteString(config.Line(key, value) + "\n") }
	fmt.Fprintf(&b, "# Made by postino setup; postino.toml(5) has all that may stand here.\n")
	line("domain", sender.Domain)
	b.WriteString("\n[relay]\n")
	if s.provider != "" {
		line("preset", s.provider)
	}
	if s.host != "" {
		host, port, err := splitHost(s.host)
		if err != nil {
			return "", "", err
		}
		line("host", host)
		if port != 0 {
			line("port", port)
		}
		if s.provider == "" && port == 465 {
			line("tls", "implicit")
		}
		if s.provider == "" && s.username == "" && isLoopbackHost(host) {
			line("tls", "opportunistic")
		}
	}
	if s.caFile != "" {
		line("ca_file", s.caFile)
	}
	if s.username != "" && s.username != fixedUsername(s.provider) {
		line("username", s.username)
	}
	switch {
	case s.clientID != "":
		b.WriteString("\n[relay.oauth]\n")
		line("client_id", s.clientID)
	case s.username != "":
		passwordFile = filepath.Join(a.secrets(), "relay.password")
		line("password_file", passwordFile)
	}
	return b.String(), passwordFile, nil
}

// secrets is the directory for passwords beside the configuration.
func (a *app) secrets() string {
	path, err := filepath.Abs(a.config)
	if err != nil {
		path = defaultConfig
	}
	return filepath.Join(filepath.Dir(path), "secrets")
}

// splitHost cuts "host", "host:port" and "[address]:port"; 0 is no port.
func splitHost(s string) (host string, port int, err error) {
	host, service, err := net.SplitHostPort(s)
	if err != nil {
		return strings.Trim(s, "[]"), 0, nil
	}
	if port, err = strconv.Atoi(service); err != nil || port < 1 || port > 65535 {
		return "", 0, usageError("%q: %q is not a port", s, service)
	}
	return host, port, nil
}

func isLoopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func fixedUsername(provider string) string {
	for _, p := range config.Providers() {
		if p.Name == provider {
			return p.Username
		}
	}
	return ""
}

// mayReplace asks, or wants --force, where a configuration or a password that is
// another is in the way.
func (a *app) mayReplace(q *questions, s *setup, text, password string) error {
	if s.force {
		return nil
	}
	for path, new := range map[string]string{a.config: text, password: s.password + "\n"} {
		old, err := os.ReadFile(path)
		if path == "" || errors.Is(err, fs.ErrNotExist) || err == nil && string(old) == new {
			continue
		}
		if err != nil {
			return err
		}
		yes, err := q.yes(fmt.Sprintf("%s is there already. Replace it, and keep the old one under another name?", path))
		if err != nil {
			return err
		}
		if !yes {
			return &exitError{status: exCantCreate, err: fmt.Errorf("%s is there already: --force replaces it and keeps the old one under another name", path)}
		}
	}
	return nil
}

// trySetup goes as far with the relay as mail would. Nothing is written yet.
func (a *app) trySetup(ctx context.Context, q *questions, c *config.Config, password config.Secret) error {
	try := *c.Relay
	if try.PasswordFile != "" {
		try.PasswordFile, try.Password = "", password
	}
	r, err := relay.New(&try, c.Timeouts, hostname(), nil)
	if err != nil {
		return err
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	var failed error
	for i, reply := range r.Check(ctx) {
		if reply.Class() == spool.Success {
			a.say("%s: %s (%s)", reply.Host, reply.Text, firstOf(reply.TLS, "no TLS"))
			continue
		}
		text := fmt.Sprintf("%s: %s", firstOf(reply.Host, net.JoinHostPort(try.Host[i], strconv.Itoa(try.Port))), reply.Text)
		if reply.Code != 0 {
			text = fmt.Sprintf("%s: %d %s %s", reply.Host, reply.Code, reply.Status, reply.Text)
		}
		failed = errors.Join(failed, errors.New(text))
		if reply.Remedy != "" {
			failed = fmt.Errorf("%w: %s", failed, reply.Remedy)
		}
	}
	if failed == nil {
		return nil
	}
	a.report(failed)
	yes, err := q.yes("Write the configuration all the same?")
	if err != nil {
		return err
	}
	if !yes {
		return &exitError{status: exFailure, err: errors.New("nothing was written: mend that, or say --no-test")}
	}
	return nil
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// writeSetup writes the password first: a configuration that names it must not come
// before it.
func (a *app) writeSetup(text, passwordFile, password string) error {
	if passwordFile != "" {
		if err := os.MkdirAll(filepath.Dir(passwordFile), 0o755); err != nil {
			return &exitError{status: exCantCreate, err: err}
		}
		if err := a.replace(passwordFile, password+"\n", 0o600); err != nil {
			return err
		}
		a.say("wrote %s, which the runner alone can read", passwordFile)
	}
	if err := os.MkdirAll(filepath.Dir(a.config), 0o755); err != nil {
		return &exitError{status: exCantCreate, err: err}
	}
	if err := a.replace(a.config, text, 0o644); err != nil {
		return err
	}
	a.say("wrote %s", a.config)
	return nil
}

// replace writes a file in one step, and keeps what was there under a name with the
// time in it. A secret belongs to the runner's user.
func (a *app) replace(path, text string, mode fs.FileMode) error {
	old, err := os.ReadFile(path)
	if err == nil && string(old) == text {
		return nil
	}
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a call that was cut short
		return err
	}
	if err := a.writeKey(next, []byte(text)); err != nil {
		return err
	}
	err = nil
	if mode != 0o600 {
		err = openUp(next, mode)
	}
	if _, there := os.Lstat(path); there == nil && err == nil {
		kept := path + ".before." + time.Now().UTC().Format("20060102T150405Z")
		if err = os.Rename(path, kept); err == nil {
			a.say("kept the old one as %s", kept)
		}
	}
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return &exitError{status: exCantCreate, err: err}
	}
	return syncDir(filepath.Dir(path))
}

// openUp lets others read a file, which becomes root's where we are root: what root reads
// is root's to write. It is not where a link leads that somebody has put there meanwhile.
func openUp(path string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if os.Geteuid() == 0 {
		err = f.Chown(0, 0)
	}
	return errors.Join(err, f.Chmod(mode))
}

// readSecret is the first line of a file, or of standard input for "-".
func (a *app) readSecret(path string) (string, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	const most = 64 << 10 // as password_file
	text, err := io.ReadAll(io.LimitReader(in, most))
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), err
}
