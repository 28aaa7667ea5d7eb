package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"postino/spool"
	"postino/spool/address"
)

const session = "EHLO 0642.submission.invalid\r\nMAIL FROM:<a@b.test> SIZE=5 BODY=8BITMIME\r\n" +
	"RCPT TO:<\"odd> one\"@c.test> NOTIFY=NEVER\r\nRCPT TO:<root@localhost>\r\nBDAT 5 LAST\r\nRCPT TO:<no@body.test>\r\n"

func TestDropEnvelopeIsRead(t *testing.T) {
	for _, tt := range []struct {
		name, in, sender string
		recipients       []string
		size             int64
	}{
		{"a front end's", session, "a@b.test", []string{`"odd> one"@c.test`, "root@localhost"}, 5},
		{"null sender", "MAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nBDAT 0 LAST\r\n", "", []string{"a@b.test"}, 0},
		{"LF, lower case", "mail from:<a@b.test>\nrcpt to:<c@d.test>\ndata\nrcpt to:<e@f.test>\n", "a@b.test", []string{"c@d.test"}, 900},
		{"impossible size", "MAIL FROM:<a@b.test>\r\nBDAT 99999999999999 LAST\r\n", "a@b.test", nil, 900},
		{"negative size", "BDAT -1 LAST\r\n", "", nil, 900},
		{"no address", "RCPT TO:<\x1b[31m>\r\n", "", []string{"?[31m"}, 900},
		{"cut", "MAIL FROM:<a@b.te", "", nil, 900},
		{"endless line", strings.Repeat("x", 2*maxDropLine), "", nil, 900},
		{"nothing", "", "", nil, 900},
	} {
		m := parseDrop(strings.NewReader(tt.in), 900, 10)
		var got []string
		for _, r := range m.Recipients {
			got = append(got, r.Address)
		}
		if m.Sender != tt.sender || strings.Join(got, " ") != strings.Join(tt.recipients, " ") || m.Size != tt.size {
			t.Errorf("%s: got %q to %q, %d octets; want %q to %q, %d", tt.name, m.Sender, got, m.Size, tt.sender, tt.recipients, tt.size)
		}
	}
	if m := parseDrop(strings.NewReader(session), 900, 1); len(m.Recipients) != 1 || m.Size != 5 {
		t.Errorf("with room for 1 recipient: got %d, %d octets", len(m.Recipients), m.Size)
	}
}

// The owner of a drop file may put anything in its place.
func TestOnlyRegularDropFilesAreListed(t *testing.T) {
	dir := t.TempDir()
	drop := filepath.Join(dir, spool.DropDir)
	if err := os.Mkdir(drop, 0o755); err != nil {
		t.Fatal(err)
	}
	name := func(n int) string { return filepath.Join(drop, fmt.Sprintf("06423b2f1c0a5e%02x%016x", n, n)) }
	write := func(path string) {
		if err := os.WriteFile(path, []byte(session), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write(name(2))
	write(name(1))
	write(filepath.Join(drop, "tmp."+filepath.Base(name(3))))
	write(filepath.Join(drop, strings.ToUpper(filepath.Base(name(0xaa)))))
	secret, other := filepath.Join(dir, "secret"), filepath.Join(dir, "other")
	write(secret)
	write(other)
	for _, err := range []error{
		os.Symlink(secret, name(5)), os.Link(other, name(6)), unix.Mkfifo(name(7), 0o640), os.Mkdir(name(8), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	list, err := readDrops(dir)
	if err != nil || len(list) != 2 {
		t.Fatalf("got %d messages, %v; want 2", len(list), err)
	}
	if list[0].ID.String() != "06423B2F1C0A5E01" || list[1].ID.String() != "06423B2F1C0A5E02" || list[0].UID != os.Getuid() || list[0].Arrived.IsZero() {
		t.Errorf("got %+v", list)
	}
	if list, err := readDrops(filepath.Join(dir, "missing")); len(list) != 0 || err != nil {
		t.Errorf("no drop directory: got %v, %v", list, err)
	}
}

// The law: an address that a front end wrote is read back as it is, whatever
// parameters follow; and whatever the file says, what comes out is bounded and
// can be shown.
func FuzzParseDrop(f *testing.F) {
	f.Add("a@b.test", session)
	f.Add(`"a>b\\c"@d.test`, "MAIL FROM:<<<>\r\n")
	f.Add("", "RCPT TO:\r\n")
	f.Fuzz(func(t *testing.T, text, raw string) {
		if a, err := address.ParsePath(text); err == nil {
			m := parseDrop(strings.NewReader("RCPT TO:<"+a.String()+"> NOTIFY=NEVER ORCPT=rfc822;<x>\r\nBDAT 1 LAST\r\n"), 5, 1)
			if len(m.Recipients) != 1 || m.Recipients[0].Address != a.String() || m.Size != 1 {
				t.Fatalf("%q came back as %+v", a.String(), m)
			}
		}
		m := parseDrop(strings.NewReader(raw), 5, 3)
		if m.Size < 0 || m.Size > 5 || len(m.Recipients) > 3 {
			t.Fatalf("%q gave %+v", raw, m)
		}
		for _, r := range m.Recipients {
			if !utf8.ValidString(r.Address) || spool.CleanText(r.Address) != r.Address && len(r.Address) < spool.MaxReplyText {
				t.Fatalf("%q gave the address %q", raw, r.Address)
			}
		}
	})
}
