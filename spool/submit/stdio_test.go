package submit_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/address"
	"postino/spool/handoff"
	"postino/spool/standstill"
	"postino/spool/submit"
)

// dialogue drives Stdio as a client that waits for each reply.
type dialogue struct {
	t       *testing.T
	in      io.WriteCloser
	out     *bufio.Scanner
	done    chan error
	dropped []bool
}

func speak(t *testing.T, dir string) *dialogue {
	t.Helper()
	return speakAs(t, submit.Stdio{Dir: dir})
}

func speakAs(t *testing.T, s submit.Stdio) *dialogue {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	d := &dialogue{t: t, in: inW, out: bufio.NewScanner(outR), done: make(chan error, 1)}
	go func() {
		s.Hostname, s.Handed = "host.test", func(dropped bool) { d.dropped = append(d.dropped, dropped) }
		err := s.Serve(inR, outW)
		outW.Close()
		inR.Close()
		d.done <- err
	}()
	late := time.AfterFunc(patience, func() {
		t.Errorf("the dialogue is not over within %v:\n%s", patience, standstill.Here())
		outR.Close()
		inW.Close()
	})
	t.Cleanup(func() { late.Stop() })
	d.expect("220 host.test ")
	return d
}

// speakTo is a dialogue with the runner that listens in dir.
func speakTo(t *testing.T, dir string) *dialogue {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(dir, spool.SubmitSocket))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	d := &dialogue{t: t, in: c, out: bufio.NewScanner(c), done: make(chan error, 1)}
	d.done <- nil // it ends by being closed
	d.expect("220 host.test ")
	return d
}

// say sends text and expects the last line of the reply to match a pattern.
func (d *dialogue) say(text, pattern string) string {
	d.t.Helper()
	if _, err := io.WriteString(d.in, text); err != nil {
		d.t.Fatalf("%q: %v", text, err)
	}
	return d.expect(pattern)
}

func (d *dialogue) expect(pattern string) string {
	d.t.Helper()
	for d.out.Scan() {
		line := d.out.Text()
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !regexp.MustCompile("^(?:" + pattern + ")").MatchString(line) {
			d.t.Fatalf("reply %q, want %q", line, pattern)
		}
		return line
	}
	d.t.Fatalf("no reply, want %q", pattern)
	return ""
}

func (d *dialogue) end() {
	d.t.Helper()
	d.in.Close()
	if err := <-d.done; err != nil {
		d.t.Error(err)
	}
}

// socketRig is a rig whose socket has the name that front ends know.
func socketRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	if err := os.Symlink(filepath.Join(r.dir, "s"), filepath.Join(r.dir, spool.SubmitSocket)); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStdioHandsOverToTheRunner(t *testing.T) {
	r := socketRig(t)
	d := speak(t, r.dir)
	d.say("HELO [127.0.0.1]\r\n", "250 ")
	d.say("MAIL FROM:<root>\r\n", "250 ")
	d.say("RCPT TO:<postmaster>\r\n", "250 ")
	d.say("RCPT TO:<\"a b\"@c.test>\r\n", "250 ")
	d.say("DATA\r\n", "354 ")
	line := d.say("Subject: hi\r\nBcc: secret@x.test\r\n\r\n..dot\r\na\nb\r\n.\r\n", `250 Ok: queued as [0-9A-F]+$`)
	d.say("NOOP\r\n", "250 ")
	d.say("VRFY x\r\n", "252 ")
	d.say("MAIL FROM:<a@b.test>\r\n", "250 ")
	d.say("DATA\r\n", "5")
	d.say("RSET\r\n", "250 ")
	d.say("QUIT\r\n", "221 ")
	d.end()
	list := r.messages()
	if len(list) != 1 || !strings.HasSuffix(line, list[0].ID.String()) {
		t.Fatalf("%q; messages %+v", line, list)
	}
	m := list[0]
	if m.Sender.String() != "root@dom.test" || len(m.Recipients) != 2 || m.Recipients[0].Address.String() != "postmaster@dom.test" ||
		m.Recipients[1].Address.String() != `"a b"@c.test` {
		t.Errorf("envelope %+v", m)
	}
	got := r.content(m)
	if strings.Contains(got, "secret") || !strings.HasSuffix(got, "\r\n\r\n.dot\r\na\r\nb\r\n") {
		t.Errorf("content:\n%q", got)
	}
	if len(d.dropped) != 1 || d.dropped[0] {
		t.Errorf("dropped %v, want one that went to the runner", d.dropped)
	}
}

