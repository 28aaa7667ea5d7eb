package cmd_test

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
)

// encoded is how AUTH has a text on the wire, but for a few characters at its
// ends, which depend on what stands beside it.
func encoded(text string) string {
	const around = 4
	s := base64.StdEncoding.EncodeToString([]byte(text))
	return s[around : len(s)-around]
}

// plainRelay is a box whose runner sends to a server that takes everything.
func plainRelay(t testing.TB, rules ...relaytest.Rule) (*relaytest.Server, *box) {
	t.Helper()
	s := relaytest.New(t, relaytest.Options{Rules: rules})
	return s, newBox(t, relayTo(s.Port()))
}

// s-nail names its mailer by a path, and gives sender and recipients as operands.
func TestSNailArrives(t *testing.T) {
	t.Parallel()
	nail := needs(t, "s-nail", "s-nail")
	s, b := plainRelay(t)
	b.start()
	b.succeed(b.command("line one\n.\nline three ümläut\n", nail, "-:/", "-S", "v15-compat", "-S", "mta="+b.front,
		"-S", "ttycharset=utf-8", "-S", "mime-encoding=8bit", "-S", "mta-bcc-ok", "-S", "from=me@web.test", "-s", "from s-nail", "-r", "me@web.test",
		"-c", "carol@example.org", "-b", "secret@example.org", "alice@example.org"))
	b.log.await(t, "msg=finished")
	m := messageWith(t, s, "from s-nail")
	if m == nil {
		t.Fatal("nothing arrived")
	}
	head, body := headerAndBody(t, m.Data)
	if m.From != "me@web.test" || strings.Join(m.To, " ") != "alice@example.org carol@example.org secret@example.org" {
		t.Errorf("from %s to %q", m.From, m.To)
	}
	if strings.Contains(head, "secret") || body != "line one\r\n.\r\nline three ümläut\r\n" {
		t.Errorf("what arrived: %s", m.Data)
	}
}

// inNamespace has a shell script run with our sendmail where the system has its
// own, which nobody outside sees. What the script starts ends with it.
func (b *box) inNamespace(script string, args ...string) *exec.Cmd {
	b.t.Helper()
	needsRoot(b.t)
	const system = "/usr/sbin/sendmail"
	if _, err := os.Stat(system); err != nil {
		servertest.Missing(b.t, "%v: some package has to bring it: apt-get install postfix", err)
	}
	mount := "set -e\nmount --make-rprivate /\nmount --bind '" + b.front + "' " + system + "\n"
	cmd := b.command("", "/bin/sh", append([]string{"-c", mount + script, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	return cmd
}

// bsd-mailx calls /usr/sbin/sendmail and nothing else.
func TestBSDMailxArrives(t *testing.T) {
	t.Parallel()
	mailx := needs(t, "bsd-mailx", "bsd-mailx")
	s, b := plainRelay(t)
	b.start()
	cmd := b.inNamespace(`exec "$@"`, mailx, "-n", "-s", "from bsd-mailx", "-a", "From: me@web.test",
		"-c", "carol@example.org", "alice@example.org", "bob@example.org")
	cmd.Stdin = strings.NewReader("hello\n")
	b.succeed(cmd)
	b.log.await(t, "msg=finished")
	m := messageWith(t, s, "from bsd-mailx")
	if m == nil {
		t.Fatal("nothing arrived")
	}
	_, body := headerAndBody(t, m.Data)
	if strings.Join(m.To, " ") != "alice@example.org bob@example.org carol@example.org" || body != "hello\r\n" {
		t.Errorf("to %q: %q", m.To, body)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "dead.letter")); err == nil {
		t.Error("a dead.letter was left")
	}
}
