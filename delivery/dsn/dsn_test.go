package dsn

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"postino/spool"
	"postino/spool/address"
)

var update = flag.Bool("update", false, "write the golden files")

const content = "From: ann@example.org\r\nTo: bob@example.net\r\nSubject: Invoice\r\n\r\nhello\r\n"

// report is about a message of ann's to as many recipients as there are replies.
func report(action Action, replies ...spool.Reply) *Report {
	zone := time.FixedZone("", 3600)
	m := &spool.Message{
		ID: 0x641B1A2B3C4D5E6F, Arrived: time.Date(2026, 11, 2, 10, 0, 0, 0, zone),
		Sender: address.Address{Local: "ann", Domain: "example.org"}, Origin: spool.Origin{Via: spool.ViaSocket, UID: 4242},
		MessageID: "<m1@example.org>", Subject: "Invoice 2026-114",
	}
	r := &Report{
		ID: 0x641B1A2B3C4D5E70, Action: action, Message: m, To: m.Sender, Hostname: "web1.example.org", Domain: "example.org",
		Now: m.Arrived.Add(26 * time.Hour), Until: m.Arrived.Add(120 * time.Hour),
	}
	for i, reply := range replies {
		m.Recipients = append(m.Recipients, spool.Recipient{
			Address: address.Address{Local: "bob" + strings.Repeat("b", i), Domain: "example.net"}, Attempts: i + 1, Reply: reply,
		})
		r.Recipients = append(r.Recipients, i)
	}
	return r
}

func noSuchUser() spool.Reply {
	return spool.Reply{Code: 550, Status: "5.1.1", Text: "No such user here", Host: "mx1.example.net[192.0.2.1]", Command: "RCPT"}
}

func busy() spool.Reply {
	return spool.Reply{Code: 451, Status: "4.2.1", Text: "Mailbox busy", Host: "mx1.example.net[192.0.2.1]", Command: "RCPT"}
}

func unreachable() spool.Reply {
	return spool.Reply{Status: "4.4.1", Text: "mx1.example.net[192.0.2.1]:25: connection refused", Command: "connect"}
}

func write(t *testing.T, r *Report, content string) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What people read is kept as files, so that a change of the words is seen and read.
func TestTheWords(t *testing.T) {
	t.Parallel()
	expired := busy().Expired(120 * time.Hour)
	operator, null := report(Failed, noSuchUser()), report(Failed, noSuchUser())
	operator.To = address.Address{Local: "ops", Domain: "example.org"}
	listed := report(Failed, spool.Reply{Code: 554, Status: "5.7.1", Host: "mx1.example.net[192.0.2.1]", Command: "greeting", Text: "192.0.2.77 is on our block list"})
	listed.To = operator.To
	null.To, null.Message.Sender = operator.To, address.Address{}
	for name, r := range map[string]*Report{
		"operator":  operator,
		"null":      null,
		"listed":    listed,
		"failed":    report(Failed, noSuchUser()),
		"several":   report(Failed, noSuchUser(), expired, spool.Reply{Status: "5.1.2", Text: "example.net: no such domain", Command: "dns"}),
		"delayed":   report(Delayed, busy(), unreachable()),
		"relayed":   report(Relayed, spool.Reply{Code: 250, Status: "2.0.0", Text: "Ok: queued as Q1", Host: "mx1.example.net[192.0.2.1]", Command: "dot"}),
		"delivered": report(Delivered, spool.Reply{Status: "2.0.0", Text: "delivered to Maildir", Command: "local"}),
		"expanded":  report(Expanded, spool.Reply{Status: "2.0.0", Text: "alias for ann@example.net, bo@example.net", Command: "alias"}),
		"refused": report(Failed, spool.Reply{Code: 550, Status: "5.7.1", Host: "mx1.example.net[192.0.2.1]", Command: "dot",
			Text: "Service unavailable; client [192.0.2.77] blocked using Spamhaus"}),
	} {
		got := regexp.MustCompile(`\.[0-9a-f]{16}|\.[0-9a-f]{8}@`).ReplaceAllStringFunc(write(t, r, content), func(s string) string {
			return "." + strings.Repeat("x", 8) + strings.TrimLeft(s, ".0123456789abcdef")
		})
		got = strings.ReplaceAll(got, "\r\n", "\n")
		file := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs (run with -update and read the diff):\n%s", name, got)
		}
	}
}

