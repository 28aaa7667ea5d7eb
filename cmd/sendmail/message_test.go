package main

import (
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postino/spool/header"
)

const plain = "From: alice@example.org\nTo: bob@example.net\nSubject: t\n\nhello\n"

func words(s string) []string { return strings.Split(s, "|") }

// What callers are known to pass, none of which changes who gets what. The names
// in the comments are those of the callers.
func TestOptionsOfOtherMailersAreAccepted(t *testing.T) {
	for _, args := range []string{
		"bob@example.net",
		"--|bob@example.net",
		"-om|-m|bob@example.net",
		"-odi|bob@example.net", "-odf|bob@example.net", "-odb|bob@example.net", "-odq|bob@example.net",
		"-oem|bob@example.net", "-oep|bob@example.net", "-oee|bob@example.net", "-oeq|bob@example.net", "-oew|bob@example.net",
		"-ep|bob@example.net", "-eq|bob@example.net", "-e|m|bob@example.net",
		"-B8BITMIME|bob@example.net", "-B|7BIT|bob@example.net", // cron
		"-O|DeliveryMode=b|bob@example.net", "-OQueueDirectory=/tmp|-oQ/tmp|-O|RunAsUser=root|bob@example.net",
		"-L|mytag|bob@example.net", "-U|bob@example.net", "-n|bob@example.net", "-v|bob@example.net",
		"-p|UUCP:host|bob@example.net", "-Am|bob@example.net", "-Ac|bob@example.net", "-h|5|bob@example.net",
		"-om|-oi|-odb|-oem|bob@example.net", // mail user agents
		"-X|/nonexistent/log|bob@example.net", "-C/etc/shadow|bob@example.net",
		"-G|-c|-s|-x|-E|-Jx|-d0.1|bob@example.net",
		"-bm|bob@example.net",
		"-i|bob@example.net", "-oi|bob@example.net",
		"-t|-i", "-t", "-ti", "-it", "-t|bob@example.net",
		"-Ngarbage|-R|garbage|-V|a\r\nRCPT TO:<eve@example.com>|bob@example.net",
	} {
		r := call{args: words(args), stdin: plain}.run(t)
		if r.code != 0 || r.stdout != "" || r.stderr != "" || r.mail == nil {
			t.Errorf("sendmail %q: status %d, said %q and %q; want silence and a drop file", args, r.code, r.stdout, r.stderr)
			continue
		}
		want := mail{
			sender: login(t) + "@localhost", senderParams: "SIZE=" + strconv.Itoa(len(plain)+strings.Count(plain, "\n")),
			rcpts:  []string{"bob@example.net"},
			header: []string{"From: alice@example.org", "To: bob@example.net", "Subject: t"}, body: "hello\n",
			noAliases: strings.HasPrefix(args, "-n"),
		}
		if !equal(*r.mail, want) {
			t.Errorf("sendmail %q: got %+v; want %+v", args, *r.mail, want)
		}
	}
}

func equal(a, b mail) bool {
	return a.sender == b.sender && a.noAliases == b.noAliases && a.senderParams == b.senderParams && a.rcptParams == b.rcptParams &&
		a.body == b.body && slices.Equal(a.rcpts, b.rcpts) && slices.Equal(a.header, b.header)
}

