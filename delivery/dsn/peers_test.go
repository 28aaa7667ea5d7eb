package dsn

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/standstill"
)

// patience is how long a test waits for a program to end, so that a broken one ends the
// test instead of hanging it. No stall of the machine comes near it.
const patience = 2 * time.Minute

func bufioReader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }

// Python's email package has its own idea of a delivery report.
func TestPythonReadsReports(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r := report(Failed, noSuchUser(), busy())
	r.Message.Subject = "=?utf-8?q?Gr=C3=BC=C3=9Fe?= " + strings.Repeat("long ", 20)
	cmd := standstill.Command(t, patience, python, "-c", `
import email, email.policy, sys
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
def defects(p): return p.defects + [d for q in (p.iter_parts() if p.is_multipart() else []) for d in defects(q)]
text, status, original = m.iter_parts()
assert not defects(m), defects(m)
blocks = status.get_payload()
print(m.get_content_type(), m.get_param("report-type"), len(blocks))
print(m["subject"])
print(m["from"].addresses[0].addr_spec, m["to"], m["auto-submitted"])
for b in blocks[1:]: print(b["final-recipient"], b["action"], b["status"])
print(original.get_content_type(), original.get_payload()[0]["subject"])
`)
	cmd.Stdin = strings.NewReader(write(t, r, content))
	out, err := cmd.CombinedOutput()
	want := "multipart/report delivery-status 3\n" +
		"Not delivered: \"Grüße " + strings.Repeat("long ", 10) + "long…\" to bob@example.net and 1 more\n" +
		"MAILER-DAEMON@example.org ann@example.org auto-replied\n" +
		"rfc822; bob@example.net failed 5.1.1\nrfc822; bobb@example.net failed 4.2.1\n" +
		"message/rfc822 Invoice\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\n%swant\n%s", err, out, want)
	}
}

// Every status has a meaning, and those that senders meet most have one of their own.
func TestEveryStatusMeansSomething(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"", "5", "5.0.0", "4.0.0", "5.9.9", "4.7.999"} {
		if r := Read(spool.Reply{Status: status}); r.Means == "" || r.Do == "" {
			t.Errorf("%q means nothing", status)
		}
	}
	seen := map[string]string{}
	for _, status := range []string{"5.1.1", "5.1.2", "5.1.10", "5.2.1", "5.2.2", "5.3.4", "5.4.6", "4.4.7", "5.6.7", "5.7.1", "4.7.1", "5.7.23", "5.7.25", "5.7.26", "5.0.0", "4.0.0"} {
		means := Read(spool.Reply{Status: status}).Means
		if other, dup := seen[means]; dup {
			t.Errorf("%s and %s mean the same", status, other)
		}
		seen[means] = status
	}
}

// Whatever a remote or a sender wrote: the report can be taken apart again.
func FuzzWrite(f *testing.F) {
	f.Add("No such user", "mx1[192.0.2.1]", "Invoice", "<a@b>", "rfc822;x@y", content)
	f.Add("a\r\n\r\nb", "\x00", "=?utf-8?q?=00?=", "<\r\n>", "utf-8;grün", "\xff\r\n")
	f.Fuzz(func(t *testing.T, text, host, subject, messageID, original, content string) {
		content = strings.ReplaceAll(strings.NewReplacer("\r", "", "\n", "\r\n").Replace(content), "\x00", "")
		r := report(Failed, spool.Reply{Code: 550, Status: "5.0.0", Text: text, Host: host})
		r.Message.Subject, r.Message.MessageID = subject, messageID
		r.Message.Recipients[0].Original = original
		p := parse(t, write(t, r, content))
		if len(p.status) != 2 || p.header.Get("To") != "ann@example.org" {
			t.Errorf("%v\n%v", p.header, p.status)
		}
	})
}