// parsed is a report taken apart by parsers that are not ours.
type parsed struct {
	header mail.Header
	text   string
	status []textproto.MIMEHeader // the block about the message, then one for each recipient
	third  string                 // media type of the third part
	given  string                 // what that holds, decoded
}

func parse(t *testing.T, text string) parsed {
	t.Helper()
	for _, line := range strings.SplitAfter(text, "\r\n") {
		if len(line) > maxLine+2 || strings.ContainsAny(strings.TrimSuffix(line, "\r\n"), "\r\n") {
			t.Errorf("a line of %d octets, or one with a stray line end: %.80q", len(line), line)
		}
	}
	msg, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("%s %v, %v", kind, params, err)
	}
	p := parsed{header: msg.Header}
	mr := multipart.NewReader(msg.Body, params["boundary"])
	for n := 0; ; n++ {
		part, err := mr.NextRawPart()
		if err == io.EOF && n == 3 {
			return p
		}
		if err != nil {
			t.Fatalf("part %d: %v\n%s", n, err, text)
		}
		var body io.Reader = part
		if part.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			body = quotedprintable.NewReader(part)
		}
		raw, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		switch n {
		case 0:
			p.text = string(raw)
		case 1:
			if kind != "message/delivery-status" || has8bit(raw) {
				t.Errorf("the second part is %s: %q", kind, raw)
			}
			for block := range strings.SplitSeq(string(raw), "\r\n\r\n") {
				h, err := textproto.NewReader(bufioReader(strings.TrimSuffix(block, "\r\n") + "\r\n\r\n")).ReadMIMEHeader()
				if err != nil {
					t.Fatalf("%q: %v", block, err)
				}
				p.status = append(p.status, h)
			}
		case 2:
			p.third, p.given = kind, string(raw)
		}
	}
}

func TestReportsAreWellFormed(t *testing.T) {
	t.Parallel()
	utf8 := report(Failed, noSuchUser())
	utf8.Message.UTF8 = true
	utf8.Message.Recipients[0].Address.Local = "grün+x"
	hostile := report(Failed, spool.Reply{Code: 550, Status: "5.7.1", Text: "a\r\nStatus: 2.0.0\x1b[2J\x00ü " + strings.Repeat("x", 2000), Host: "evil\r\nX: y[::1]", Command: "RCPT"})
	hostile.Message.Subject = "x\x1b[31m\r\nBcc: victim@example.com\u202e" + strings.Repeat("y", 5000)
	hostile.Message.MessageID = "<a\r\nBcc: victim@example.com>"
	hostile.Message.EnvelopeID = "a\r\nb\x7f"
	hostile.Message.Recipients[0].Original = "rfc822;x\r\n\r\nFinal-Recipient: rfc822;other@example.com"
	hdrs := report(Failed, noSuchUser())
	hdrs.Message.Return = "HDRS"
	secret := report(Failed, noSuchUser())
	secret.Message.Return, secret.Message.RequireTLS = "FULL", true
	big := content + strings.Repeat("x\r\n", maxReturned)
	for _, tt := range []struct {
		name, content, third, given string
		r                           *Report
	}{
		{"failed", content, "message/rfc822", content, report(Failed, noSuchUser())},
		{"RET=HDRS", content, "text/rfc822-headers", "From: ann@example.org\r\nTo: bob@example.net\r\nSubject: Invoice\r\n", hdrs},
		{"for protected paths", content, "text/rfc822-headers", "From: ann@example.org\r\nTo: bob@example.net\r\nSubject: Invoice\r\n", secret},
		{"delayed", content, "text/rfc822-headers", "From: ann@example.org\r\nTo: bob@example.net\r\nSubject: Invoice\r\n", report(Delayed, busy())},
		{"too large", big, "text/rfc822-headers", "From: ann@example.org\r\nTo: bob@example.net\r\nSubject: Invoice\r\n", report(Failed, noSuchUser())},
		{"8-bit", content + "\xfc\r\n", "message/rfc822", content + "\xfc\r\n", report(Failed, noSuchUser())},
		{"long line", content + strings.Repeat("z", 3000) + "\r\n", "text/rfc822-headers", "From: ann@example.org\r\nTo: bob@example.net\r\nSubject: Invoice\r\n", report(Failed, noSuchUser())},
		{"long header line", "X: " + strings.Repeat("z", 3000) + "\r\n\r\n", "text/rfc822-headers", "X: " + strings.Repeat("z", 3000) + "\r\n", report(Failed, noSuchUser())},
		{"endless header", "X: y\r\n" + strings.Repeat("A: b\r\n", maxReturned), "text/rfc822-headers", "X: y\r\n" + strings.Repeat("A: b\r\n", (maxReturned-6)/6), report(Failed, noSuchUser())},
		{"no body", "X: y\r\n", "message/rfc822", "X: y\r\n", report(Failed, noSuchUser())},
		{"UTF-8", content, "message/global", content, utf8},
		{"hostile", "--=_\r\n", "message/rfc822", "--=_\r\n", hostile},
	} {
		text := write(t, tt.r, tt.content)
		p := parse(t, text)
		if p.third != tt.third || p.given != tt.given {
			t.Errorf("%s: the third part is %s, %.200q", tt.name, p.third, p.given)
		}
		for name, want := range map[string]string{"Auto-Submitted": "auto-replied", "To": "ann@example.org", "Bcc": "", "Mime-Version": "1.0"} {
			if got := p.header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", tt.name, name, got, want)
			}
		}
		if len(p.status) != 1+len(tt.r.Recipients) {
			t.Errorf("%s: %d blocks of status, want %d: %v", tt.name, len(p.status), 1+len(tt.r.Recipients), p.status)
		}
		for _, field := range p.status[1:] {
			if field.Get("Action") != string(tt.r.Action) || len(field.Values("Status")) != 1 || len(field.Values("Final-Recipient")) != 1 {
				t.Errorf("%s: %v", tt.name, field)
			}
		}
		if strings.ContainsAny(p.text, "\x00\x1b") || strings.Contains(p.text, "\u202e") {
			t.Errorf("%s: the text has controls: %q", tt.name, p.text)
		}
	}
	if got := parse(t, write(t, utf8, content)).status[1].Get("Final-Recipient"); got != `utf-8; gr\x{FC}n\x{2B}x@example.net` {
		t.Errorf("Final-Recipient: %s", got)
	}
}

