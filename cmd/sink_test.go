package cmd_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"postino/delivery/relay/servertest"
)

// sink is Postfix's smtp-sink, a server that is not ours; each message becomes a
// file.
type sink struct {
	dir  string
	port int
}

// startSink starts a sink that ends with the test.
func startSink(t testing.TB) *sink {
	t.Helper()
	path := needs(t, "smtp-sink", "postfix")
	dir, err := os.MkdirTemp("", "postino-sink")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s := &sink{dir: dir}
	// The port has to be chosen by us, and another process may be faster.
	for range 5 {
		if s.port = servertest.FreePort(t); s.serve(t, path) {
			return s
		}
	}
	t.Fatal("smtp-sink: no port to listen on")
	return nil
}

// serve starts the sink and reports whether it could listen.
func (s *sink) serve(t testing.TB, path string) bool {
	t.Helper()
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	args := []string{"-d", filepath.Join(s.dir, "%s."), addr, "100"}
	if os.Geteuid() == 0 {
		args = append([]string{"-u", "nobody"}, args...)
	}
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed in the end
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	listening := false
	poll(t, "smtp-sink", func() bool {
		select {
		case <-done:
			return true
		default:
		}
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			listening = true
		}
		return listening
	})
	return listening
}

// sunk is a message as the sink wrote it down.
type sunk struct {
	mail, helo string
	rcpt       []string
	content    string // in LF lines
}

// messages are those that have arrived.
func (s *sink) messages(t testing.TB) []sunk {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var list []sunk
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, parseSunk(string(text)))
	}
	return list
}

// parseSunk takes the sink's own lines off: the envelope, a Received field of
// three lines, and an empty line at the end.
func parseSunk(text string) sunk {
	var m sunk
	for {
		line, rest, _ := strings.Cut(text, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "X-Client-Addr", "X-Client-Proto":
		case "X-Helo-Args":
			m.helo = value
		case "X-Mail-Args":
			m.mail = value
		case "X-Rcpt-Args":
			m.rcpt = append(m.rcpt, value)
		case "Received":
			m.content = strings.TrimSuffix(strings.SplitN(text, "\n", 4)[3], "\n")
			return m
		default:
			return m
		}
		text = rest
	}
}

// What is sent is what was given, but for the fields that a submission gets and
// the one that it loses. The lines stand in order, and none is unaccounted for.
func TestDeliveredBytesAreThoseSubmitted(t *testing.T) {
	t.Parallel()
	s := startSink(t)
	b := newBox(t, relayTo(s.port))
	r := b.start()
	const given = "Subject: =?utf-8?q?gr=C3=BCezi?=\n" +
		"To: Alice <alice@example.org>, bob@example.org\n" +
		"Bcc: secret@example.org,\n  hidden@example.net\n" +
		"X-Folded: one\n\ttwo  three \n" +
		"\n" +
		"first line\n.\n..two dots\n \nüml\u00e4ut, then no line end"
	b.sendmail(given, "-t", "-i", "-f", "sender@web.test", "-F", "The Sender")
	b.log.await(t, "msg=finished")
	r.stop()

	list := s.messages(t)
	if len(list) != 1 {
		t.Fatalf("%d messages arrived, want 1", len(list))
	}
	got := list[0]
	if got.helo != "web.test" || !strings.HasPrefix(got.mail, "<sender@web.test>") {
		t.Errorf("EHLO %s, MAIL %s", got.helo, got.mail)
	}
	if want := "<alice@example.org> <bob@example.org> <secret@example.org> <hidden@example.net>"; strings.Join(got.rcpt, " ") != want {
		t.Errorf("recipients %q, want %s", got.rcpt, want)
	}
	id := b.trace("sender@web.test").ID
	const date = `[A-Z][a-z]{2},\s+\d{1,2}\s+[A-Z][a-z]{2}\s+\d{4}\s+\d\d:\d\d:\d\d\s+[+-]\d{4}` // folded anywhere
	const q = `\Q`                                                                               // up to \E a pattern is taken as it stands
	want := `\AReceived: by web\.test \(postino, from userid ` + strconv.Itoa(os.Getuid()) + `\)\s+id ` + id + `;\s+` + date + "\n" +
		q + "Subject: =?utf-8?q?gr=C3=BCezi?=\nTo: Alice <alice@example.org>, bob@example.org\nX-Folded: one\n\ttwo  three \n" + `\E` +
		`From: "?The Sender"? <sender@web\.test>` + "\n" +
		`Date: ` + date + "\n" +
		`Message-ID: <` + id + `\.[0-9a-f]+@web\.test>` + "\n" +
		q + "\nfirst line\n.\n..two dots\n \nüml\u00e4ut, then no line end\n" + `\E\z`
	if !regexp.MustCompile(want).MatchString(got.content) {
		t.Errorf("what arrived:\n%s\ndoes not match\n%s", got.content, want)
	}
}