func TestRecipients(t *testing.T) {
	many := make([]string, 1200)
	for i := range many {
		many[i] = "u" + strconv.Itoa(i) + "@example.net"
	}
	for _, tt := range []struct{ args, stdin, want string }{
		{"bob@example.net, carol@example.com", "", "bob@example.net|carol@example.com"},
		{"a@x.org|a@X.ORG|A@x.org", "", "a@x.org|A@x.org"},
		{"Bob B <bob@example.net>", "", "bob@example.net"},
		{"bob@example.net (Bob)", "", "bob@example.net"},
		{"bob@example.net,", "", "bob@example.net"},
		{"bob carol", "", "bob@localhost|carol@localhost"},
		{"root", "", "root@localhost"},
		{"bob@[192.0.2.1]", "", "bob@[192.0.2.1]"},
		{`"bob smith"@example.net`, "", `"bob smith"@example.net`},
		{"o'neil#!%@example.net", "", "o'neil#!%@example.net"},
		{"jürgen@example.net", "", "jürgen@example.net"},
		{strings.Join(many, "|"), "", strings.Join(many, "|")},
		{"-t", "To: " + strings.Join(many, ",\n ") + "\n\nx\n", strings.Join(many, "|")},
		{"-t", "To: a1@example.net\nTo: a2@example.net\n\nx\n", "a1@example.net|a2@example.net"},
		{"-t", "To: \"Doe, Bob\" <bob@example.net>, carol@example.com\n\nx\n", "bob@example.net|carol@example.com"},
		{"-t", "To: =?UTF-8?B?SsO8cmdlbg==?= <bob@example.net>\n\nx\n", "bob@example.net"},
		{"-t", "To: Jürgen <bob@example.net>\n\nx\n", "bob@example.net"},
		{"-t", "To: Friends: a1@example.net, a2@example.net;\n\nx\n", "a1@example.net|a2@example.net"},
		{"-t", "To : bob@example.net\n\nx\n", "bob@example.net"},
		{"-t", "To: a1@example.net a2@example.net\n\nx\n", "a1@example.net|a2@example.net"},
		{"-t", "To: a1@example.net,, ,a2@example.net,\n\nx\n", "a1@example.net|a2@example.net"},
		{"-t", "To: \"bob smith\"@example.net\n\nx\n", `"bob smith"@example.net`},
		{"-t", "To: bob@example.net\n\nTo: eve@example.com\n", "bob@example.net"},
		{"-t|carol@example.com", "To: bob@example.net\n\nx\n", "carol@example.com|bob@example.net"},
		{"-t", "To: bob@example.net\nCc: Bob <bob@example.net>\n\nx\n", "bob@example.net"},
		{"-t", "Resent-From: a@x.org\nTo: bob@example.net\n\nx\n", "bob@example.net"},
		{"-t", "Resent-To: carol@example.com\nTo: bob@example.net\n\nx\n", "carol@example.com"},
		{"-t", "To: bob@example.net (eve@example.com)\n\nx\n", "bob@example.net"},
		{"-t", "To: bob@example.net (a (b) c), carol@example.com\n\nx\n", "bob@example.net|carol@example.com"},
		{"-t", "To: bob@example.net\nApparently-To: eve@example.com\n\nx\n", "bob@example.net"},
		{"-t", "From: a@x.org\r\nTo: bob@example.net\r\nBcc: b@example.net\r\n\r\nx\r\n", "bob@example.net|b@example.net"},
		{"-t", "From alice Mon Jan  1 00:00:00 2024\nTo: bob@example.net\n\nx\n", "bob@example.net"},
		{"-t", "X-Long: " + strings.Repeat("yyyyyyyyy\n ", 6000) + "\nTo: bob@example.net\n\nx\n", "bob@example.net"},
	} {
		r := call{args: words(tt.args), stdin: tt.stdin}.run(t)
		if r.code != 0 || r.stderr != "" || r.mail == nil || !slices.Equal(r.mail.rcpts, words(tt.want)) {
			t.Errorf("sendmail %.100q with %.100q: status %d, %s, %+.300v; want %.100q", tt.args, tt.stdin, r.code, r.stderr, r.mail, tt.want)
			continue
		}
		if slices.ContainsFunc(r.mail.header, func(f string) bool { return strings.Contains(strings.ToLower(f), "bcc") }) {
			t.Errorf("sendmail %.100q with %.100q: Bcc was not removed", tt.args, tt.stdin)
		}
		if utf8 := strings.Contains(r.mail.senderParams, "SMTPUTF8"); utf8 != strings.Contains(tt.want, "ü") {
			t.Errorf("sendmail %.100q: parameters %q", tt.args, r.mail.senderParams)
		}
	}
}

