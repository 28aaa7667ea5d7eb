package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"iter"
	"os"
	"path/filepath"
	"testing"
	"time"

	"postino/delivery/control"
	"postino/spool"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func testApp() *app {
	return &app{name: "postino", zone: time.FixedZone("CET", 3600), stdin: bytes.NewReader(nil), stdout: io.Discard, stderr: io.Discard}
}

var arrival = time.Date(2026, 1, 2, 23, 4, 5, 600e6, time.UTC)

// hostile is text as a remote or a stranger may write it.
const hostile = "\x1b[31mred\x1b[0m \u009b1m\u202etxt\r\n250 Ok\x00"

// samples are messages in all states.
func samples() []control.Trace {
	refused := &spool.Reply{Code: 451, Status: "4.2.1", Text: "Mailbox busy", Host: "mx.example.org[192.0.2.1]", Command: "RCPT"}
	nobody := &spool.Reply{Status: "4.4.1", Text: "cannot connect to 192.0.2.1:25: connection refused", Command: "connect"}
	next := arrival.Add(10 * time.Minute)
	deferred := func(address string, r *spool.Reply) control.Recipient {
		return control.Recipient{Address: address, Status: spool.Deferred, Attempts: 2, Next: next, Reply: r}
	}
	return []control.Trace{
		{Message: control.Message{
			ID: 0x06423B2F1C0A5E77, Arrived: arrival, Sender: "alice@example.net", UID: 1500, Size: 1834, Status: control.StatusQueued,
			Recipients: []control.Recipient{
				deferred("bob@example.org", refused), deferred("carol@example.org", refused), deferred("dave@example.com", nobody),
				{Address: "erin@example.com", Status: spool.Relayed, Attempts: 1, Reply: &spool.Reply{Code: 250, Status: "2.0.0", Text: "Ok: queued as 4ABC", Host: "mx.example.com[192.0.2.9]", Command: "dot"}},
			}},
			MessageID: "<1@example.net>", Subject: "Disk für backups is full", Via: spool.ViaSocket, PID: 812, Program: "php-fpm",
			Reports: []spool.ID{},
			Attempts: []control.Attempt{
				{At: arrival.Add(time.Second), TookMS: 340, Hop: "relay smtp.example.net:587", TLS: "TLS1.3 verified",
					Recipients: []string{"erin@example.com", "bob@example.org"},
					Replies:    []spool.Reply{{Code: 250, Status: "2.0.0", Text: "Ok: queued as 4ABC", Host: "mx.example.com[192.0.2.9]", Command: "dot"}, *refused}},
				{At: arrival.Add(5 * time.Minute), TookMS: 3, Hop: "relay smtp.example.net:587",
					Recipients: []string{"dave@example.com", "carol@example.org", "bob@example.org"}, Replies: []spool.Reply{*nobody, *refused, *refused}},
			}},
		{Message: control.Message{
			ID: 0x06423B2F1C0A5E78, Arrived: arrival, UID: 0, Size: 12345678, Status: control.StatusHeld, Held: "held by uid 0",
			Recipients: []control.Recipient{{Address: "root@example.net", Status: spool.Queued, Next: arrival}}},
			Via: spool.ViaDSN, NoAliases: true, Attempts: []control.Attempt{}, Reports: []spool.ID{}},
		{Message: control.Message{
			ID: 0x06423B2F1C0A5E79, Arrived: arrival, UID: 33, Size: 99, Status: control.StatusQueued, Hidden: true,
			Recipients: []control.Recipient{{Status: spool.Deferred, Attempts: 1, Next: next, Reply: &spool.Reply{Code: 550, Status: "4.7.1"}}}},
			Via: spool.ViaSocket, Attempts: []control.Attempt{}, Reports: []spool.ID{}},
		{Message: control.Message{
			ID: 0x06423B2F1C0A5E80, Arrived: arrival, Sender: hostile, UID: 33, Size: 99, Status: control.StatusQueued,
			Recipients: []control.Recipient{{Address: hostile, Status: spool.Deferred, Attempts: 1, Next: next, Maybe: true,
				Reply: &spool.Reply{Code: 451, Status: "4.4.2", Text: hostile, Host: hostile, Command: hostile}}}},
			MessageID: hostile, Subject: hostile, Via: spool.ViaSocket, PID: 9, Program: hostile,
			Attempts: []control.Attempt{{At: arrival, Hop: hostile, TLS: hostile, Recipients: []string{hostile}, Replies: []spool.Reply{{Status: "4.4.2", Text: hostile}}}},
			Reports:  []spool.ID{}},
		{Message: control.Message{
			ID: 0x06423B2F1C0A5E81, Arrived: arrival, Sender: "alice@example.net", UID: 1500, Size: 10, Status: control.StatusFinished,
			Recipients: []control.Recipient{{Address: "bob@example.org", Status: spool.Failed, Reply: &spool.Reply{Status: "5.7.1", Text: "deleted by uid 0", Command: "delete"}}}},
			Via: spool.ViaDrop, Finished: arrival.Add(time.Hour), Captured: true, Attempts: []control.Attempt{},
			Reports: []spool.ID{0x06423B2F1C0A5E99}},
	}
}

