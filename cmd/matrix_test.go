package cmd_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// matrixRow is one row of the table of flags and modes in which mailers differ:
// one command line and what must come of it.
type matrixRow struct {
	// line is the command line, cut at "|": the name, then the arguments, in which
	// NEVER is the path of a file that must never be there.
	line string
	code int
	// out is a regular expression for the output: standard output with status 0, else
	// standard error, which is then one line. Without it a status of 0 is silent.
	out string

	to   string // who gets the message, space between; "" when it is not sent
	from string // the sender; "" is the caller
	// body is what arrives of a text with a dot in it; "" is the part before the dot.
	body  string
	field string // a line of the header

	// stdin is given in place of the message. A mode that is not given one must not
	// read.
	stdin string
	user  bool // somebody to whom the spool does not belong
}

const (
	matrixBob  = "bob@example.net"
	wholeText  = "a\r\n.\r\nb\r\n"
	beforeDot  = "a\r\n"
	smtpMail   = "EHLO me\r\nMAIL FROM:<x@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\nSubject: %s\r\n\r\na\r\n.\r\nQUIT\r\n"
	smtpReply  = `(?s)^220 .*\r\n250 Ok: queued as [0-9A-F]+\r\n221 [^\n]*\n$`
	oneVersion = `^postino [^\n]+\n$`
)

// matrixOptions are the options, in the order of the alphabet: each that takes a
// value with the value in the same word and in the next.
func matrixOptions() []matrixRow {
	rows := []matrixRow{
		{line: "sendmail|-tX|NEVER", to: "header@example.net"},
		{line: "sendmail|-t", to: "header@example.net"},
		{line: "sendmail|-t|bob@example.net", to: "bob@example.net header@example.net"},
		{line: "sendmail|-fone@example.org|-f|two@example.org|bob@example.net", to: matrixBob, from: "two@example.org"},
		{line: "sendmail|-f|one@example.org|-rtwo@example.org|bob@example.net", to: matrixBob, from: "two@example.org"},
		{line: "sendmail|-f||bob@example.net", to: matrixBob, from: "<>", field: `From: Mail Delivery System <MAILER-DAEMON@web\.test>`},
		{line: "sendmail|-f<>|bob@example.net", to: matrixBob, from: "<>"},
		{line: "sendmail|-E|x|bob@example.net", to: "bob@example.net x@web.test"}, // never the next word
		{line: "sendmail|-J|x|bob@example.net", to: "bob@example.net x@web.test"},
		{line: "sendmail|-d|0|bob@example.net", to: "0@web.test bob@example.net"},
		{line: "sendmail|-d0.1", out: `^postino sendmail [^\n]+\n$`},
		{line: "sendmail|-d0.1|-bv|root", out: `^postino sendmail [^\n]+\n$`},
		{line: "sendmail|--|bob@example.net", to: matrixBob},
		{line: "sendmail|-i|--|bob@example.net", to: matrixBob, body: wholeText},
		{line: "sendmail|--help", out: `^usage: sendmail `},
		{line: "sendmail|--version", out: `^postino sendmail [^\n]+\n$`},
		{line: "sendmail|--help-me|bob@example.net", code: 64, out: `"--help-me"`},
	}
	for _, f := range words("-Ac -Am -Ax -A|c -B7BIT -B8BITMIME -B|8BITMIME -BODD -CNEVER -C|NEVER -c -d -dX -d0.1 -E -Ex " +
		"-em -ep -eq -ew -ee -ex -e|m -G -h5 -hX -h|5 -J -Jx -Ltag -L|tag -m -om -Nsuccess -N|never -N|failure,delay -Nbad -n " +
		"-Oname=value -O|name=value -OQueueDirectory=NEVER -o7 -o8 -o8m -oANEVER -o|ANEVER -odb -odi -odf -odq -odd -odx " +
		"-oem -oep -oeq -oew -oee -oo -ov -oMrx -oMsx -oMax -oQNEVER -oT1h -oc -oZ1 -pUUCP:host -p|UUCP:host " +
		"-Rhdrs -Rfull -R|hdrs -Rbad -s -U -VQQ314 -V|QQ314 -v -vv -XNEVER -X|NEVER -XV -XVab -x -bm -b|m -bq -b|q") {
		rows = append(rows, matrixRow{line: "sendmail|" + f + "|bob@example.net", to: matrixBob})
	}
	for _, f := range words("-i -oi -oitrue -o|i -oit") {
		rows = append(rows, matrixRow{line: "sendmail|" + f + "|bob@example.net", to: matrixBob, body: wholeText})
	}
	for _, f := range words("-f -r") {
		for _, gap := range []string{"", "|"} {
			rows = append(rows, matrixRow{line: "sendmail|" + f + gap + "x@example.org|bob@example.net", to: matrixBob,
				from: "x@example.org", field: `From: .*\bx@example\.org\b.*`})
		}
	}
	for _, gap := range []string{"", "|"} {
		rows = append(rows, matrixRow{line: "sendmail|-F" + gap + "Web App|bob@example.net", to: matrixBob, field: "From: Web App <.+@web.test>"})
	}
	for _, f := range words("-DNEVER -D|NEVER -Mrm -M|rm -Q -Qreason -S -T -T1h -T|1h -z|text -ztext " +
		"-a -g -H -j -K -k -l -P -u -W -w -Y -y -Z -1 -@") {
		rows = append(rows, matrixRow{line: "sendmail|" + f + "|bob@example.net", code: 64, out: regexp.QuoteMeta(f[:2])})
	}
	for _, letter := range "ABCFLNORVXbefhopr" {
		rows = append(rows, matrixRow{line: "sendmail|-" + string(letter), code: 64, out: "-" + string(letter) + " needs a value"})
	}
	return rows
}