func TestWhatIsWrongIsRefusedWhole(t *testing.T) {
	for _, tt := range []struct {
		args, stdin string
		code        int
		says        string
	}{
		{"", "Subject: t\n\nx\n", 64, "no recipients: name them after the options, or use -t"},
		{"-oit", plain, 64, "no recipients: -oit is -oi"},
		{"-t", "Subject: t\n\nx\n", 64, "no recipients: the header names none"},
		{"-oee|-t", "Subject: t\n\nx\n", 64, "no recipients"},
		{"-oeq|-t", "Subject: t\n\nx\n", 64, "no recipients"},
		{"-t", "To: undisclosed-recipients:;\n\nx\n", 64, "no recipients"},
		{"-t", "To: (nobody)\n\nx\n", 64, "no recipients"},
		{"-t", "", 64, "no recipients"},
		{"-t", "To: bob@example.net, eve@@example.com\n\nx\n", 65, "To: "},
		{"-t", "To: \"bob@example.net\n\nx\n", 65, "To: "},
		{"bob@example.net|-f|eve@example.com", plain, 64, `"-f"`},
		{"-Z|bob@example.net", plain, 64, `"-Z"`},
		{"-Mrm|bob@example.net", plain, 64, `"-M"`},
		{"-T3d|bob@example.net", plain, 64, `"-T"`},
		{"bob@example.net|", plain, 65, `"" names nobody`},
		{"<>", plain, 65, "recipient: "},
		{"bob@example.net|@example.net", plain, 65, "@example.net"},
		{"bob@|carol@example.com", plain, 65, "bob@"},
		{"--|bob@example.net|-X/tmp/a", plain, 65, `may not begin with "-"`},
		{"--|-", plain, 65, `may not begin with "-"`},
		{"bob@example.net\nRCPT TO:<eve@example.com>", plain, 65, "recipient: "},
		{"bob@example.net,\r\n eve@example.com", plain, 65, "control character"},
		{"bob\x00@example.net", plain, 65, "recipient: "},
		{"-f|a@example.org, b@example.org|bob@example.net", plain, 65, "sender: "},
		{"-f|a@x\r\nRCPT TO:<eve@example.com>|bob@example.net", plain, 65, "sender: "},
		{"-t", strings.Repeat("X: y\n", 300_000) + "To: bob@example.net\n\nx\n", 65, "1 MiB"},
	} {
		if strings.Contains(tt.args, "\x00") {
			continue // the kernel ends an argument there
		}
		args := words(tt.args)
		if tt.args == "" {
			args = nil
		}
		r := call{args: args, stdin: tt.stdin}.run(t)
		if r.code != tt.code || r.stdout != "" || r.mail != nil || !strings.Contains(r.stderr, tt.says) {
			t.Errorf("sendmail %q: status %d, said %q and %q, left %v; want %d, %q and nothing", tt.args, r.code, r.stdout, r.stderr, r.mail, tt.code, tt.says)
		}
		if line, ok := strings.CutSuffix(r.stderr, "\n"); !ok || !strings.HasPrefix(line, "sendmail: ") || hasControl(line) {
			t.Errorf("sendmail %q said %q; want one line of sendmail", tt.args, r.stderr)
		}
	}
}

func TestSender(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-i", login(t) + "@localhost"},
		{"-f|sender@example.org", "sender@example.org"},
		{"-r|sender@example.org", "sender@example.org"},
		{"-ti|-fone@example.org|-ftwo@example.org", "two@example.org"}, // PHP
		{"-tifsender@example.org", "sender@example.org"},
		{"-f|<bounce@example.org>", "bounce@example.org"},
		{"-f|Bounce Mgr <bounce@example.org>", "bounce@example.org"},
		{"-f|BounceX@Example.ORG", "BounceX@Example.ORG"},
		{"-FCronDaemon|-i|-odi|-oem|-oi|-t|-f|root", "root@localhost"}, // cronie
		{"-f|fail2ban@labhost", "fail2ban@labhost"},
		{"-f|", ""},
		{"-f|<>", ""},
		{"-f<>", ""},
	} {
		r := call{args: append(words(tt.args), "bob@example.net"), stdin: plain,
			env: []string{"USER=eve", "LOGNAME=eve", "EMAIL=eve@example.com", "MAILHOST=example.com"}}.run(t)
		if r.code != 0 || r.mail == nil || r.mail.sender != tt.want {
			t.Errorf("sendmail %q: status %d, %s, %+v; want the sender %q", tt.args, r.code, r.stderr, r.mail, tt.want)
		}
	}
}

