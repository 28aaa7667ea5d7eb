package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// postfixBox is a Postfix of its own, with a smarthost where nobody listens.
type postfixBox struct{ dir string }

func newPostfixBox(t testing.TB) *postfixBox {
	t.Helper()
	needsRoot(t)
	needs(t, "postqueue", "postfix")
	dir, err := os.MkdirTemp("", "postino-postfix")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postfixBox{dir: dir}
	config := "compatibility_level = 3.6\nmyhostname = box.test\nmydestination =\ninet_interfaces = loopback-only\nrelayhost = [127.0.0.1]:1\n" +
		"alias_maps =\nalias_database =\ncommand_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n" +
		"mail_owner = postfix\nsetgid_group = postdrop\n" + fmt.Sprintf("queue_directory = %s/spool\ndata_directory = %s/data\n", dir, dir)
	master, err := os.ReadFile("/usr/share/postfix/master.cf.dist")
	if err != nil {
		t.Fatal(err)
	}
	var services strings.Builder
	for line := range strings.Lines(string(master)) {
		if !strings.HasPrefix(line, "smtp ") || !strings.Contains(line, "inet") {
			services.WriteString(line)
		}
	}
	for _, sub := range []string{"", "etc", "spool", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"main.cf": config, "master.cf": services.String()} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "", "/bin/chown", "postfix", filepath.Join(dir, "data"))
	t.Cleanup(func() { _ = exec.Command("/usr/sbin/postfix", "-c", p.etc(), "stop").Run() })
	return p
}

func (p *postfixBox) etc() string { return filepath.Join(p.dir, "etc") }

func run(t testing.TB, stdin, path string, args ...string) string {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	// Not a pipe: what stays in the background would keep it open.
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, readErr := os.ReadFile(out.Name())
	if err != nil || readErr != nil {
		t.Fatalf("%s %q: %v, %v\n%s", path, args, err, readErr, text)
	}
	return string(text)
}

// Mail that waits in Postfix, deferred or not seen by it yet, is in our queue after the
// takeover with sender, recipients and content, and not in Postfix's.
func TestQueueOfPostfixIsTakenOver(t *testing.T) {
	t.Parallel()
	p := newPostfixBox(t)
	sendmail := needs(t, "sendmail", "postfix")
	s, b := plainRelay(t)
	run(t, "", "/usr/sbin/postfix", "-c", p.etc(), "start")
	run(t, "Subject: one\nFrom: a@corp.test\n\nhi\n.\nmore\n", sendmail, "-C", p.etc(), "-i", "-f", "alice@corp.test", "bob@example.org", "carol@example.org")
	run(t, "Subject: two\n\nhi\n", sendmail, "-C", p.etc(), "-i", "-f", "<>", "dora@example.org")
	poll(t, "two deferred messages", func() bool {
		return strings.Count(run(t, "", "/usr/sbin/postqueue", "-c", p.etc(), "-j"), `"queue_name": "deferred"`) == 2
	})
	refused := b.run(b.command("", program("postino"), "config", "import", "postfix", p.etc(), "--queue"))
	if refused.code == 0 || !strings.Contains(refused.err, "postfix is running") {
		t.Errorf("while Postfix runs: %+v", refused)
	}
	run(t, "", "/usr/sbin/postfix", "-c", p.etc(), "stop")
	run(t, "Subject: three\n\nhi\n", sendmail, "-C", p.etc(), "-i", "-f", "alice@corp.test", "erik@example.org")

	if got := b.postino("config", "import", "postfix", p.etc(), "--queue"); !strings.Contains(got, "3 messages there") {
		t.Errorf("listed:\n%s", got)
	}
	b.start()
	if got := b.postino("config", "import", "postfix", p.etc(), "--queue", "--remove"); !strings.Contains(got, "3 messages moved here") {
		t.Errorf("moved:\n%s", got)
	}
	b.log.awaitN(t, 3, "msg=finished")
	var all strings.Builder
	for _, m := range s.Messages() {
		fmt.Fprintf(&all, "%s %q\n%s\n", m.From, m.To, m.Data)
	}
	for _, want := range []string{"Subject: one\r\n", "hi\r\n.\r\nmore\r\n", "Subject: two\r\n", "Subject: three\r\n", "bob@example.org", "carol@example.org", "dora@example.org", "erik@example.org"} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("no %q in\n%s", want, all.String())
		}
	}
	if got := b.postino("config", "import", "postfix", p.etc(), "--queue", "--remove"); !strings.Contains(got, "0 messages moved here") {
		t.Errorf("a second time:\n%s", got)
	}
}

// A takeover that was cut short between storing a message and removing it there stores
// it once.
func TestMessageTakenOverTwiceIsOneMessage(t *testing.T) {
	t.Parallel()
	b := newBox(t, "mode = \"hold\"\n")
	b.start()
	dir := filepath.Join(b.dir, "nullmailer")
	file := filepath.Join(dir, "queue", "1795594795.306")
	at := time.Unix(1795594795, 0)
	for range 2 {
		text, err := os.ReadFile("../config/peer/testdata/queue/nullmailer/1795594795.306")
		if err == nil {
			err = os.MkdirAll(filepath.Dir(file), 0o755)
		}
		if err == nil {
			err = os.WriteFile(file, text, 0o600)
		}
		if err == nil {
			err = os.Chtimes(file, at, at)
		}
		if err != nil {
			t.Fatal(err)
		}
		b.postino("config", "import", "nullmailer", dir, "--queue", "--remove")
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("still there: %v", err)
		}
	}
	if got := strings.Count(b.postino("queue", "--json"), "\n"); got != 1 {
		t.Errorf("%d messages, want 1", got)
	}
}