// matrixModes are the forms of -b and -q.
func matrixModes() []matrixRow {
	rows := []matrixRow{
		{line: "sendmail|-bd"}, // the runner that is there is as good
		{line: "sendmail|-bl"},
		{line: "sendmail|-bd|-q15m"},
		{line: "sendmail|-bD", code: 1, out: "pid"},
		{line: "sendmail|-bd", user: true, code: 77, out: "runner"},
		{line: "sendmail|-b|d", user: true, code: 77, out: "runner"},
		{line: "sendmail|-bl", user: true, code: 77, out: "runner"},
		{line: "sendmail|-bD", user: true, code: 77, out: "runner"},
		{line: "sendmail|-bp", out: `^Mail queue is empty\n$`},
		{line: "sendmail|-b|p", user: true, out: `^Mail queue is empty\n$`},
		{line: "sendmail|-bP", out: `^0\n$`},
		{line: "sendmail|-bC", out: `: ok\n$`},
		{line: "sendmail|-bV", out: oneVersion},
		{line: "sendmail|-bv|bob@example.net", out: `^[^\n]*bob@example\.net[^\n]*\n$`},
		{line: "sendmail|-bv|a@example.net|b@example.net", user: true, out: `(?s)a@example\.net.*b@example\.net`},
		{line: "sendmail|-bs", stdin: smtpMail, out: smtpReply, to: matrixBob, from: "x@example.org"},
		{line: "sendmail|-b|s|-i", stdin: smtpMail, out: smtpReply, to: matrixBob, from: "x@example.org"},
		{line: "sendmail|-t|-bs", user: true, stdin: smtpMail, out: smtpReply, to: matrixBob, from: "x@example.org"},
		{line: "sendmail|-bp|-t", code: 64, out: "-t"},
		{line: "sendmail|-bp|bob@example.net", code: 64, out: "recipients"},
		{line: "sendmail|-bp|-CNEVER", user: true, code: 64, out: "-C"},
		{line: "sendmail|-bp|-C|/etc/shadow", user: true, code: 64, out: "-C"},
	}
	for _, f := range words("-bh -b|h -bH -bi -b|i -I -q -qf -qI -qI1 -qIabc -qR -qRbob@example.net -qS -qSroot -qGgroup " +
		"-q!Rbob -qQ -qL -qp") {
		rows = append(rows, matrixRow{line: "sendmail|" + f}, matrixRow{line: "sendmail|" + f, user: true})
	}
	for _, f := range words("-q1s -q30m -q1h30m") {
		rows = append(rows, matrixRow{line: "sendmail|" + f}, matrixRow{line: "sendmail|" + f, user: true})
	}
	// Who names recipients has a message for them, which is not read: a silent 0 would
	// lose it.
	for _, f := range words("-q|5m -q|bob@example.net -tq -q|-t -bi|bob@example.net -bh|bob@example.net -bH|-t -bP|bob@example.net") {
		rows = append(rows, matrixRow{line: "sendmail|" + f, code: 64, out: "neither recipients"},
			matrixRow{line: "sendmail|" + f, user: true, code: 64, out: "neither recipients"})
	}
	// Of all letters that -b may have, whatever they mean to other mailers.
	unknown := words("-bnq -bss -bpp -bmm -bqq -b|t -b|e -b1 -b=")
	for letter := 'A'; letter <= 'z'; letter++ {
		if !strings.ContainsRune("CDHPVdhilmpqsv", letter) {
			unknown = append(unknown, "-b"+string(letter))
		}
	}
	for _, f := range unknown {
		for _, who := range words("bob@example.net -t ${run{/usr/bin/id}}") {
			rows = append(rows, matrixRow{line: "sendmail|" + f + "|" + who, code: 64, out: "not a mode"})
		}
	}
	return rows
}

