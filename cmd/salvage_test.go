package cmd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
)

// Of a spool directory from elsewhere all mail comes back, and is delivered once and
// whole: small and large messages, as the manual says it, and what lay in drop/. What of
// it cannot be whole any more waits and is named.
func TestMailOfAnotherSpoolIsDelivered(t *testing.T) {
	s := relaytest.New(t, relaytest.Options{})
	const lines = 20000
	body := func(i int) string { return strings.Repeat("0123456789\n", 1+i%2*lines) }
	for name, tt := range map[string]struct {
		page, pages  int
		queued, held int
	}{
		"whole":            {0, 0, 8, 0},
		"first pages gone": {0, 2, 0, 8},
	} {
		t.Run(name, func(t *testing.T) {
			old := newBox(t, "mode = \"hold\"\n")
			r := old.start()
			subject := func(i int) string { return fmt.Sprintf("%s %d", name, i) }
			for i := range 8 {
				old.sendmail("Subject: "+subject(i)+"\n\n"+body(i), "alice@example.org")
			}
			r.stop()
			if tt.pages > 0 {
				old.damaged(tt.page, tt.pages)
			}
			b := newBox(t, relayTo(s.Port()))
			var got struct {
				Queued, Held, Known int
				Partial             []string
			}
			from := filepath.Join(old.spool, "spool.db")
			salvage := func() {
				t.Helper()
				out := b.run(b.command("", program("postino"), "spool", "salvage", "--json", from)).out
				got.Partial = nil
				if err := json.Unmarshal([]byte(out), &got); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			salvage()
			if got.Queued != tt.queued || got.Held != tt.held || len(got.Partial) > 0 {
				t.Errorf("%+v", got)
			}
			salvage()
			if got.Known != 8 || got.Queued+got.Held > 0 || len(got.Partial) > 0 {
				t.Errorf("again: %+v", got)
			}
			b.start()
			b.postino("release", "--all")
			poll(t, "an empty queue", func() bool { return len(b.queue()) == 0 })
			for i := range 8 {
				_, text := headerAndBody(t, messageWith(t, s, subject(i)).Data)
				if text != strings.ReplaceAll(body(i), "\n", "\r\n") {
					t.Errorf("%q is not whole: %d octets", subject(i), len(text))
				}
			}
			if left, err := os.ReadDir(filepath.Join(b.spool, "content")); err != nil || len(left) > 0 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// Mail that was brought back without its content gets it by a second salvage.
func TestContentComesAfterItsMessage(t *testing.T) {
	s := relaytest.New(t, relaytest.Options{})
	old := newBox(t, "mode = \"hold\"\n")
	r := old.start()
	text := strings.Repeat("0123456789\n", 20000)
	old.sendmail("Subject: late content\n\n"+text, "alice@example.org")
	r.stop()
	from := filepath.Join(old.spool, "spool.db")
	content, away := filepath.Join(old.spool, "content"), filepath.Join(old.dir, "away")
	b := newBox(t, relayTo(s.Port()))
	for _, move := range [][2]string{{content, away}, {away, content}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
		b.run(b.command("", program("postino"), "spool", "salvage", from))
	}
	b.start()
	b.postino("release", "--all")
	poll(t, "an empty queue", func() bool { return len(b.queue()) == 0 })
	if _, got := headerAndBody(t, messageWith(t, s, "late content").Data); got != strings.ReplaceAll(text, "\n", "\r\n") {
		t.Errorf("%d octets", len(got))
	}
}

// A backup that is mounted read-only is checked, but not while a runner has it elsewhere.
func TestBackupIsCheckedWhereItIsReadOnly(t *testing.T) {
	needsRoot(t)
	needs(t, "unshare", "util-linux")
	b := newBox(t, "mode = \"hold\"\n")
	r := b.start()
	b.sendmail("Subject: x\n\n"+strings.Repeat("0123456789\n", 20000), "alice@example.org")
	check := func() result {
		return b.run(b.command("", "unshare", "--mount", "sh", "-euc",
			`mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; exec "$2" spool check`, "sh", b.spool, program("postino")))
	}
	if got := check(); got.code != 69 || !strings.Contains(got.err, "held by pid") {
		t.Errorf("beside a runner: %+v", got)
	}
	r.stop()
	if got := check(); got.code != 0 || !strings.Contains(got.out, "nothing is wrong") {
		t.Errorf("%+v", got)
	}
	if err := os.Remove(filepath.Join(b.spool, "lock")); err != nil {
		t.Fatal(err)
	}
	if got := check(); got.code != 0 {
		t.Errorf("without a lock file: %+v", got)
	}
	b.damaged(0, 2)
	if got := check(); got.code != 1 {
		t.Errorf("damaged: %+v", got)
	}
}

// Where the content of a large message was cut off, or all of it left behind, that is
// said, and nothing of it is sent.
func TestSalvageNamesContentThatIsMissing(t *testing.T) {
	old := newBox(t, "mode = \"hold\"\n")
	r := old.start()
	old.sendmail("Subject: large\n\n"+strings.Repeat("0123456789\n", 20000), "alice@example.org")
	r.stop()
	content := filepath.Join(old.spool, "content")
	entries, err := os.ReadDir(content)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	if err := os.Truncate(filepath.Join(content, entries[0].Name()), 100000); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(old.spool, "spool.db")
	salvage := func(want string) {
		t.Helper()
		b := newBox(t, "mode = \"capture\"\n")
		got := b.run(b.command("", program("postino"), "spool", "salvage", from))
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q: status %d, %s%s", want, got.code, got.out, got.err)
		}
		b.start()
		if q := b.queue(); len(q) > 1 || len(q) == 1 && q[0].Status != "held" {
			t.Errorf("%+v", q)
		}
		if list := b.postino("capture", "list"); list != "" {
			t.Error(list)
		}
	}
	salvage("the content is damaged")
	old.damaged(0, 2)
	salvage("the content is damaged")
	if err := os.RemoveAll(content); err != nil {
		t.Fatal(err)
	}
	salvage(content + " is not there: up to 1 messages of more than 65536 octets were in it")
}
