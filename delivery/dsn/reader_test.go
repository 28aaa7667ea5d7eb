package dsn

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postino/spool"
	"postino/spool/address"
	"postino/spool/standstill"
)

// A mail program that people use shows each kind of report: the subjects tell them
// apart in the list, and the text is readable.
func TestMailProgramShowsReports(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("s-nail")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	umlaut := report(Failed, noSuchUser())
	umlaut.Message.Recipients[0].Address.Local, umlaut.Message.UTF8 = "grün", true
	ok := spool.Reply{Code: 250, Status: "2.0.0", Text: "Ok", Host: "mx1.example.net[192.0.2.1]", Command: "dot"}
	var box strings.Builder
	for _, r := range []*Report{report(Failed, noSuchUser()), report(Delayed, busy()), report(Relayed, ok), report(Delivered, ok), report(Expanded, ok), umlaut} {
		text := strings.ReplaceAll(write(t, r, content), "\r\n", "\n")
		fmt.Fprintf(&box, "From MAILER-DAEMON Mon Nov  2 10:00:00 2026\n%s\n", strings.ReplaceAll(text, "\nFrom ", "\n>From "))
	}
	file := filepath.Join(t.TempDir(), "box")
	if err := os.WriteFile(file, []byte(box.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := standstill.Command(t, patience, program, "-n", "-R", "-S", "screen=100", "-S", "ttycharset=utf-8", "-f", file)
	cmd.Env = append(os.Environ(), "COLUMNS=140", "LC_ALL=C.UTF-8", "MAILRC=/dev/null")
	cmd.Stdin = strings.NewReader("headers\nprint 1 2 3 4 5 6\nquit\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	shown := string(out)
	for _, want := range []string{
		`Not delivered: "Invoice 2026-114" to bob@example.net`, `Still trying: "Invoice 2026-114" to bob@example.net`,
		`Handed on: "Invoice 2026-114"`, `Delivered: "Invoice 2026-114"`, `Distributed: "Invoice 2026-114"`,
		"\nThere is no such mailbox at this address (5.1.1).", "\nYou need not do anything, and need not send it again.",
		"was handed on to the next mail server for:", "was delivered to:", "was passed on to everybody behind this address:",
		"\nSubject: Not delivered: \"Invoice 2026-114\" to grün@example.net\n", "\nhello\n", "quote 641B1A2B3C4D5E6F.",
	} {
		if !strings.Contains(strings.ReplaceAll(shown, "\n        ", "\n"), want) {
			t.Errorf("not shown: %q", want)
		}
	}
	if t.Failed() {
		t.Log(shown)
	}
}

// A sender whose own address needs SMTPUTF8 gets the types of RFC 6533, with the
// addresses as they are; any other reads ASCII.
func TestSenderWithAnUnicodeAddressGetsGlobalTypes(t *testing.T) {
	t.Parallel()
	r := report(Failed, noSuchUser())
	r.Message.UTF8 = true
	r.Message.Sender = address.Address{Local: "änne", Domain: "example.org"}
	r.Message.Recipients[0].Address.Local = "grün+x"
	r.Message.Recipients[0].Original = "utf-8;größe@example.net"
	for _, tt := range []struct {
		to                     address.Address
		kind, final, orig, end string
	}{
		{r.Message.Sender, "message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit", "utf-8; grün+x@example.net", "utf-8;größe@example.net", "message/global"},
		{address.Address{Local: "ops", Domain: "example.org"}, "message/delivery-status", `utf-8; gr\x{FC}n\x{2B}x@example.net`, `utf-8;gr\x{F6}\x{DF}e@example.net`, "message/global"},
	} {
		r.To = tt.to
		text := write(t, r, content)
		for _, want := range []string{"\r\nContent-Type: " + tt.kind + "\r\n", "\r\nFinal-Recipient: " + tt.final + "\r\n",
			"\r\nOriginal-Recipient: " + tt.orig + "\r\n", "\r\nContent-Type: " + tt.end + "\r\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("to %s: no %q in\n%s", tt.to, want, text)
			}
		}
	}
}
