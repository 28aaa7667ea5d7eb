package cmd_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
	"postino/spool/standstill"
)

// A person answers questions, sees no secret, and mail goes out: with nothing but a
// spool directory before.
func TestSetupOnATerminalSendsMail(t *testing.T) {
	t.Parallel()
	standstill.Steady(t, setupOnATerminalSendsMail)
}

func setupOnATerminalSendsMail(t testing.TB) {
	s := relaytest.New(t, relaytest.Options{TLS: relaytest.StartTLS, Users: map[string]string{"box@corp.test": "ge heim"}})
	b := newBox(t, "")
	b.front = program("sendmail")
	b.config = filepath.Join(b.dir, "etc", "postino.toml")
	term := onTerminal(t, b.command("", program("postino"), "setup", "--ca-file", s.CAFile()))
	term.answer("another smarthost): ", "nosuch")
	term.answer("another smarthost): ", "")
	term.answer("Host (host or host:port): ", fmt.Sprintf("127.0.0.1:%d", s.Port()))
	term.answer("User name: ", "box@corp.test")
	term.answer("Password (of box@corp.test) (is not shown): ", "ge heim")
	term.answer("Address that mail is from [box@corp.test]: ", "")
	term.answer(`Send a test mail to ("-" for none) [box@corp.test]: `, "bob@example.org")
	if code := term.end(); code != 0 {
		t.Fatalf("ended with %d:\n%s", code, term.said)
	}
	poll(t, "the outcome", func() bool { return strings.Contains(term.said.String(), "bob@example.org: relayed: 2.") })
	said := term.said.String()
	for _, want := range []string{`"nosuch" is not a preset`, "ready for mail after AUTH as box@corp.test (TLS1.3 verified)", "wrote " + b.config} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if strings.Contains(said, "ge heim") {
		t.Errorf("the password is shown:\n%s", said)
	}
	got := s.Messages()
	if len(got) != 1 || got[0].User != "box@corp.test" || got[0].From != "box@corp.test" || !got[0].TLS || got[0].To[0] != "bob@example.org" {
		t.Errorf("arrived: %+v", got)
	}
	secret := filepath.Join(b.dir, "etc", "secrets", "relay.password")
	text, err := os.ReadFile(secret)
	info, statErr := os.Stat(secret)
	if err = errors.Join(err, statErr); err != nil || string(text) != "ge heim\n" || info.Mode().Perm() != 0o600 {
		t.Errorf("%q, %v, %v", text, info, err)
	}
	if got := b.postino("config", "check"); !strings.Contains(got, "ok") {
		t.Error(got)
	}
}

// By flags nothing is asked; what fails writes nothing, and nothing is written over
// without a word.
func TestSetupByFlagsAsksNothing(t *testing.T) {
	t.Parallel()
	standstill.Steady(t, setupByFlagsAsksNothing)
}

