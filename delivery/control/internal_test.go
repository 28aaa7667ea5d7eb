package control

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"postino/spool"
	"postino/spool/address"
)

// connect returns n connections as a listener accepts them.
func connect(t *testing.T, n int) []net.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var list []net.Conn
	for range n {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func TestCrowdDoesNotKeepAdministratorsOut(t *testing.T) {
	admin := false
	g := &gate{isAdmin: func(peer) bool { return admin }, users: make(map[int]int)}
	conns := connect(t, maxPerUID+3)
	var in []net.Conn
	for _, c := range conns[:maxPerUID] {
		in = append(in, g.admit(c))
	}
	if got := g.admit(conns[maxPerUID]); got != nil {
		t.Errorf("connection %d of one user was let in", maxPerUID+1)
	}
	admin = true
	if g.admit(conns[maxPerUID+1]) == nil {
		t.Error("an administrator was kept out")
	}
	admin = false
	in[0].Close()
	in[0].Close() // counts once
	if g.admit(conns[maxPerUID]) == nil {
		t.Error("a place that was given back is not free")
	}
	if g.admit(conns[maxPerUID+2]) != nil {
		t.Error("closing twice gave two places back")
	}
}

func TestWhoMaySeeAndOpen(t *testing.T) {
	for _, tt := range []struct {
		access    Access
		uid       int
		see, open bool
	}{
		{Access{UID: 5}, 5, true, true},
		{Access{UID: 5}, 6, false, false},
		{Access{UID: 5}, 0, false, false},
		{Access{UID: 5, All: true}, 6, true, false},
		{Access{UID: 5, All: true, Admin: true}, 6, true, true},
		{Access{}, 6, false, false},
	} {
		m := &spool.Message{Origin: spool.Origin{UID: tt.uid}}
		if see, open := tt.access.sees(m), tt.access.owns(m); see != tt.see || open != tt.open {
			t.Errorf("%+v on mail of uid %d: sees %v, opens %v; want %v, %v", tt.access, tt.uid, see, open, tt.see, tt.open)
		}
	}
}

// What anybody may see holds nothing that came from the message or a remote.
func TestHiddenMessageHasNoWordOfIt(t *testing.T) {
	const secret = "sesame"
	a := address.Address{Local: secret, Domain: secret + ".test"}
	m := &spool.Message{
		ID: 1, Sender: a, Held: secret, Subject: secret, MessageID: secret, From: secret, EnvelopeID: secret,
		Origin:     spool.Origin{UID: 7, Program: secret},
		Recipients: []spool.Recipient{{Address: a, Original: secret, Reply: spool.Reply{Code: 550, Status: "5.1.1", Text: secret, Host: secret}}},
	}
	line, err := Line(newMessage(m, Access{UID: 8}))
	if err != nil || strings.Contains(string(line), secret) {
		t.Errorf("got %s, %v", line, err)
	}
	if m.Recipients[0].Reply.Text != secret {
		t.Error("hiding changed the message itself")
	}
}

// The law of Line: it is one line, it reads back as the same, and no octet of it
// makes a terminal do anything.
func FuzzLine(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b[31m", "\u009b31m", "\u202etxt", "a\u2028b", "\x7f", "<a@b>", "ü", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line, err := Line(failure{Error: s})
		if err != nil {
			t.Fatal(err)
		}
		var back failure
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if back.Error != strings.ToValidUTF8(s, "\ufffd") && back.Error != string([]rune(s)) {
			t.Fatalf("%q came back as %q", s, back.Error)
		}
		text := string(line[:len(line)-1])
		if strings.IndexFunc(text, func(r rune) bool { return r < ' ' || unsafeRune(r) }) >= 0 {
			t.Fatalf("%q lets through what a terminal obeys", text)
		}
	})
}

// The law of reading a list: whatever a line is, it is an object or an error.
func FuzzElement(f *testing.F) {
	f.Add([]byte(`{"error":"x"}`))
	f.Add([]byte(`{"id":"0000000000000001","recipients":[{"address":"a@b"}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := element[Message](line)
		if err != nil {
			return
		}
		again, err := Line(m)
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == 0 {
			return // not one of ours
		}
		if _, err := element[Message](again); err != nil {
			t.Fatalf("%q was read, %q is not: %v", line, again, err)
		}
	})
}

// The law: the look at the raw record never hides what the look at the message finds.
func FuzzMayMatch(f *testing.F) {
	f.Add("Disk full", "Disk f=?x", "a@b.test", "x")
	f.Add("FÜR", "Backup =?utf-8?q?f=C3=BCr?= Anna", "a@b.test", "x")
	f.Add("Bob <bob@X.test> (work)", "", "bob@x.TEST", "x")
	f.Add(`"a\\b"@x.test`, "", `"ab"@x.test`, "x")
	f.Add("<1&2@id>", "", "", "<1&2@id>")
	f.Add("000001", "k", "", "")
	f.Add("\u212a", "k", "", "")
	f.Fuzz(func(t *testing.T, what, subject, rcpt, messageID string) {
		m := &spool.Message{ID: 0xABCDEF0000000001, Subject: subject, MessageID: messageID}
		if a, err := address.Parse(rcpt); err == nil {
			m.Recipients = []spool.Recipient{{Address: a}}
		}
		record, err := json.Marshal(m)
		var stored spool.Message
		if err == nil {
			err = json.Unmarshal(record, &stored)
		}
		if err != nil || what == "" {
			return
		}
		if matcher(what)(&stored) && !mayMatch(what)(record) {
			t.Fatalf("%q is hidden in %s", what, record)
		}
	})
}
