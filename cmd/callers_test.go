package cmd_test

import (
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
)

// The letter that each library is asked to send, by a script of its own language.
const (
	letterFrom   = "Jürgen Groß" // juergen@web.test
	letterTo     = "Åsa Öberg"   // alice@example.org
	letterSender = "bounces@web.test"
	letterText   = "Grüße aus Zürich,\n" + letterDots + "\nend"
	letterDots   = ".\n..two dots\n.one dot\n"
	letterData   = "\x00\x01\xfe\xff\r\n.\r\n" // of the attachment

	letterDataBase64 = "AAH+/w0KLg0K"
)

// library is a library that calls sendmail, and the script of a user of it. The
// script finds SUBJECT, TEXT and SENDMAIL, a path, in its environment, and in
// EXTRA a recipient beside alice, bob (To), carol (Cc) and secret (Bcc). It prints
// the Message-ID that it was given back, if any; after a failure, what it was
// told, and ends with 1.
type library struct {
	name         string
	program, pkg string   // the interpreter
	args         []string // before the script
	script       string
	more         []string // after the script
	file, from   string   // a file of the library, and the package it is from
	system       bool     // calls what it finds in /usr/sbin and is told no other path
	sender       string   // letterSender when empty
	noBcc        bool     // it takes the hidden recipient out before we can see it
	noAttachment bool
	doublesDots  bool     // at the beginning of lines, in place of saying -i
	bad          string   // a recipient that it lets through and we do not
	says         []string // what its user is told then, on either output
	silent       bool     // it tells nobody that the mailer failed
}

// command is a call of the script.
func (l *library) command(b *box, subject, extra string) *exec.Cmd {
	b.t.Helper()
	args := slices.Concat(l.args, []string{l.script}, l.more)
	path := needs(b.t, l.program, l.pkg)
	needsFile(b.t, l.file, l.from)
	var cmd *exec.Cmd
	if l.system {
		cmd = b.inNamespace(`exec "$@"`, append([]string{path}, args...)...)
	} else {
		cmd = b.command("", path, args...)
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C.UTF-8", "SENDMAIL="+b.front,
		"SUBJECT="+subject, "TEXT="+letterText, "DATA="+letterDataBase64, "EXTRA="+extra)
	return cmd
}

// needsFile skips a test that needs a file of a package.
func needsFile(t testing.TB, path, pkg string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		servertest.Missing(t, "%v: apt-get install %s", err, pkg)
	}
}

// test has the letter sent without a runner, with one, and to somebody who cannot
// be.
func (l *library) test(t testing.TB) {
	s, b := plainRelay(t)
	for i, subject := range []string{"Prüfung ohne ☃", "Prüfung mit ☃"} {
		r := b.run(l.command(b, subject, ""))
		if r.code != 0 || r.err != "" {
			t.Fatalf("%s: %+v", subject, r)
		}
		if i == 0 {
			if n := b.drops(); n != 1 {
				t.Fatalf("%d files in drop/, want 1", n)
			}
			b.start()
		}
		b.log.awaitN(t, i+1, "msg=finished")
		if m := letterWith(t, s, subject); m != nil {
			l.check(t, m)
			id := m.header.Get("Message-ID")
			if printed := strings.TrimSpace(r.out); id == "" || printed != "" && printed != id {
				t.Errorf("Message-ID %q, the caller was told %q", id, printed)
			}
			if tr := b.trace(id); tr.Via != []string{"drop", "socket"}[i] || tr.status("carol@example.org") != "relayed" {
				t.Errorf("%s: trace %+v", subject, tr)
			}
		}
	}
	r := b.run(l.command(b, "Prüfung falsch", l.bad))
	if l.silent != (r.code == 0) || !hasAll(r.out+r.err, l.says) {
		t.Errorf("with the recipient %s: %+v, want %q", l.bad, r, l.says)
	}
	b.nothingStored("with a bad recipient")
	if n := len(s.Messages()); n != 2 {
		t.Errorf("%d messages arrived, want 2", n)
	}
}

// letter is a letter as it arrived.
type letter struct {
	*relaytest.Message
	header mail.Header
	parts  map[string]string // by media type, decoded
}