// matrixShapes are the shapes of words and the names of the program.
func matrixShapes() []matrixRow {
	const byHeader = "header@example.net"
	return []matrixRow{
		{line: "sendmail|-ti", to: byHeader, body: wholeText},
		{line: "sendmail|-it", to: byHeader, body: wholeText},
		{line: "sendmail|-tfx@example.org", to: byHeader, from: "x@example.org"},
		{line: "sendmail|-tif|x@example.org", to: byHeader, from: "x@example.org", body: wholeText},
		{line: "sendmail|-f|-t|bob@example.net", code: 65, out: `sender: "-t"`}, // a value, whatever it looks like
		{line: "sendmail|-F|-t|bob@example.net", to: matrixBob, field: "From: -t <.+@web.test>"},
		{line: "sendmail|-oit", code: 64, out: "-oi -t"},
		{line: "sendmail", code: 64, out: "no recipients"},
		{line: "sendmail|bob@example.net|-f|x@example.org", code: 64, out: `"-f"`},
		{line: "sendmail|bob@example.net|-XNEVER", code: 64, out: `"-X`},
		{line: "sendmail|--|-XNEVER", code: 65, out: `"-X`},
		{line: "sendmail|--|-bob@example.net", code: 65, out: `"-bob@example.net"`},
		{line: "sendmail|-", code: 64, out: `"-"`},
		{line: "sendmail|bob@example.net, Carol <carol@example.com>", to: "bob@example.net carol@example.com"},
		{line: "sendmail|bob@example.net|bob@EXAMPLE.net", to: matrixBob},
		{line: "send-mail|-i|bob@example.net", to: matrixBob, body: wholeText},
		{line: "send-mail|-bp", out: `^Mail queue is empty\n$`},
		{line: "mailq", out: `^Mail queue is empty\n$`},
		{line: "mailq", user: true, out: `^Mail queue is empty\n$`},
		{line: "mailq|bob@example.net", code: 64, out: "recipients"},
		{line: "newaliases"},
		{line: "newaliases", user: true},
		{line: "newaliases|-v"},
		{line: "hoststat"},
		{line: "purgestat", user: true},
		{line: "runq"},
		{line: "runq", user: true},
		{line: "smtpd"},
		{line: "smtpd", user: true, code: 77, out: "runner"},
		{line: "rmail|bob@example.net", to: matrixBob, body: wholeText},
		{line: "rsmtp", code: 64, out: "rsmtp"},
	}
}

// words are the cells of a column.
func words(s string) []string { return strings.Fields(s) }

