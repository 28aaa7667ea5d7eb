package cmd_test

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nothingStored wants neither mail in the queue nor files in drop/.
func (b *box) nothingStored(when string) {
	b.t.Helper()
	if n := len(b.queue()); n != 0 {
		b.t.Errorf("%s: %d messages in the queue, want none", when, n)
	}
	if n := b.drops(); n != 0 {
		b.t.Errorf("%s: %d files in drop/, want none", when, n)
	}
}

// What cannot be an address is refused with 65, quoted so that a terminal shows
// it and obeys nothing in it, and nobody gets the message.
func TestBadRecipientRefusesTheMessage(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	for _, running := range []bool{false, true} {
		when := "without a runner"
		if running {
			when = "with a runner"
			b.start()
		}
		for _, tt := range []struct {
			args   []string
			stdin  string
			quoted string
		}{
			{[]string{"good@example.org", "bad@@example.org"}, "hi\n", "bad@@example.org"},
			{[]string{"-t"}, "To: good@example.org, <bad@>\n\nhi\n", "bad@"},
			{[]string{"evil\x1b[2J@example.org"}, "hi\n", `evil\x1b[2J`},
			{[]string{"a@example.org\r\nRCPT TO:<b@example.org>"}, "hi\n", `\r\n`},
			{[]string{"-f", "bad@@web.test", "good@example.org"}, "hi\n", "bad@@web.test"},
		} {
			r := b.run(b.command(tt.stdin, b.front, tt.args...))
			if r.code != 65 || r.out != "" || !strings.Contains(r.err, tt.quoted) || !strings.HasPrefix(r.err, "sendmail: ") {
				t.Errorf("%s, %q: %+v, want status 65 and %s", when, tt.args, r, tt.quoted)
			}
			if strings.ContainsAny(strings.TrimSuffix(r.err, "\n"), "\x1b\r\n") {
				t.Errorf("%s, %q: control characters in %q", when, tt.args, r.err)
			}
		}
		b.nothingStored(when)
	}
}

// Without recipients the status is 64, and the caller has been read to the end:
// one that still writes would be killed by a closed pipe.
func TestNoRecipientsIsToldAfterReading(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	const octets = 4 << 20 // far more than a pipe holds
	for _, args := range [][]string{nil, {"-t"}, {"-oit"}, {"--no-such-option", "a@example.org"}, {"-f"}} {
		cmd := b.command("", b.front, args...)
		in := &countingReader{r: io.LimitReader(endless("Subject: x\n\n"), octets)}
		cmd.Stdin = in
		r := b.run(cmd)
		if r.code != 64 || r.out != "" || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%q: %+v, want status 64 and one line", args, r)
		}
		if in.n != octets {
			t.Errorf("%q read %d octets, want all %d", args, in.n, octets)
		}
	}
	b.nothingStored("after all")
}

// endless is a header and then one line for ever.
func endless(head string) io.Reader { return io.MultiReader(strings.NewReader(head), lineForever{}) }

type lineForever struct{}

func (lineForever) Read(p []byte) (int, error) {
	const line = "nothing to see here\n"
	n := 0
	for n+len(line) <= len(p) {
		n += copy(p[n:], line)
	}
	if n == 0 {
		n = copy(p, strings.Repeat("\n", len(p)))
	}
	return n, nil
}

// countingReader counts what was taken from r. os/exec writes to the pipe what it
// read, and stops when it breaks.
type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// A front end that is killed before the end of its input leaves nothing, however
// much it had read: neither a message nor a file.
func TestKilledCallerLeavesNothing(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	for _, running := range []bool{false, true} {
		when := "without a runner"
		if running {
			when = "with a runner"
			b.start()
		}
		for _, octets := range []int64{100, 3 << 20} {
			cmd := b.command("", b.front, "-i", "alice@example.org")
			cmd.Stdin = nil
			pipe, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(pipe, io.LimitReader(endless("Subject: cut short\n\n"), octets)); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			_ = pipe.Close()
			b.nothingStored(when)
		}
	}
}

