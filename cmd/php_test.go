package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
)

const (
	relayUser     = "web@relay.test"
	relayPassword = "correct horse 4711"
)

// submissionServer is a smarthost as providers have them: STARTTLS, then AUTH.
func submissionServer(t testing.TB) *relaytest.Server {
	return relaytest.New(t, relaytest.Options{
		TLS:   relaytest.StartTLS,
		Users: map[string]string{relayUser: relayPassword},
	})
}

// relayWithLogin is the configuration for it.
func relayWithLogin(s *relaytest.Server, password string) string {
	return fmt.Sprintf("[relay]\nhost = %q\nport = %d\ntls = \"starttls\"\nca_file = %q\nusername = %q\npassword = %q\n",
		s.Host(), s.Port(), s.CAFile(), relayUser, password)
}

// php is a call of mail() with these arguments, as PHP writes them, in a process
// of its own.
func (b *box) php(arguments string, settings ...string) *exec.Cmd {
	b.t.Helper()
	args := []string{"-n", "-d", "sendmail_path=" + b.front + " -t -i", "-d", "display_errors=stderr"}
	for _, s := range settings {
		args = append(args, "-d", s)
	}
	code := "exit(mail(" + arguments + ") === true ? 0 : 3);"
	return b.command("", needs(b.t, "php", "php-cli"), append(args, "-r", code)...)
}

// What PHP's mail() is given arrives whole, by STARTTLS and AUTH, with each mix of
// line ends that versions of PHP and programs in it write.
func TestPHPMailArrives(t *testing.T) {
	t.Parallel()
	s := submissionServer(t)
	b := newBox(t, relayWithLogin(s, relayPassword))
	b.start()
	for i, tt := range []struct {
		name      string
		arguments string
		settings  []string
		from, cc  string // of the envelope; header field
		body      string
	}{
		{
			name:      "two arguments less than usual, CRLF header and LF body",
			arguments: `"alice@example.org", "PHP 0", "one\n.\ntwo\n"`,
			from:      "", body: "one\r\n.\r\ntwo\r\n\r\n",
		},
		{
			name:      "fifth argument",
			arguments: `"alice@example.org", "PHP 1", "hi", "From: Shop <shop@web.test>\r\nCc: bob@example.org", "-fbounces@shop.test"`,
			from:      "bounces@shop.test", cc: "bob@example.org", body: "hi\r\n",
		},
		{
			name:      "LF between the header fields, CRLF in the body",
			arguments: `"alice@example.org", "PHP 2", "one\r\n\r\ntwo\nthree\r\n", "From: shop@web.test\nCc: bob@example.org\nX-Mix: yes", "-f shop@web.test"`,
			from:      "shop@web.test", cc: "bob@example.org", body: "one\r\n\r\ntwo\r\nthree\r\n\r\n",
		},
		{
			name:      "LF only, as PHP before 8.0 wrote",
			arguments: `"alice@example.org", "PHP 3", "one\ntwo", ["From" => "shop@web.test", "Cc" => "bob@example.org"]`,
			settings:  []string{"mail.mixed_lf_and_crlf=On"},
			from:      "", cc: "bob@example.org", body: "one\r\ntwo\r\n",
		},
	} {
		b.succeed(b.php(tt.arguments, tt.settings...))
		subject := fmt.Sprintf("PHP %d", i)
		b.log.awaitN(t, i+1, "msg=finished")
		m := messageWith(t, s, subject)
		if m == nil {
			t.Errorf("%s: nothing arrived", tt.name)
			continue
		}
		head, body := headerAndBody(t, m.Data)
		if body != tt.body {
			t.Errorf("%s: body %q, want %q", tt.name, body, tt.body)
		}
		if tt.from != "" && m.From != tt.from {
			t.Errorf("%s: MAIL FROM:<%s>, want <%s>", tt.name, m.From, tt.from)
		}
		if want := strings.TrimSuffix("alice@example.org "+tt.cc, " "); strings.Join(m.To, " ") != want {
			t.Errorf("%s: to %q, want %s", tt.name, m.To, want)
		}
		if got := value(t, head, "Cc"); got != tt.cc {
			t.Errorf("%s: Cc %q, want %q", tt.name, got, tt.cc)
		}
		if value(t, head, "From") == "" || value(t, head, "Message-ID") == "" || value(t, head, "Date") == "" {
			t.Errorf("%s: From, Message-ID or Date is missing: %s", tt.name, head)
		}
		if !m.TLS || m.User != relayUser {
			t.Errorf("%s: TLS %v, user %q", tt.name, m.TLS, m.User)
		}
		if strings.Count(string(m.Data), "\n") != strings.Count(string(m.Data), "\r\n") || strings.Count(string(m.Data), "\r") != strings.Count(string(m.Data), "\r\n") {
			t.Errorf("%s: not all line ends are CRLF: %q", tt.name, m.Data)
		}
	}
	b.empty()
}