func TestGeneratedFrom(t *testing.T) {
	me := whoAmI(passwdFile, os.Getuid())
	own := me.login
	if me.fullName != "" {
		own = me.fullName + " <" + me.login + ">"
	}
	for _, tt := range []struct{ args, env, want string }{
		{"-i", "", own},
		{"-F|Web App", "", "Web App <" + me.login + ">"},
		{"-F|Web App", "Env Name", "Web App <" + me.login + ">"},
		{"-F|O'Neil, Pat (x)", "", `"O'Neil, Pat (x)" <` + me.login + ">"},
		{"-F|a\r\nBcc: eve@example.com", "", `"a  Bcc: eve@example.com" <` + me.login + ">"},
		{"-F|", "Env Name", me.login},
		{"-F|Jürgen", "", "=?UTF-8?B?SsO8cmdlbg==?= <" + me.login + ">"},
		{"-i", "Env Name", "Env Name <" + me.login + ">"},
		{"-f|bounce@example.org|-F|X", "", "X <bounce@example.org>"},
		{"-f|<>", "Env Name", "Mail Delivery System <MAILER-DAEMON>"},
		{"-f|<>|-F|X", "", "X <MAILER-DAEMON>"},
	} {
		r := call{args: append(words(tt.args), "bob@example.net"), stdin: "To: bob@example.net\n\nx\n", env: []string{"NAME=" + tt.env}}.run(t)
		if r.mail == nil || !slices.Equal(r.mail.header, []string{"To: bob@example.net", "From: " + tt.want}) {
			t.Errorf("sendmail %q with NAME=%s: %+v; want From: %s", tt.args, tt.env, r.mail, tt.want)
		}
	}
}

func TestDeliveryReportParameters(t *testing.T) {
	for _, tt := range []struct{ args, sender, rcpt string }{
		{"-N|never", "SIZE=67", "NOTIFY=NEVER"},
		{"-R|hdrs", "SIZE=67 RET=HDRS", ""},
		{"-V|QQ314159", "SIZE=67 ENVID=QQ314159", ""},
		{"-V|a+00b", "SIZE=67 ENVID=a+2B00b", ""},
		{"-oem|-oi|-N|failure,delay|-R|hdrs|--", "SIZE=67 RET=HDRS", "NOTIFY=FAILURE,DELAY"}, // mutt
	} {
		r := call{args: append(words(tt.args), "bob@example.net"), stdin: plain}.run(t)
		if r.mail == nil || r.mail.senderParams != tt.sender || r.mail.rcptParams != tt.rcpt {
			t.Errorf("sendmail %q: %+v; want %q and %q", tt.args, r.mail, tt.sender, tt.rcpt)
		}
	}
}

