package dsn

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"postino/spool/address"
	"postino/spool/standstill"
)

func digest(t *testing.T, reports ...*Report) *Digest {
	d := &Digest{ID: 0x641B1A2B3C4D5E80, To: address.Address{Local: "ops", Domain: "example.org"}, Hostname: "web1.example.org", Domain: "example.org",
		Now: time.Date(2026, 11, 3, 13, 0, 0, 0, time.FixedZone("", 3600))}
	for _, r := range reports {
		text := write(t, r, content)
		d.Items = append(d.Items, Item{About: r.Message.ID, Action: r.Action, Subject: r.Subject(), At: r.Now, Gist: r.Gist(),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }})
	}
	return d
}

// What people read of a digest is kept as a file, and Python finds each report in it.
func TestTheWordsOfADigest(t *testing.T) {
	t.Parallel()
	d := digest(t, report(Failed, noSuchUser()), report(Failed, noSuchUser(), busy().Expired(120*time.Hour)), report(Delayed, busy()))
	var b bytes.Buffer
	if err := d.Write(&b); err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(b.String(), "\r\nContent-Type: message/rfc822")
	got := regexp.MustCompile(`\.[0-9a-f]{16}|\.[0-9a-f]{8}@`).ReplaceAllString(strings.ReplaceAll(head, "\r\n", "\n"), ".x")
	if *update {
		if err := os.WriteFile("testdata/digest.golden", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/digest.golden")
	if err != nil || got != string(want) {
		t.Errorf("%v; it is (run with -update and read the diff)\n%s", err, got)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := standstill.Command(t, patience, python, "-c", `
import email, email.policy, sys
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
for p in m.walk():
    assert not p.defects, p.defects
    if p.get_content_type() == "message/delivery-status":
        print(" ".join(str(b["action"]) + " " + str(b["final-recipient"]) for b in p.get_payload()[1:]))
`)
	cmd.Stdin = &b
	out, err := cmd.CombinedOutput()
	if found := "failed rfc822; bob@example.net\nfailed rfc822; bob@example.net failed rfc822; bobb@example.net\ndelayed rfc822; bob@example.net\n"; err != nil || string(out) != found {
		t.Errorf("%v\n%swant\n%s", err, out, found)
	}
}

// A digest is bounded, lists what it does not have with it, and is not stopped by a
// report that cannot be read.
func TestDigestIsBounded(t *testing.T) {
	t.Parallel()
	large := report(Failed, noSuchUser())
	d := digest(t, report(Failed, noSuchUser()))
	text := strings.Repeat("x\r\n", 20_000)
	for range 40 {
		d.Items = append(d.Items, Item{About: large.Message.ID, Action: Failed, Subject: large.Subject(), Gist: large.Gist(),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }})
	}
	d.Items[0].Open = func() (io.ReadCloser, error) { return nil, errors.New("damaged") }
	d.More = 7
	var b bytes.Buffer
	if err := d.Write(&b); err != nil {
		t.Fatal(err)
	}
	if b.Len() > maxAttached+64<<10 {
		t.Errorf("%d octets", b.Len())
	}
	for _, want := range []string{"Subject: Not delivered: 48 mails\r\n", "    and 7 more\r\n", "The first 17 reports are attached."} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %q:\n%.600s", want, b.String())
		}
	}
	if n := strings.Count(b.String(), `    Not delivered: "Invoice 2026-114"`); n != 41 {
		t.Errorf("%d are listed, want 41", n)
	}
}