func traces() iter.Seq2[control.Trace, error] {
	return func(yield func(control.Trace, error) bool) {
		for _, t := range samples() {
			if !yield(t, nil) {
				return
			}
		}
	}
}

// queued yields the first n samples as queue does.
func queued(n int) iter.Seq2[control.Message, error] {
	return func(yield func(control.Message, error) bool) {
		for _, t := range samples()[:n] {
			if !yield(t.Message, nil) {
				return
			}
		}
	}
}

func TestMailqLayout(t *testing.T) {
	for name, n := range map[string]int{"mailq-empty": 0, "mailq-one": 1, "mailq": 4} {
		var buf bytes.Buffer
		if err := writeMailq(testApp(), &buf, queued(n), false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		golden(t, name, buf.Bytes())
		harmless(t, name, buf.Bytes())
	}
}

func TestQueueJSON(t *testing.T) {
	var buf bytes.Buffer
	if err := writeLines(&buf, queued(4)); err != nil {
		t.Error(err)
	}
	golden(t, "queue-json", buf.Bytes())
	harmless(t, "queue-json", buf.Bytes())
}

func TestTraceText(t *testing.T) {
	var buf bytes.Buffer
	if err := testApp().writeTraces(&buf, options{}, traces()); err != nil {
		t.Error(err)
	}
	golden(t, "trace", buf.Bytes())
	harmless(t, "trace", buf.Bytes())
}

func TestTraceJSON(t *testing.T) {
	var buf bytes.Buffer
	if err := testApp().writeTraces(&buf, options{json: true}, traces()); err != nil {
		t.Error(err)
	}
	golden(t, "trace-json", buf.Bytes())
	harmless(t, "trace-json", buf.Bytes())
}

// harmless checks that no octet of a listing makes a terminal do anything.
func harmless(t *testing.T, name string, text []byte) {
	t.Helper()
	for _, r := range string(text) {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f {
			t.Errorf("%s prints %U", name, r)
		}
	}
}

func TestUnreadableMessageDoesNotHideTheOthers(t *testing.T) {
	bad := errors.New("06423B2F1C0A5E70: damaged record")
	walk := func(yield func(control.Message, error) bool) {
		if yield(control.Message{}, bad) {
			queued(1)(yield)
		}
	}
	var buf bytes.Buffer
	if err := writeMailq(testApp(), &buf, walk, false); !errors.Is(err, bad) {
		t.Errorf("got error %v, want %v", err, bad)
	}
	golden(t, "mailq-one", buf.Bytes())
}

func TestErrorsAreOneHarmlessLineEach(t *testing.T) {
	a := testApp()
	var buf bytes.Buffer
	a.stderr = &buf
	a.report(errors.New("first \x1b[31m\nsecond"))
	if got, want := buf.String(), "postino: first ?[31m\npostino: second\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