func TestMessage(t *testing.T) {
	const from = "From: a@example.org"
	const head = from + "\nTo: bob@example.net\n\n"
	basic := []string{from, "To: bob@example.net"}
	generated := []string{"From: X <" + whoAmI(passwdFile, os.Getuid()).login + ">"}
	long := strings.Repeat("y", 5000)
	for _, tt := range []struct {
		args, stdin string
		header      []string
		body        string
	}{
		{"-i", head + "a\n.\nb\n", basic, "a\n.\nb\n"},
		{"-oit", head + "a\n.\nb\n", basic, "a\n.\nb\n"},
		{"-oitrue", head + "a\n.\nb\n", basic, "a\n.\nb\n"},
		{"-v", head + "a\n.\nb\n", basic, "a\n"},
		{"-v", head + "a\r\n.\r\nb\r\n", basic, "a\n"},
		{"-v", head + "a\n.", basic, "a\n"},
		{"-i", head + "a\n.", basic, "a\n.\n"},
		{"-v", head + "..\n..x\n.y\n", basic, "..\n..x\n.y\n"},
		{"-i", head + "..\n.x\n", basic, "..\n.x\n"},
		{"-v", from + "\n.\nCc: eve@example.com\n\nx\n", []string{from}, ""},
		{"-i", head + "l1\r\nl2\r\n", basic, "l1\nl2\n"},
		{"-i", "From: a@example.org\r\nX-A: 1\n\r\nb\r\n", []string{from, "X-A: 1"}, "b\n"},
		{"-i", head + "a\rb\n", basic, "a\nb\n"},
		{"-i", head + "a\x00b\n", basic, "ab\n"},
		{"-i", head + "abc", basic, "abc\n"},
		{"-i", head + "a  \n\t\nb\n", basic, "a  \n\t\nb\n"},
		{"-i", head + "a\fb\x1bc\n", basic, "a\fb\x1bc\n"},
		{"-i", head + long + "\n", basic, long + "\n"},
		{"-i", head + "grüße\n", basic, "grüße\n"},
		{"-FX", "just text\nmore\n", generated, "just text\nmore\n"},
		{"-FX", "", generated, ""},
		{"-FX", "\x00\x00\x00\n", generated, ""},
		{"-i", from + "\nno colon here\nx\n", []string{from}, "no colon here\nx\n"},
		{"-i", "From alice@x Mon Jan  1 00:00:00 2024\n" + head + "x\n", basic, "x\n"},
		{"-i", ">From alice Mon Jan  1 00:00:00 2024\n" + head + "x\n", basic, "x\n"},
		{"-i", "From alice\n" + head + "x\n", basic, "x\n"},
		{"-i", "X_Foo.Bar+1: v\n" + head + "x\n", []string{"X_Foo.Bar+1: v", basic[0], basic[1]}, "x\n"},
		{"-i", from + "\nSubject: one\n two\n  three\n\nx\n", []string{from, "Subject: one\x00 two\x00  three"}, "x\n"},
		{"-i", from + "\nTo: \"X,  Y\"\n  <bob@example.net>\nX-Foo:   spaced   value\n\nx\n",
			[]string{from, "To: \"X,  Y\"\x00  <bob@example.net>", "X-Foo:   spaced   value"}, "x\n"},
		{"-i", from + "\nFrom: b@example.org\n\nx\n", []string{from, "From: b@example.org"}, "x\n"},
		{"-FNope", "Sender: list@example.org\n" + head + "x\n", []string{"Sender: list@example.org", basic[0], basic[1]}, "x\n"},
		{"-i", "Return-Path: <x@example.org>\nContent-Length: 7\n" + head + "x\n", basic, "x\n"},
		{"-i", "bcc: eve@example.com,\n eve2@example.com\nResent-Bcc: eve@example.com\n" + head + "Bcc: kept\n", basic, "Bcc: kept\n"},
	} {
		r := call{args: []string{tt.args, "bob@example.net"}, stdin: tt.stdin}.run(t)
		if r.code != 0 || r.mail == nil || r.mail.body != tt.body || !slices.Equal(r.mail.header, tt.header) {
			t.Errorf("sendmail %s with %.200q: status %d, %s, %+.500v; want %q and %.200q", tt.args, tt.stdin, r.code, r.stderr, r.mail, tt.header, tt.body)
			continue
		}
		eight := strings.ContainsFunc(tt.stdin, func(c rune) bool { return c > 127 })
		if eight != strings.Contains(r.mail.senderParams, "BODY=8BITMIME") || strings.Contains(r.mail.senderParams, "SMTPUTF8") {
			t.Errorf("sendmail %s with %.200q: parameters %q", tt.args, tt.stdin, r.mail.senderParams)
		}
	}
}

func TestEightBitHeaderIsAnnounced(t *testing.T) {
	r := call{args: []string{"bob@example.net"}, stdin: "Subject: grüße\n\nx\n"}.run(t)
	if r.mail == nil || !strings.Contains(r.mail.senderParams, "BODY=8BITMIME") || !r.mail.has("Subject: grüße") {
		t.Errorf("%+v; want BODY=8BITMIME", r.mail)
	}
}

func TestLargeMessageComesWhole(t *testing.T) {
	body := strings.Repeat(strings.Repeat("x", 70)+"\n", 30_000) // 2 MB
	r := call{args: []string{"-i", "bob@example.net"}, stdin: "From: a@example.org\n\n" + body}.run(t)
	if r.code != 0 || r.mail == nil || r.mail.body != body {
		t.Errorf("status %d, %s; want the body of %d octets", r.code, r.stderr, len(body))
	}
}

// An input that never becomes a message ends too: NULs are removed, so no limit of
// the message would end it.
func TestInputWithoutMessageEnds(t *testing.T) {
	in := &input{io.MultiReader(strings.NewReader("Subject: t\n\n"), zeros{}), 1 << 20}
	_, body, err := header.Read(in, header.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, body); n != 0 || status(err) != exitData {
		t.Errorf("%d octets and %v; want none and an error with status %d", n, err, exitData)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