// letterWith is the one letter with that subject, nil and a failure when there is
// none or more.
func letterWith(t testing.TB, s *relaytest.Server, subject string) *letter {
	t.Helper()
	var found []*letter
	for _, m := range s.Messages() {
		l := readLetter(t, &m)
		if got, err := new(mime.WordDecoder).DecodeHeader(l.header.Get("Subject")); err == nil && got == subject {
			found = append(found, l)
		}
	}
	if len(found) != 1 {
		t.Errorf("%q arrived %d times, want once", subject, len(found))
		return nil
	}
	return found[0]
}

func readLetter(t testing.TB, m *relaytest.Message) *letter {
	t.Helper()
	read, err := mail.ReadMessage(strings.NewReader(string(m.Data)))
	if err != nil {
		t.Fatalf("%v: %s", err, m.Data)
	}
	l := &letter{m, read.Header, make(map[string]string)}
	l.readPart(t, read.Header.Get, read.Body)
	return l
}

// readPart reads one part of a message, and the parts in it.
func (l *letter) readPart(t testing.TB, field func(string) string, body io.Reader) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(field("Content-Type"))
	if err != nil {
		t.Fatalf("Content-Type %q: %v", field("Content-Type"), err)
	}
	if strings.HasPrefix(kind, "multipart/") {
		for r := multipart.NewReader(body, params["boundary"]); ; {
			part, err := r.NextRawPart()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatalf("%v: %s", err, l.Data)
			}
			l.readPart(t, part.Header.Get, part)
		}
	}
	switch strings.ToLower(field("Content-Transfer-Encoding")) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("%s: %v: %s", kind, err, l.Data)
	}
	l.parts[kind] += string(content)
}

// check wants the letter as it was written.
func (l *library) check(t testing.TB, m *letter) {
	t.Helper()
	sender := l.sender
	if sender == "" {
		sender = letterSender
	}
	if m.From != sender {
		t.Errorf("MAIL FROM:<%s>, want <%s>", m.From, sender)
	}
	slices.Sort(m.To)
	want := "alice@example.org bob@example.org carol@example.org secret@example.org"
	if l.noBcc {
		want = strings.TrimSuffix(want, " secret@example.org")
	}
	if got := strings.Join(m.To, " "); got != want {
		t.Errorf("recipients %s, want %s", got, want)
	}
	if strings.Contains(string(m.Data), "secret") || m.header.Get("Return-Path") != "" {
		t.Errorf("Bcc or Return-Path was sent: %s", m.Data)
	}
	for field, want := range map[string]string{
		"From": (&mail.Address{Name: letterFrom, Address: "juergen@web.test"}).String(),
		"To":   (&mail.Address{Name: letterTo, Address: "alice@example.org"}).String() + " <bob@example.org>",
		"Cc":   "<carol@example.org>",
	} {
		list, err := m.header.AddressList(field)
		got := ""
		for _, a := range list {
			got += " " + a.String()
		}
		if err != nil || strings.TrimSpace(got) != want {
			t.Errorf("%s: %s, %v, want %s", field, got, err, want)
		}
	}
	if _, err := m.header.Date(); err != nil {
		t.Errorf("Date: %v", err)
	}
	dots := letterDots
	if l.doublesDots {
		dots = "." + strings.ReplaceAll(dots, "\n.", "\n..")
	}
	wantText := strings.Replace(letterText, letterDots, dots, 1)
	if text := strings.TrimRight(strings.ReplaceAll(m.parts["text/plain"], "\r\n", "\n"), "\n"); text != wantText {
		t.Errorf("text %q, want %q in\n%s", text, wantText, m.Data)
	}
	if data := m.parts["application/octet-stream"]; !l.noAttachment && data != letterData {
		t.Errorf("attachment %q, want %q", data, letterData)
	}
	if data := string(m.Data); !strings.Contains(data, strings.ReplaceAll("\n"+dots, "\n", "\r\n")) {
		t.Errorf("the dots are encoded, so this proves less than it should:\n%s", data)
	}
	if bare := strings.ReplaceAll(string(m.Data), "\r\n", ""); strings.ContainsAny(bare, "\r\n") {
		t.Errorf("not all line ends are CRLF: %q", m.Data)
	}
}