// messageWith is the one message with that subject that a server took, nil when
// there is none.
func messageWith(t testing.TB, s *relaytest.Server, subject string) *relaytest.Message {
	t.Helper()
	var found *relaytest.Message
	for _, m := range s.Messages() {
		head, _ := headerAndBody(t, m.Data)
		if value(t, head, "Subject") == subject {
			if found != nil {
				t.Errorf("%s arrived more than once", subject)
			}
			found = &m
		}
	}
	return found
}

// A site does not notice that the runner is away, and its mail goes out once:
// from drop/ when the runner comes, and from the spool when it comes again.
func TestPHPMailOutlivesTheRunner(t *testing.T) {
	t.Parallel()
	s := submissionServer(t)
	b := newBox(t, relayWithLogin(s, relayPassword)+"[retry]\nfirst = \"1s\"\nmax = \"1s\"\n")

	b.succeed(b.php(`"alice@example.org", "while down", "hello"`))
	if n := b.drops(); n != 1 {
		t.Fatalf("%d files in drop/, want 1", n)
	}
	if m := b.one(); m.status("alice@example.org") != "queued" {
		t.Errorf("without a runner the queue is %+v", m)
	}
	r := b.start()
	b.log.await(t, "msg=finished")
	poll(t, "an empty drop/", func() bool { return b.drops() == 0 })
	if m := b.trace("while down"); m.Via != "drop" || m.UID != os.Getuid() {
		t.Errorf("trace: via %q uid %d, want drop and our uid", m.Via, m.UID)
	}

	s.SetRules(relaytest.Rule{At: "MAIL", Reply: "451 4.3.0 come back later"})
	b.succeed(b.php(`"alice@example.org", "while busy", "hello"`))
	b.log.await(t, "msg=attempt", "status=deferred")
	r.stop()
	b.succeed(b.php(`"alice@example.org", "between", "hello"`))
	s.SetRules()
	b.start()
	b.log.awaitN(t, 3, "msg=finished")
	for _, subject := range []string{"while down", "while busy", "between"} {
		if messageWith(t, s, subject) == nil {
			t.Errorf("%q did not arrive", subject)
		}
	}
	if n := len(s.Messages()); n != 3 {
		t.Errorf("%d messages arrived, want 3", n)
	}
	b.empty()
}

// A wrong password is the operator's slip: mail waits, and nothing anybody can
// read has the password in it, right or wrong.
func TestWrongPasswordDefersAndStaysSecret(t *testing.T) {
	t.Parallel()
	const wrong = "battery staple 0815"
	s := submissionServer(t)
	b := newBox(t, relayWithLogin(s, wrong)+"[retry]\nfirst = \"1h\"\nmax = \"1h\"\n")
	r := b.start()
	b.succeed(b.php(`"alice@example.org", "waits", "hello"`))
	b.log.await(t, "msg=attempt", "status=deferred")
	m := b.one()
	re := m.Recipients[0].Reply
	if m.status("alice@example.org") != "deferred" || re == nil || !strings.HasPrefix(re.Status, "4.") {
		t.Errorf("after a wrong password: %+v %+v, want deferred with a status 4.x.x", m, re)
	}
	said := b.log.String() + b.postino("queue") + b.postino("queue", "--json") + b.postino("show", m.ID) +
		b.postino("trace", "--json", m.ID) + b.postino("trace", m.ID) + b.postino("config", "show")
	b.configure(relayWithLogin(s, relayPassword))
	r.reload("configuration reloaded")
	b.postino("retry", "--all")
	b.log.await(t, "msg=finished")
	if messageWith(t, s, "waits") == nil {
		t.Error("with the right password it did not arrive")
	}
	said += b.log.String() + b.postino("trace", m.ID)
	for _, secret := range []string{wrong, relayPassword, encoded(wrong), encoded(relayPassword)} {
		if strings.Contains(said, secret) {
			t.Errorf("%q can be read in what is printed:\n%s", secret, said)
		}
	}
	if files, err := filepath.Glob(filepath.Join(b.spool, "*.log*")); err != nil || len(files) != 0 {
		t.Errorf("log files %q, %v: want none beside a runner that has a standard error", files, err)
	}
}