// Clients of sendmail -bs may end lines with LF, and then do so throughout.
func TestStdioTakesLineFeeds(t *testing.T) {
	r := socketRig(t)
	d := speak(t, r.dir)
	d.say("EHLO x\n", "250 ")
	d.say("MAIL FROM:<a@b.test> SIZE=10\n", "250 ")
	d.say("RCPT TO:<x@y.test>\n", "250 ")
	d.say("DATA\n", "354 ")
	d.say("Subject: hi\n\n..\nbody\n.\n", "250 Ok: queued as")
	d.say("QUIT\n", "221 ")
	d.end()
	if list := r.messages(); len(list) != 1 || !strings.HasSuffix(r.content(list[0]), "\r\n\r\n.\r\nbody\r\n") {
		t.Errorf("messages %+v", list)
	}
}

// In a CRLF session a dot between line feeds ends nothing (SMTP smuggling).
func TestStdioLineFeedDotIsContent(t *testing.T) {
	r := socketRig(t)
	d := speak(t, r.dir)
	d.say("EHLO x\r\n", "250 ")
	d.say("MAIL FROM:<a@b.test>\r\n", "250 ")
	d.say("RCPT TO:<x@y.test>\r\n", "250 ")
	d.say("DATA\r\n", "354 ")
	d.say("Subject: hi\r\n\r\na\n.\nMAIL FROM:<evil@b.test>\nb\r\n.\r\n", "250 Ok: queued as")
	d.say("QUIT\r\n", "221 ")
	d.end()
	if list := r.messages(); len(list) != 1 || !strings.Contains(r.content(list[0]), "a\r\n.\r\nMAIL FROM:<evil@b.test>\r\nb\r\n") {
		t.Errorf("%d messages", len(list))
	}
}

func TestStdioWithoutARunnerLeavesADropFile(t *testing.T) {
	r := newRig(t) // nobody has submit.sock
	d := speak(t, r.dir)
	d.say("EHLO x\r\n", "250 ")
	d.say("MAIL FROM:<> RET=HDRS ENVID=q+2B1\r\n", "250 ")
	d.say("RCPT TO:<x@y.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o+2Bo@y.test\r\n", "250 ")
	d.say("RCPT TO:<y@y.test>\r\n", "250 ")
	content := "Subject: hi\r\n\r\n" + strings.Repeat("x", 100_000) + "\r\n"
	d.say(fmt.Sprintf("BDAT 10\r\n%s", content[:10]), "250 ")
	line := d.say(fmt.Sprintf("BDAT %d LAST\r\n%s", len(content)-10, content[10:]), "250 Ok: queued as")
	d.say("QUIT\r\n", "221 ")
	d.end()
	if len(d.dropped) != 1 || !d.dropped[0] || len(r.dropped()) != 1 {
		t.Fatalf("dropped %v, files %v", d.dropped, r.dropped())
	}
	r.scan()
	list := r.messages()
	if len(list) != 1 || !strings.HasSuffix(line, " "+list[0].ID.String()) {
		t.Fatalf("%q; messages %+v; log\n%s", line, list, r.log)
	}
	m := list[0]
	rcpt := m.Recipients[0]
	if m.Return != "HDRS" || m.EnvelopeID != "q+1" || strings.Join(rcpt.Notify, ",") != "SUCCESS,DELAY" ||
		rcpt.Original != "rfc822;o+o@y.test" || m.Recipients[1].Notify != nil {
		t.Errorf("DSN parameters: %+v", m)
	}
	if !strings.HasSuffix(r.content(m), content[13:]) {
		t.Errorf("content differs")
	}
}

