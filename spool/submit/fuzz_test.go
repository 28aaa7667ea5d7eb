package submit_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/spool/submit"
)

// The law: whatever a client of sendmail -bs sends, the session ends, each message
// that it was told to be queued is a file in drop/ and no other is, and each file
// is one message with recipients and in canonical lines: nothing in its content was
// taken for a command, and no command for content.
func FuzzStdio(f *testing.F) {
	const open = "EHLO me\r\nMAIL FROM:<x@example.org> BODY=8BITMIME\r\nRCPT TO:<root>\r\n"
	for _, seed := range []string{
		open + "DATA\r\nSubject: t\r\n\r\n..a\r\n.\r\nQUIT\r\n",
		open + "DATA\r\nSubject: t\r\n\r\na\n.\nMAIL FROM:<y@example.org>\r\nb\r\n.\r\nQUIT\r\n",
		strings.ReplaceAll(open+"DATA\r\nSubject: t\r\n\r\na\r\n.\r\nQUIT\r\n", "\r\n", "\n"),
		open + "DATA\r\na\rb\x00c\r\n..\r\n.\r\n" + open[9:] + "RSET\r\n" + open[9:] + "DATA\r\n\r\n.\r\nQUIT\r\n",
		open + "BDAT 5\r\nab\r\nQBDAT 0 LAST\r\nQUIT\r\n",
		"EHLO me\r\nMAIL FROM:<\"SIZE=1 SIZE=5000000000\"@x.test> SIZE=5000000000\r\n" + open[9:] + "BDAT 2 LAST\r\n\r\n",
		open + "BDAT 9999999 LAST\r\nSubject: cut short\r\n",
		"HELO me\r\nMAIL FROM:<> RET=HDRS ENVID=a+2Bb\r\nRCPT TO:<\"a>b\"@c.example> NOTIFY=NEVER ORCPT=rfc822;a@b\r\nDATA\r\n.\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, session []byte) {
		dir := t.TempDir()
		var replies bytes.Buffer
		handed := 0
		stdio := submit.Stdio{Dir: dir, Hostname: "host.test", Handed: func(bool) { handed++ }}
		err := stdio.Serve(bytes.NewReader(session), &replies)
		if err != nil {
			t.Fatalf("%q: %v", session, err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "drop", "*"))
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for line := range strings.Lines(replies.String()) {
			if strings.HasPrefix(line, "250 Ok: queued as ") {
				told++
			}
		}
		if told != len(files) || told != handed {
			t.Fatalf("%q: queued %d by the replies, %d by the calls, and %d files", session, told, handed, len(files))
		}
		for _, file := range files {
			checkDropFile(t, file)
		}
	})
}

// checkDropFile wants one submission in a file.
func checkDropFile(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rest := string(text)
	for _, verb := range []string{"EHLO ", "MAIL FROM:<", "RCPT TO:<"} {
		if !strings.HasPrefix(rest, verb) {
			t.Fatalf("%q stands where %q should: %q", rest, verb, text)
		}
		_, rest, _ = strings.Cut(rest, "\r\n")
	}
	for strings.HasPrefix(rest, "RCPT TO:<") {
		_, rest, _ = strings.Cut(rest, "\r\n")
	}
	size := 0
	command, content, _ := strings.Cut(rest, "\r\n")
	if _, err := fmt.Sscanf(command, "BDAT %d LAST", &size); err != nil || size != len(content) {
		t.Fatalf("%q for %d octets: %q", command, len(content), text)
	}
	if strings.ContainsAny(strings.ReplaceAll(content, "\r\n", ""), "\r\n\x00") || !strings.HasSuffix(content, "\r\n") {
		t.Fatalf("lines that are not canonical: %q", content)
	}
}