// The parameters of RFC 3461 come back decoded, and the status suits the action.
func TestFieldsForPrograms(t *testing.T) {
	t.Parallel()
	r := report(Delayed, busy(), unreachable(), spool.Reply{Code: 550, Status: "5.2.2", Text: "full"},
		spool.Reply{Code: 554, Status: "4.7.1", Text: "your address is listed"})
	r.Message.EnvelopeID = "ab+c"
	r.Message.Recipients[0].Original = "rfc822;alias@example.net"
	p := parse(t, write(t, r, content))
	for _, tt := range []struct {
		block       int
		field, want string
	}{
		{0, "Reporting-MTA", "dns; web1.example.org"},
		{0, "Original-Envelope-Id", "ab+c"},
		{0, "Arrival-Date", "Mon, 2 Nov 2026 10:00:00 +0100"},
		{1, "Original-Recipient", "rfc822;alias@example.net"},
		{1, "Final-Recipient", "rfc822; bob@example.net"},
		{1, "Status", "4.2.1"},
		{1, "Remote-MTA", "dns; mx1.example.net"},
		{1, "Diagnostic-Code", "smtp; 451 4.2.1 Mailbox busy"},
		{1, "Will-Retry-Until", "Sat, 7 Nov 2026 10:00:00 +0100"},
		{2, "Remote-MTA", ""},
		{2, "Diagnostic-Code", "X-Postino; mx1.example.net[192.0.2.1]:25: connection refused"},
		{3, "Status", "4.0.0"},
		{4, "Status", "4.7.1"},
		{4, "Diagnostic-Code", "smtp; 554 5.7.1 your address is listed"},
	} {
		if got := p.status[tt.block].Get(tt.field); got != tt.want {
			t.Errorf("block %d, %s: %q, want %q", tt.block, tt.field, got, tt.want)
		}
	}
	if got := p.header.Get("References"); got != "<m1@example.org>" {
		t.Errorf("References: %q", got)
	}
}

// Half a message must not look like a whole one.
func TestContentThatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	broken := io.MultiReader(strings.NewReader(content), iotest.ErrReader(spool.ErrDamaged))
	if err := report(Failed, noSuchUser()).Write(&b, broken); !errors.Is(err, spool.ErrDamaged) || b.Len() > 0 {
		t.Errorf("%v, and %d octets were written", err, b.Len())
	}
}