// A front end that dies while it hands over leaves nothing either: what the runner
// has heard is not all that was announced.
func TestCutSubmissionStoresNothing(t *testing.T) {
	t.Parallel()
	_, b := plainRelay(t)
	b.start()
	const id = "0123456789abcdef0123456789abcdef"
	const session = "EHLO " + id + ".submission.invalid\r\nMAIL FROM:<me@localhost>\r\nRCPT TO:<alice@example.org>\r\n"
	for _, cut := range []string{
		session,
		session + "BDAT 1000 LAST\r\n",
		session + "BDAT 1000 LAST\r\nSubject: cut\r\n\r\nnot all of",
		session + "BDAT 30\r\nSubject: first chunk\r\n\r\nhello\r\n",
		session + "DATA\r\nSubject: cut\r\n\r\nno dot\r\n",
	} {
		conn, err := net.Dial("unix", filepath.Join(b.spool, "submit.sock"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, cut); err != nil {
			t.Fatal(err)
		}
		// The other side reads to the end of this, and then closes.
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(conn)
		if err != nil {
			t.Errorf("%q: %v", cut, err)
		}
		if strings.Contains(string(said), "queued as") {
			t.Errorf("%q was answered with %q", cut, said)
		}
		conn.Close()
		b.nothingStored(fmt.Sprintf("after %q", cut))
	}
	if b.log.count("msg=accepted") != 0 {
		t.Error("something was accepted")
	}
}

// A message above the limit is refused while somebody can be told. One from drop/
// was accepted long ago: it fails, its sender gets a report, and it can be sent again
// when the limit is another.
func TestTooLargeMessage(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t)
	b.configure("max_message_size = \"10KiB\"\n" + relayTo(s.Port()))
	r := b.start()
	large := "Subject: large\n\n" + strings.Repeat("0123456789abcde\n", 1000)
	got := b.run(b.command(large, b.front, "alice@example.org"))
	if got.code != 65 || !strings.Contains(got.err, "552") || got.out != "" {
		t.Errorf("with a runner: %+v, want status 65 and 552", got)
	}
	b.nothingStored("with a runner")
	r.stop()
	b.sendmail(large, "alice@example.org")
	b.sendmail("Subject: small\n\nhi\n", "alice@example.org")
	b.start()
	b.log.awaitN(t, 3, "msg=finished")
	list := parseMessages(t, b.postino("queue", "--failed", "--json"))
	if len(list) != 1 || list[0].status("alice@example.org") != "failed" || list[0].Recipients[0].Reply.Status != "5.3.4" {
		t.Fatalf("out of drop/: %+v, want it failed", list)
	}
	m := list[0]
	report := messageWith(t, s, `Not delivered: "large" to alice@example.org`)
	if len(s.Messages()) != 2 || messageWith(t, s, "small") == nil || report == nil || !strings.Contains(string(report.Data), "max_message_size sets the limit") {
		t.Errorf("%d messages arrived, want the small one and a report", len(s.Messages()))
	}
	b.postino("retry", m.ID)
	b.log.awaitN(t, 4, "msg=finished")
	large2 := messageWith(t, s, "large")
	if large2 == nil || len(large2.Data) < 16000 {
		t.Errorf("after its retry it did not arrive whole: %v", large2)
	}
}

// Files that no front end left in drop/ do no harm and do not stop the others.
func TestStrangersInDropAreHarmless(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t)
	b.start().stop()
	drop := filepath.Join(b.spool, "drop")
	for i, make := range []func(path string) error{
		func(path string) error { return syscall.Mkfifo(path, 0o666) },
		func(path string) error { return syscall.Symlink("/etc/shadow", path) },
		func(path string) error { return syscall.Mkdir(path, 0o755) },
	} {
		name := strings.Repeat("0", 31) + string(rune('1'+i))
		if err := make(filepath.Join(drop, name)); err != nil {
			t.Fatal(err)
		}
	}
	b.sendmail("Subject: among strangers\n\nhi\n", "alice@example.org")
	r := b.start()
	b.log.await(t, "msg=finished")
	if messageWith(t, s, "among strangers") == nil {
		t.Error("it did not arrive")
	}
	r.stop()
}