func TestStdioPassesRefusalsOn(t *testing.T) {
	r := socketRig(t)
	d := speak(t, r.dir)
	d.say("EHLO x\r\n", "250 ")
	d.say("MAIL FROM:<-x@b.test>\r\n", "553 ")
	d.say("MAIL FROM:<a@b.test>\r\n", "250 ")
	d.say("RCPT TO:<-x@y.test>\r\n", "553 ")
	for i := range testPolicy.MaxRecipients + 1 {
		d.say(fmt.Sprintf("RCPT TO:<%d@y.test>\r\n", i), "250 ")
	}
	d.say("DATA\r\n", "354 ")
	d.say("Subject: hi\r\n\r\nx\r\n.\r\n", "550 5.5.3 ")
	d.end() // without QUIT
	if n := len(r.messages()) + len(r.dropped()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// RFC 5321 §4.5.3.1.10: who is one too many is refused at RCPT, and whoever was taken
// before gets the message.
func TestStdioRefusesARecipientTooManyAndKeepsTheOthers(t *testing.T) {
	r := socketRig(t)
	d := speakAs(t, submit.Stdio{Dir: r.dir, MaxRecipients: testPolicy.MaxRecipients})
	d.say("EHLO x\r\n", "250 ")
	for _, first := range []int{0, testPolicy.MaxRecipients} {
		d.say("MAIL FROM:<a@b.test>\r\n", "250 ")
		for i := range testPolicy.MaxRecipients {
			d.say(fmt.Sprintf("RCPT TO:<%d@y.test>\r\n", first+i), "250 ")
		}
		d.say(fmt.Sprintf("RCPT TO:<%d@y.test>\r\n", first+testPolicy.MaxRecipients), "452 4.5.3 ")
		d.say(fmt.Sprintf("RCPT TO:<%d@y.test>\r\n", first), "250 ") // named before
		d.say("DATA\r\n", "354 ")
		d.say("Subject: hi\r\n\r\nx\r\n.\r\n", "250 Ok: queued as ")
	}
	d.end()
	var got []string
	for _, m := range r.messages() {
		for _, rcpt := range m.Recipients {
			got = append(got, strings.TrimSuffix(rcpt.Address.String(), "@y.test"))
		}
	}
	if want := "0 1 2 3 4 5 6 7 8 9"; strings.Join(got, " ") != want {
		t.Errorf("recipients %v, want %s", got, want)
	}
}

// RFC 1870 §3 and §6.1: a SIZE has up to twenty digits, and one that is too large is no
// error of the command.
func TestADeclaredSizeOfAnyLengthIsRefusedAsTooLarge(t *testing.T) {
	r := socketRig(t)
	wants := [][2]string{{"EHLO x", "250 "}}
	for _, size := range []string{"4294967295", "4294967296", "5000000000", "18446744073709551615", "99999999999999999999"} {
		wants = append(wants, [2]string{"MAIL FROM:<a@b.test> SIZE=" + size, "552 5.3.4 "},
			[2]string{"mail from:<a@b.test> BODY=8BITMIME\tsize=" + size + " RET=HDRS", "552 5.3.4 "})
	}
	for _, size := range []string{"999999999999999999999", "-1", "1e9", ""} {
		wants = append(wants, [2]string{"MAIL FROM:<a@b.test> SIZE=" + size, "501 5.5.4 "})
	}
	wants = append(wants, [2]string{`MAIL FROM:<"x SIZE=5000000000 y"@b.test> SIZE=10`, "250 "})
	for _, d := range []*dialogue{
		speak(t, r.dir), speakAs(t, submit.Stdio{Dir: r.dir, MaxMessageSize: testPolicy.MaxMessageSize}), speakTo(t, r.dir),
	} {
		for _, w := range wants {
			d.say(w[0]+"\r\n", w[1])
		}
		d.say("RCPT TO:<x@y.test>\r\n", "250 ")
		d.say("DATA\r\n", "354 ")
		d.say("Subject: hi\r\n\r\nx\r\n.\r\n", "250 Ok: queued as ")
		d.end()
	}
	for _, m := range r.messages() {
		if m.Sender.Local != "x SIZE=5000000000 y" {
			t.Errorf("sender %q", m.Sender.Local)
		}
	}
}

// What sendmail -n asks for arrives with the message, over the socket, in a drop file and
// from sendmail -bs.
func TestNoAliasesArrivesWithItsMessage(t *testing.T) {
	r := newRig(t)
	submitAs := func(asked bool, sender string) {
		s := &handoff.Submission{ID: handoff.NewID(time.Now()), NoAliases: asked, Head: []byte("\r\n"),
			Sender: address.Address{Local: sender, Domain: "b.test"}}
		s.Recipients = []handoff.Recipient{{Address: address.Address{Local: "root"}}}
		if _, _, err := handoff.Submit(r.dir, s); err != nil {
			t.Fatal(err)
		}
	}
	submitAs(true, "asked-drop")
	submitAs(false, "drop")
	r.scan()
	if err := os.Symlink(filepath.Join(r.dir, "s"), filepath.Join(r.dir, spool.SubmitSocket)); err != nil {
		t.Fatal(err)
	}
	submitAs(true, "asked-socket")
	submitAs(false, "socket")
	for _, asked := range []bool{true, false} {
		d := speakAs(t, submit.Stdio{Dir: r.dir, NoAliases: asked})
		sender := "bs"
		if asked {
			sender = "asked-bs"
		}
		d.say("EHLO x\r\n", "250 ")
		d.say(handoff.NoAliases+"\r\n", "250 ") // it is the option that asks
		d.say("MAIL FROM:<"+sender+"@b.test>\r\n", "250 ")
		d.say("RCPT TO:<root>\r\n", "250 ")
		d.say("DATA\r\n", "354 ")
		d.say("Subject: hi\r\n\r\nx\r\n.\r\n", "250 Ok: queued as ")
		d.end()
	}
	list := r.messages()
	if len(list) != 6 {
		t.Fatalf("%d messages; in drop/: %q\n%s", len(list), r.dropped(), r.log)
	}
	for _, m := range list {
		if want := strings.HasPrefix(m.Sender.Local, "asked"); m.NoAliases != want {
			t.Errorf("%s by %s: no aliases is %v", m.Sender, m.Origin.Via, m.NoAliases)
		}
	}
}

func TestStdioEndWithinDataSendsNothing(t *testing.T) {
	r := socketRig(t)
	for _, rest := range []string{"DATA\r\nSubject: x\r\n\r\nhalf", "DATA\r\nSubject: x\r\n\r\nhalf\r\n.", "BDAT 100 LAST\r\nhalf", "BDAT 4\r\nhalf"} {
		d := speak(t, r.dir)
		d.say("EHLO x\r\n", "250 ")
		d.say("MAIL FROM:<a@b.test>\r\n", "250 ")
		d.say("RCPT TO:<x@y.test>\r\n", "250 ")
		go io.Copy(io.Discard, readerOf(d.out))
		if _, err := io.WriteString(d.in, rest); err != nil {
			t.Fatal(err)
		}
		d.end()
	}
	if n := len(r.messages()) + len(r.dropped()); n != 0 {
		t.Errorf("%d messages of sessions cut short", n)
	}
}

type scannerReader struct{ s *bufio.Scanner }

func readerOf(s *bufio.Scanner) io.Reader { return scannerReader{s} }

func (r scannerReader) Read([]byte) (int, error) {
	if r.s.Scan() {
		return 0, nil
	}
	return 0, io.EOF
}