func setupByFlagsAsksNothing(t testing.TB) {
	s := relaytest.New(t, relaytest.Options{TLS: relaytest.StartTLS, Users: map[string]string{"u": "geheim"}})
	b := newBox(t, "")
	b.front = program("sendmail")
	b.config = filepath.Join(b.dir, "etc", "postino.toml")
	call := func(password string, more ...string) result {
		t.Helper()
		args := append([]string{"setup", "--host", fmt.Sprintf("127.0.0.1:%d", s.Port()), "--username", "u", "--password-file", "-",
			"--address", "web@corp.test", "--ca-file", s.CAFile()}, more...)
		return b.run(b.command(password+"\n", program("postino"), args...))
	}
	if r := call("wrong"); r.code != 1 || !strings.Contains(r.err, "535 ") || !strings.Contains(r.err, "nothing was written") || strings.Contains(r.out+r.err, "wrong") {
		t.Errorf("a wrong password: %+v", r)
	}
	if _, err := os.Stat(filepath.Dir(b.config)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
	if r := call("geheim", "--to", "bob@example.org"); r.code != 0 || r.err != "" || !strings.Contains(r.out, "bob@example.org: relayed") {
		t.Fatalf("by flags: %+v", r)
	}
	if r := call("geheim"); r.code != 0 {
		t.Errorf("the same once more: %+v", r)
	}
	before, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if r := call("geheim", "--address", "web@other.test"); r.code != 73 || !strings.Contains(r.err, "is there already: --force replaces it") {
		t.Errorf("another configuration: %+v", r)
	}
	if now, err := os.ReadFile(b.config); err != nil || string(now) != string(before) {
		t.Errorf("it was changed to %s, %v", now, err)
	}
	if r := call("geheim", "--address", "web@other.test", "--force"); r.code != 0 || !strings.Contains(r.out, "kept the old one as ") {
		t.Errorf("by force: %+v", r)
	}
	kept, err := filepath.Glob(b.config + ".before.*")
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	if old, err := os.ReadFile(kept[0]); err != nil || string(old) != string(before) {
		t.Errorf("kept %s, %v", old, err)
	}
	if r := call("geheim", "--provider", "m365", "--host", "smtp.office365.com", "--client-id", "1234-5678", "--force"); r.code != 0 || !strings.Contains(r.out, "postino auth login") {
		t.Errorf("by OAuth: %+v", r)
	}
	if got := b.postino("config", "show"); !strings.Contains(got, `client_id = "1234-5678"`) || strings.Contains(got, "password_file") {
		t.Errorf("by OAuth:\n%s", got)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--provider", "m365", "--username", "u@corp.test"}, "--client-id is missing"},
		{nil, "say --provider or --host"},
		{[]string{"--provider", "gmai"}, `"gmai" is not a preset`},
		{[]string{"--provider", "ses"}, "--host is missing"},
		{[]string{"--provider", "gmail"}, "--username is missing"},
		{[]string{"--provider", "sendgrid"}, "--password-file is missing"},
		{[]string{"--host", "h.test"}, "--address is missing"},
		{[]string{"--host", "h.test", "--address", "web"}, "want the address that mail is from"},
		{[]string{"--host", "h.test:0", "--address", "a@b.test"}, "is not a port"},
	} {
		if r := b.run(b.command("", program("postino"), append([]string{"setup"}, tt.args...)...)); r.code != 64 || !strings.Contains(r.err, tt.want) {
			t.Errorf("%q: %+v, want %q", tt.args, r, tt.want)
		}
	}
}

// A person's own postino is below the home, and the sessions to come find it.
func TestUserHasConfigurationAndSpoolOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := relaytest.New(t, relaytest.Options{TLS: relaytest.StartTLS, Users: map[string]string{"u@corp.test": "geheim"}})
	b := newBox(t, "")
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + b.dir}
	setup := b.command("geheim\n", program("postino"), "--user", "setup", "--host", fmt.Sprintf("127.0.0.1:%d", s.Port()), "--username", "u@corp.test",
		"--password-file", "-", "--ca-file", s.CAFile(), "--to", "bob@example.org")
	setup.Env = env
	if r := b.run(setup); r.code != 0 || r.err != "" || !strings.Contains(r.out, "bob@example.org: relayed") {
		t.Fatalf("setup: %+v", r)
	}
	session, err := os.ReadFile(filepath.Join(b.dir, ".config/environment.d/60-postino.conf"))
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, strings.Fields(string(session))...)
	// sendmail as the session calls it, without a service.
	mail := b.command("Subject: hi\n\nhi\n", program("sendmail"), "-f", "u@corp.test", "carol@example.org")
	mail.Env = env
	b.succeed(mail)
	poll(t, "the mail", func() bool { return len(s.Messages()) == 2 })
	queue := b.command("", program("postino"), "--user", "trace", "carol@example.org")
	queue.Env = env[:2]
	if r := b.run(queue); r.code != 0 || !strings.Contains(r.out, "carol@example.org") {
		t.Errorf("trace: %+v", r)
	}
	if got, err := os.ReadDir(b.spool); err != nil || len(got) > 0 {
		t.Errorf("the system's spool was used: %v, %v", got, err)
	}
	nobody := b.command("", program("postino"), "--user", "queue")
	nobody.Env = []string{"PATH=/usr/bin:/bin"}
	if r := b.run(nobody); r.code != 64 || !strings.Contains(r.err, "HOME is not set") {
		t.Errorf("without a home: %+v", r)
	}
	missing := b.command("", program("postino"), "--user", "run", "--until-empty")
	missing.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + filepath.Join(b.dir, "other")}
	if r := b.run(missing); r.code != 78 {
		t.Errorf("without a configuration mail would go directly: %+v", r)
	}
}