// The queue tells the life of a message in three ways: while nobody takes it,
// and when it is gone.
func TestQueueAndTraceTellALife(t *testing.T) {
	t.Parallel()
	nobody := servertest.FreePort(t)
	b := newBox(t, relayTo(nobody)+"[retry]\nfirst = \"1h\"\nmax = \"1h\"\n")
	r := b.start()
	b.sendmail("Subject: a life\nFrom: me@web.test\n\nhello\n", "-i", "-f", "me@web.test", "you@example.org")
	b.log.await(t, "msg=attempt", "status=deferred")

	m := b.one()
	if m.Status != "queued" || m.Sender != "me@web.test" || m.UID != os.Getuid() || m.status("you@example.org") != "deferred" {
		t.Errorf("queue --json: %+v", m)
	}
	if re := m.Recipients[0].Reply; re == nil || re.Code != 0 || !strings.HasPrefix(re.Status, "4.") || m.Recipients[0].Next == "" {
		t.Errorf("the outcome of a refused connection: %+v, want code 0 and a status 4.x.x", m.Recipients[0])
	}
	mailq := b.run(b.command("", program("mailq"))).out
	wantMailq := fmt.Sprintf(`(?s)\A-+Queue ID-+ .*\n%s +%d [A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d +me@web\.test\n`+
		` *\(.*\)\n +you@example\.org\n\n-- 0 Kbytes in 1 Request\.\n\z`, m.ID, m.Size)
	if !regexp.MustCompile(wantMailq).MatchString(mailq) {
		t.Errorf("mailq:\n%s\nwant %s", mailq, wantMailq)
	}

	s := startSink(t)
	b.configure(relayTo(s.port))
	r.reload("configuration reloaded")
	b.postino("retry", "--all")
	b.log.await(t, "msg=finished", "id="+m.ID)
	b.empty()
	for _, what := range []string{m.ID, "you@example.org", "A LIFE", b.trace(m.ID).MessageID} {
		tr := b.trace(what)
		if tr.ID != m.ID || tr.Status != "finished" || tr.status("you@example.org") != "relayed" || tr.Via != "socket" || tr.PID == 0 {
			t.Errorf("trace %q: %+v", what, tr)
		}
		if n := len(tr.Attempts); n != 2 {
			t.Errorf("trace %q: %d attempts, want the one that failed and the one that did not", what, n)
		}
	}
	people := b.postino("trace", "a life")
	for _, want := range []string{m.ID, "me@web.test", "you@example.org", "relayed", "127.0.0.1", "250"} {
		if !strings.Contains(people, want) {
			t.Errorf("trace has no %q:\n%s", want, people)
		}
	}
	if r := b.run(b.command("", program("postino"), "trace", "--json", "nothing of that kind")); r.code != 1 || r.out != "" {
		t.Errorf("trace of what is unknown: %+v, want status 1 and nothing printed", r)
	}
}
