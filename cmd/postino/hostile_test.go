package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
)

// evil is text that moves the cursor, hides what follows, rings, ends lines and is
// no UTF-8, as a stranger writes it where text is free.
const evil = "x\x1b]0;pwned\x07\x1b[2J\u009b31m\u202egnp\u2066\u2028time=now level=INFO msg=faked\r\npostino: faked\x00\xff\x9b\u200f\x7f"

// storeEvil puts that text wherever one fits: two messages, one finished.
func (p *place) storeEvil(t *testing.T) spool.ID {
	t.Helper()
	var first spool.ID
	s, err := spool.Open(p.spool, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	reply := spool.Reply{Code: 451, Status: "4.2.1", Text: evil, Host: evil, Command: evil, TLS: evil}
	for _, status := range []spool.Status{spool.Deferred, spool.Failed} {
		d, err := s.NewDraft(0)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(d, "Subject: x\r\n\r\n")
		id, err := d.Commit(&spool.Message{Arrived: time.Now(), Sender: address.Address{Local: "a", Domain: "x.test"},
			Recipients: []spool.Recipient{{Address: address.Address{Local: "b", Domain: "x.test"}, Status: spool.Queued}},
			Subject:    evil, MessageID: evil, From: evil, EnvelopeID: evil,
			Origin: spool.Origin{Via: spool.ViaSocket, UID: 1500, PID: 7, Program: evil}})
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = id
		}
		_, err = s.Record(id, &spool.Attempt{At: time.Now(), Hop: evil, TLS: evil,
			Outcomes: []spool.Outcome{{Status: status, Next: time.Now().Add(time.Hour), Reply: reply}}})
		if err == nil && status == spool.Deferred {
			_, err = s.Hold(id, evil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p.own(t)
	return first
}

// own gives everything in the spool to its owner.
func (p *place) own(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(p.spool, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, testOwner, testOwner)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever strangers wrote, no command prints what a terminal obeys, and none lets
// it begin a line.
func TestNoCommandPrintsWhatATerminalObeys(t *testing.T) {
	p := newPlace(t)
	id := p.storeEvil(t).String()
	dir := filepath.Join(p.dir, "q"+evil[:20])
	lines := [][]string{
		{"mailq"}, {"postino", "queue"}, {"postino", "queue", "--json"}, {"postino", "queue", "--reason", evil},
		{"postino", "show", id}, {"postino", "show", id, "--json"}, {"postino", "show", evil},
		{"postino", "trace", "b@x.test"}, {"postino", "trace", "b@x.test", "--json"}, {"postino", "trace", evil}, {"postino", "trace", "no" + evil},
		{"postino", "log"}, {"postino", "log", "--json"}, {"postino", "stats"}, {"postino", "stats", "--json"}, {"postino", "capture", "list"},
		{"postino", "hold", "--dry-run", "--all"}, {"postino", "delete", "--dry-run", "--all"}, {"postino", "delete", "--dry-run", "--all", "--json"},
		{"postino", "queue", "--status", evil}, {"postino", "queue", "--uid", evil}, {"postino", "queue", "--older", evil}, {"postino", "queue", "--limit", evil},
		{"postino", "route", evil}, {"postino", "route", "b" + evil + "@x.test"}, {"sendmail", "-bv", evil}, {"sendmail", "-q" + evil},
		{"postino", "export", "--all", dir}, {"postino", "export", "--all", dir}, {"postino", "import", dir}, {"postino", "import", dir + evil[:9]},
		{"postino", evil}, {"postino", "--" + evil}, {"postino", "help", evil}, {"postino", "--spool", "/" + evil[:9], "queue"},
		{"postino", "--config", "/" + evil[:9], "config", "check"}, {"postino", "suspend", "--uid", "1500", "--reason", evil[:30]}, {"postino", "suspend"},
		{"postino", "resume", "--uid", "1500"},
	}
	check := func() {
		t.Helper()
		for _, line := range lines {
			for i := range line {
				line[i] = strings.ReplaceAll(line[i], "\x00", "") // execve ends there
			}
			r := p.run(t, 0, line...)
			for _, out := range []string{r.stdout, r.stderr} {
				harmless(t, strings.Join(line, " "), []byte(out))
				for l := range strings.SplitSeq(out, "\n") {
					if strings.HasPrefix(l, "time=now") || strings.HasPrefix(l, "postino: faked") {
						t.Errorf("%.40q lets a stranger write the line %q", line, l)
					}
				}
			}
		}
	}
	check() // without a runner
	stop := p.start(t, 0)
	check()
	c := control.Dial(p.spool)
	defer c.Close()
	n := 0
	for _, err := range c.Queue(t.Context(), control.Selection{}) {
		if err != nil {
			t.Error(err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d messages are in the queue, want 1", n)
	}
	stop()
}
