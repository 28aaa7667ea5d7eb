package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"postino/config"
	"postino/spool/address"
)

// questions asks a person on a terminal; where nobody can answer, nothing is asked.
type questions struct {
	a      *app
	asking bool
}

// maxAnswer bounds an answer, in octets.
const maxAnswer = 4096

// line asks for a line; otherwise is what an empty one means.
func (q *questions) line(question, otherwise string) (string, error) {
	if otherwise != "" {
		question += " [" + otherwise + "]"
	}
	fmt.Fprintf(q.a.stdout, "%s: ", question)
	text, err := readLine(q.a.stdin)
	if err != nil {
		return "", err
	}
	if text = strings.TrimSpace(text); text == "" {
		text = otherwise
	}
	return text, nil
}

// readLine reads a line and no more: what follows may be the next answer.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for one := make([]byte, 1); len(line) < maxAnswer; {
		switch _, err := io.ReadFull(r, one); {
		case err != nil:
			return "", usageError("no answer: nothing was changed")
		case one[0] == '\n':
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		line = append(line, one[0])
	}
	return "", usageError("the answer is too long")
}

// yes asks; where nobody can answer it is no.
func (q *questions) yes(question string) (bool, error) {
	if !q.asking {
		return false, nil
	}
	answer, err := q.line(question+" (yes/no)", "no")
	return err == nil && strings.HasPrefix("yes", strings.ToLower(answer)), err
}

// secret asks for a line that the terminal does not show.
func (q *questions) secret(question string) (string, error) {
	f, ok := q.a.stdin.(*os.File)
	if !ok {
		return "", errors.New("no terminal")
	}
	fd := int(f.Fd())
	shown, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	hidden := *shown
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ECHONL
	// A terminal that shows nothing is no good to leave behind.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(stop)
	fmt.Fprintf(q.a.stdout, "%s (is not shown): ", question)
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &hidden); err != nil {
		return "", err
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, shown)
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := readLine(q.a.stdin)
		got <- answer{text, err}
	}()
	select {
	case r := <-got:
		return r.text, r.err
	case <-stop:
		return "", usageError("interrupted: nothing was changed")
	}
}

// complete asks for what the flags did not say, or says which flag is missing.
func (q *questions) complete(s *setup) error {
	if err := q.chooseProvider(s); err != nil {
		return err
	}
	p, err := providerOf(s.provider)
	if err != nil {
		return err
	}
	if s.host == "" && p.Host == "" {
		form := firstOf(p.HostForm, "host or host:port")
		if s.host, err = q.need("--host", "Host ("+form+")", ""); err != nil {
			return err
		}
	}
	if err := q.login(s, p); err != nil {
		return err
	}
	guess := ""
	if isMailAddress(s.username) {
		guess = s.username
	}
	if s.address == "" {
		if s.address = guess; q.asking || guess == "" {
			if s.address, err = q.need("--address", "Address that mail is from", guess); err != nil {
				return err
			}
		}
	}
	if s.to == "" && q.asking && s.clientID == "" {
		s.to, err = q.line(`Send a test mail to ("-" for none)`, s.address)
	}
	return err
}

func isMailAddress(s string) bool {
	a, err := address.Parse(s)
	return err == nil && a.Domain != ""
}

// need asks for what has to be said.
func (q *questions) need(flag, question, otherwise string) (string, error) {
	if !q.asking {
		return "", usageError("setup: %s is missing: %s", flag, question)
	}
	for {
		text, err := q.line(question, otherwise)
		if err != nil || text != "" {
			return text, err
		}
	}
}

func (q *questions) chooseProvider(s *setup) error {
	if s.provider != "" || s.host != "" {
		return nil
	}
	if !q.asking {
		return usageError("setup: say --provider or --host, or call it on a terminal")
	}
	list := config.Providers()
	for i, p := range list {
		q.a.say("%3d  %-14s %s", i+1, p.Name, firstOf(p.Host, p.HostForm))
	}
	for {
		text, err := q.line("Provider (number or name, nothing for another smarthost)", "")
		if err != nil {
			return err
		}
		if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= len(list) {
			text = list[n-1].Name
		}
		if _, err := providerOf(text); err != nil {
			q.a.say("%v", err)
			continue
		}
		s.provider = text
		return nil
	}
}

// providerOf finds a preset; the empty name is that of no provider.
func providerOf(name string) (config.Provider, error) {
	for _, p := range config.Providers() {
		if p.Name == name || name == "" {
			if name == "" {
				return config.Provider{}, nil
			}
			return p, nil
		}
	}
	var preset config.Preset
	return config.Provider{}, usageError("%v", preset.UnmarshalText([]byte(name)))
}

// login asks for user name and password, as the provider calls them.
func (q *questions) login(s *setup, p config.Provider) error {
	var err error
	switch p.Auth {
	case config.AuthNone:
		return nil
	case config.AuthXOAUTH2, config.AuthOAuthBearer:
		if s.clientID == "" {
			if s.clientID, err = q.need("--client-id", "ID of the application that you registered there", ""); err != nil {
				return err
			}
		}
	}
	what := "User name"
	if p.Login != "" {
		what += " (" + p.Login + ")"
	}
	switch {
	case s.username != "":
	case p.Username != "":
		s.username = p.Username
	case q.asking:
		if s.username, err = q.line(what, ""); err != nil {
			return err
		}
	case p.Name != "" && p.Name != "gmail-relay":
		return usageError("setup: --username is missing: %s", what)
	}
	if s.username == "" {
		return nil // a smarthost that asks nobody who they are
	}
	switch {
	case s.clientID != "":
		return nil
	case s.passwordFile != "":
		s.password, err = q.a.readSecret(s.passwordFile)
	case q.asking:
		s.password, err = q.secret("Password (" + firstOf(p.Login, "of "+s.username) + ")")
	default:
		return usageError("setup: --password-file is missing: the file that has the password, or - for standard input")
	}
	if err == nil && s.password == "" {
		err = usageError("the password is empty: nothing was changed")
	}
	return err
}
