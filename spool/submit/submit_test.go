package submit_test

import (
	"bufio"
	"bytes"
	"context"
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
	"postino/spool/standstill"
)

const submissionName = "0123456789abcdef0123456789abcdef"

var unsized = regexp.MustCompile(` SIZE=\d+`)

var unfold = strings.NewReplacer("\r\n ", " ", "\r\n\t", " ")

const hello = "From: a@b.test\r\nTo: root\r\nBcc: secret@b.test\r\nSubject: hi\r\n\r\nhello\r\n"

func TestSubmissionIsStoredAndAnswered(t *testing.T) {
	r := newRig(t)
	replies := r.talk(recorded(submissionName, "root@localhost", []string{"root@localhost", `"a b"@c.test`, "root@localhost"}, hello))
	list := r.messages()
	if len(list) != 1 {
		t.Fatalf("%d messages after %q", len(list), replies)
	}
	m := list[0]
	if want := "250 Ok: queued as " + m.ID.String(); len(replies) != 7 || replies[6] != want {
		t.Errorf("replies = %q, want the last to be %q", replies, want)
	}
	if m.Sender.String() != "root@dom.test" || len(m.Recipients) != 2 ||
		m.Recipients[0].Address.String() != "root@dom.test" || m.Recipients[1].Address.String() != `"a b"@c.test` {
		t.Errorf("envelope = %+v", m)
	}
	if m.Origin.UID != os.Getuid() || m.Origin.Via != spool.ViaSocket || m.Origin.PID == 0 || m.Origin.Program == "" {
		t.Errorf("origin = %+v", m.Origin)
	}
	got := r.content(m)
	for _, want := range []string{
		fmt.Sprintf("Received: by host.test (postino, from userid %d) id %s; ", os.Getuid(), m.ID),
		"\r\nTo: root@dom.test\r\n", "\r\nMessage-ID: <" + m.ID.String() + ".", "\r\nDate: ", "\r\n\r\nhello\r\n",
	} {
		if !strings.Contains(unfold.Replace(got), want) {
			t.Errorf("content lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "secret") {
		t.Errorf("Bcc is still there:\n%s", got)
	}
	if m.Subject != "hi" || !strings.HasPrefix(m.MessageID, "<"+m.ID.String()) {
		t.Errorf("subject %q, message-id %q", m.Subject, m.MessageID)
	}
}

// A message that requires TLS (RFC 8689) keeps that, by socket and by drop file.
func TestRequiredTLSIsKept(t *testing.T) {
	r := newRig(t)
	ask := func(name string) string {
		return strings.Replace(recorded(name, "a@b.test", []string{"x@y.test"}, hello), "MAIL FROM:<a@b.test>", "MAIL FROM:<a@b.test> REQUIRETLS", 1)
	}
	const other = "0660e77822b0eb7a3d73aaeaef8e5241"
	r.talk(ask(submissionName))
	r.drop(other, ask(other))
	r.scan()
	list := r.messages()
	if len(list) != 2 || !list[0].RequireTLS || !list[1].RequireTLS {
		t.Errorf("%d messages: %+v", len(list), list)
	}
}

// What a message says of TLS is heeded, unless its envelope says more (RFC 8689 §3).
func TestTLSMayBeOptional(t *testing.T) {
	for field, want := range map[string]bool{
		"TLS-Required: No": true, "tls-required:no": true, "TLS-Required: yes": false, "X-TLS-Required: No": false, "Subject: TLS-Required: No": false,
	} {
		for _, required := range []bool{false, true} {
			r := newRig(t)
			text := recorded(submissionName, "a@b.test", []string{"x@y.test"}, field+"\r\n"+hello)
			if required {
				text = strings.Replace(text, "MAIL FROM:<a@b.test>", "MAIL FROM:<a@b.test> REQUIRETLS", 1)
			}
			r.talk(text)
			if list := r.messages(); len(list) != 1 || list[0].TLSOptional != (want && !required) {
				t.Errorf("%s, required %v: %+v", field, required, list)
			}
		}
	}
}

func TestSecondSessionOfASubmissionGetsTheFirstID(t *testing.T) {
	r := newRig(t)
	session := recorded(submissionName, "a@b.test", []string{"x@y.test"}, hello)
	first := r.talk(session)
	again := r.talk(session)
	if len(r.messages()) != 1 || first[len(first)-1] != again[len(again)-1] {
		t.Errorf("%d messages; %q, then %q", len(r.messages()), first, again)
	}
	// And by way of the drop directory.
	r.drop(submissionName, session)
	r.scan()
	if len(r.messages()) != 1 || len(r.dropped()) != 0 {
		t.Errorf("%d messages, %v left in drop/", len(r.messages()), r.dropped())
	}
}

// A submission's ID names one message; another one under it would be lost.
func TestSubmissionIsOneMessage(t *testing.T) {
	r := newRig(t)
	one := recorded(submissionName, "a@b.test", []string{"x@y.test"}, hello)
	_, again, _ := strings.Cut(one, "\r\n")
	replies := r.talk(one + again)
	if n := len(r.messages()); n != 1 || strings.HasPrefix(replies[len(replies)-1], "2") {
		t.Errorf("%d messages; %q", n, replies)
	}
}

// A second MAIL would make a message of nobody out of the first one's recipients. It
// is refused, and with it, on the socket, the rest.
func TestNestedMailIsRefused(t *testing.T) {
	r := newRig(t)
	replies := r.talk("EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nMAIL FROM:<e@b.test>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n")
	if n := len(r.messages()); n != 0 || !strings.HasPrefix(replies[4], "503 ") || !strings.HasPrefix(replies[len(replies)-1], "554 ") {
		t.Errorf("%q; %d messages", replies, n)
	}
}

// Whoever keeps a transaction open keeps nobody from stopping.
func TestShutdownClosesWhatIsLeft(t *testing.T) {
	r := newRig(t)
	c, err := net.Dial("unix", filepath.Join(r.dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nBDAT 1000 LAST\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	for in := bufio.NewReader(c); ; {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "x@y.test") {
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r.srv.Shutdown(ctx) // returns, or the test times out
	if n := len(r.messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// The commands and the content come in one write, so that a refused recipient is
// known only when the content is already there.
func TestSubmissionIsAllOrNothing(t *testing.T) {
	for _, tt := range []struct {
		name, session, refusal string
	}{
		{"syntax", recorded(submissionName, "a@b.test", []string{"x@y.test", "bad bad@y.test"}, hello), "501 "},
		{"our refusal", recorded(submissionName, "a@b.test", []string{"x@y.test", "-oQ@y.test"}, hello), "553 "},
		{"sender", recorded(submissionName, "-x@b.test", []string{"x@y.test"}, hello), "553 "},
		{"too many", recorded(submissionName, "a@b.test", []string{"1@y.test", "2@y.test", "3@y.test", "4@y.test", "5@y.test", "6@y.test"}, hello), "550 5.5.3"},
		{"announced too large", strings.Replace(recorded(submissionName, "a@b.test", []string{"x@y.test"}, hello), "SIZE=", "SIZE=99999", 1), "552 5.3.4"},
		{"too large", strings.Replace(recorded(submissionName, "a@b.test", []string{"x@y.test"}, "S: x\r\n\r\n"+strings.Repeat("x", 2<<20)), "SIZE=", "SIZE=0", 1), "552 5.3.4"},
		{"too large, not announced", unsized.ReplaceAllString(recorded(submissionName, "a@b.test", []string{"x@y.test"}, "S: x\r\n\r\n"+strings.Repeat("x", 2<<20)), ""), "552 5.3.4"},
		{"header too large", recorded(submissionName, "a@b.test", []string{"x@y.test"}, strings.Repeat("X: y\r\n", 200<<10)), "55"},
	} {
		r := newRig(t)
		replies := r.talk(tt.session)
		found := false
		for _, reply := range replies {
			found = found || strings.HasPrefix(reply, tt.refusal)
		}
		if last := replies[len(replies)-1]; !found || last[0] != '5' && !strings.HasPrefix(last, "421") {
			t.Errorf("%s: replies %q, want one %q and no success at the end", tt.name, replies, tt.refusal)
		}
		if n := len(r.messages()); n != 0 {
			t.Errorf("%s: %d messages stored", tt.name, n)
		}
	}
}

func TestTruncatedContentIsNeverStored(t *testing.T) {
	content := hello + strings.Repeat("0123456789abcdef\r\n", 10<<10)
	session := recorded(submissionName, "a@b.test", []string{"x@y.test"}, content)
	begin := strings.Index(session, "BDAT")
	r := newRig(t)
	for _, cut := range []int{begin, begin + 10, begin + 20, begin + len(content)/2, len(session) - 1} {
		for _, last := range r.talk(session[:cut]) {
			if strings.Contains(last, "queued") {
				t.Errorf("cut at %d of %d: %q", cut, len(session), last)
			}
		}
		name := fmt.Sprintf("%032x", cut)
		r.drop(name, strings.Replace(session, submissionName, name, 1)[:cut])
	}
	r.scan()
	if n := len(r.messages()); n != 0 {
		t.Fatalf("%d truncated messages stored", n)
	}
	for _, name := range r.dropped() {
		if !strings.HasPrefix(name, "rejected.") {
			t.Errorf("%s was left to be read again", name)
		}
	}
	// The same session whole is taken, so that the cuts were what mattered.
	r.talk(session)
	if n := len(r.messages()); n != 1 {
		t.Errorf("%d messages from the whole session", n)
	}
}

func TestOrdinaryClientsMaySpeakSMTP(t *testing.T) {
	r := newRig(t)
	replies := r.talk("EHLO web.example\r\nMAIL FROM:<>\r\nRCPT TO:<x@y.test>\r\nDATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\n" +
		"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nRSET\r\nNOOP\r\nQUIT\r\n")
	list := r.messages()
	if len(list) != 1 || !list[0].Sender.IsNull() || list[0].Submission != (spool.SubmissionID{}) {
		t.Fatalf("messages = %+v after %q", list, replies)
	}
	got := r.content(list[0])
	if !strings.HasSuffix(got, "\r\n\r\n.dot\r\n") || !strings.Contains(got, `From: "Mail Delivery System" <MAILER-DAEMON@dom.test>`) &&
		!strings.Contains(got, `From: Mail Delivery System <MAILER-DAEMON@dom.test>`) {
		t.Errorf("content:\n%s", got)
	}
}

// A client that a reply cannot reach is not left to wait for it: the connection
// ends, and nothing is taken any more.
func TestReplyThatCannotBeGivenEndsTheSession(t *testing.T) {
	r := newRig(t)
	c, err := net.Dial("unix", filepath.Join(r.dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err != nil { // the greeting has arrived
		t.Fatal(err)
	}
	if err := c.(*net.UnixConn).CloseRead(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	standstill.Wait(t, patience, "the session ends", func() bool {
		_, err := io.WriteString(c, "NOOP\r\n")
		r.inTime(err)
		return err != nil
	})
}

func TestEndlessCommandLineEndsTheSession(t *testing.T) {
	r := newRig(t)
	c, err := net.Dial("unix", filepath.Join(r.dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	chunk := bytes.Repeat([]byte("x"), 4096)
	for range 1000 {
		if _, err := c.Write(chunk); err != nil {
			r.inTime(err)
			return // closed, as it should be
		}
	}
	t.Error("4 MB of command line were taken")
}
