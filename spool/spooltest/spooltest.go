// Package spooltest opens spools for tests and checks them when the test is over.
package spooltest

import (
	"io"
	"testing"
	"time"

	"postino/spool"
	"postino/spool/address"
)

// New opens a spool in a directory of the test. At the end of the test the whole
// spool is checked and closed.
func New(t testing.TB, o spool.Options) *spool.Spool {
	t.Helper()
	return Open(t, t.TempDir(), o)
}

// Open is New for a directory that is there already.
func Open(t testing.TB, dir string, o spool.Options) *spool.Spool {
	t.Helper()
	s, err := spool.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(t, s) })
	return s
}

// Close checks and closes s. A test that opens the spool itself calls it.
func Close(t testing.TB, s *spool.Spool) {
	t.Helper()
	if err := s.Check(); err != nil {
		t.Errorf("spool: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Put stores a message with that content for those recipients.
func Put(t testing.TB, s *spool.Spool, content string, recipients ...string) spool.ID {
	t.Helper()
	d, err := s.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(d, content); err != nil {
		t.Fatal(err)
	}
	id, err := d.Commit(Message(t, recipients...))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Message is a message of uid 33 to those recipients, not yet stored.
func Message(t testing.TB, recipients ...string) *spool.Message {
	t.Helper()
	m := &spool.Message{
		Arrived: time.Now(),
		Sender:  address.Address{Local: "sender", Domain: "example.org"},
		Origin:  spool.Origin{Via: spool.ViaSocket, UID: 33},
	}
	for _, r := range recipients {
		a, err := address.Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		m.Recipients = append(m.Recipients, spool.Recipient{Address: a, Status: spool.Queued})
	}
	return m
}