// Each option, mode and name has the one meaning that the manual gives it: it sends
// the message to whom it should and is silent, or it sends nothing and says why, and
// no mode that is not asked to takes a message. Whatever a word says, no file
// comes of it.
func TestFlagsAndModes(t *testing.T) {
	t.Parallel()
	b := newBox(t, "")
	b.configure("mode = \"capture\"\n[aliases]\nfile = \"" + filepath.Join(b.dir, "aliases") + "\"\n")
	b.start()
	rows := slices.Concat(matrixOptions(), matrixModes(), matrixShapes())
	sent := 0
	for i, row := range rows {
		if row.user && os.Geteuid() != 0 {
			rows[i].to = ""
			continue
		}
		b.matrixCall(row, subjectOf(i))
		if row.to != "" {
			sent++
		}
	}
	b.log.awaitN(t, sent, "msg=finished")
	b.empty()
	kept := map[string]message{}
	for _, m := range parseMessages(t, b.postino("capture", "list", "--json")) {
		if _, twice := kept[m.Subject]; twice {
			t.Errorf("%s was sent more than once", m.Subject)
		}
		kept[m.Subject] = m
	}
	for i, row := range rows {
		m, ok := kept[subjectOf(i)]
		if ok != (row.to != "") {
			t.Errorf("%q: sent %v, want %v", row.line, ok, row.to != "")
		}
		if ok {
			b.matrixMessage(row, &m)
		}
		delete(kept, subjectOf(i))
	}
	if len(kept) > 0 {
		t.Errorf("sent, and by none of the rows: %v", kept)
	}
	if files, err := filepath.Glob(filepath.Join(b.dir, "never*")); err != nil || len(files) != 0 {
		t.Errorf("files %q, %v: want none", files, err)
	}
	poll(t, "an empty drop/", func() bool { return b.drops() == 0 })
}

func subjectOf(row int) string { return fmt.Sprintf("row %d", row) }

// matrixCall runs a row and looks at all but what arrives.
func (b *box) matrixCall(row matrixRow, subject string) {
	b.t.Helper()
	argv := strings.Split(strings.ReplaceAll(row.line, "NEVER", filepath.Join(b.dir, "never")), "|")
	cmd := b.command("", program("sendmail"), argv[1:]...)
	cmd.Args[0] = argv[0]
	text := "Subject: " + subject + "\nTo: header@example.net\n\na\n.\nb\n"
	if row.stdin != "" {
		text = fmt.Sprintf(row.stdin, subject)
	}
	in := b.file("input", text)
	defer in.Close()
	cmd.Stdin = in
	if row.user {
		cmd = as(strayUID, cmd)
	}
	r := b.run(cmd)
	// The place in the file is shared with the process: it says what was read.
	read, err := in.Seek(0, io.SeekCurrent)
	if err != nil {
		b.t.Fatal(err)
	}
	said, silent := r.out, r.err
	if row.code != 0 {
		said, silent = r.err, r.out
	}
	switch {
	case r.code != row.code, silent != "":
		b.t.Errorf("%q: %+v, want status %d", argv, r, row.code)
	case row.out == "" && said != "", !regexp.MustCompile(row.out).MatchString(said):
		b.t.Errorf("%q says %q, want %q", argv, said, row.out)
	case row.code != 0 && strings.Count(said, "\n") != 1:
		b.t.Errorf("%q says %q, want one line", argv, said)
	case row.to == "" && read != 0 && row.code != 65 && !strings.Contains(said, "no recipients"):
		// Who asks to send is read to the end before it is told what is wrong with
		// the addresses.
		b.t.Errorf("%q read %d octets of a message that it does not take", argv, read)
	}
}

// file is an open file with that text.
func (b *box) file(name, text string) *os.File {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

// matrixMessage looks at what arrived.
func (b *box) matrixMessage(row matrixRow, m *message) {
	b.t.Helper()
	var to []string
	for _, r := range m.Recipients {
		to = append(to, r.Address)
	}
	slices.Sort(to)
	if got := strings.Join(to, " "); got != row.to {
		b.t.Errorf("%q: sent to %q, want %q", row.line, got, row.to)
	}
	want := row.from
	switch want {
	case "":
		want = caller(b.t) + "@web.test"
	case "<>":
		want = ""
	}
	if m.Sender != want {
		b.t.Errorf("%q: from %q, want %q", row.line, m.Sender, want)
	}
	head, body := headerAndBody(b.t, []byte(b.postino("capture", "show", m.ID)))
	wantBody := row.body
	if wantBody == "" {
		wantBody = beforeDot
	}
	if body != wantBody {
		b.t.Errorf("%q: the body is %q, want %q", row.line, body, wantBody)
	}
	if row.field != "" && !regexp.MustCompile(`(?m)^`+row.field+`\r$`).MatchString(head) {
		b.t.Errorf("%q: no %q in %q", row.line, row.field, head)
	}
}

// caller is the login of who runs the test.
func caller(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("id", "-un").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
