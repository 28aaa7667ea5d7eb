package delivery_test

import (
	"fmt"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
)

// What failed stays with its content, and is sent when what was wrong is mended; the
// report goes out each time it fails.
func TestFailedMailIsSentAgainWhenAskedTo(t *testing.T) {
	t.Parallel()
	server := relaytest.New(t, relaytest.Options{})
	refuse := func(c *config.Config) {
		c.Routes = []config.Route{{Recipients: []string{"b@y.test"}, Transport: config.Transport{Kind: config.ViaError, Status: "5.7.1", Text: "not now"}}}
	}
	r := start(t, t.TempDir(), settings(server, refuse))
	id := spooltest.Put(t, r.spool, content, "b@y.test")
	m := r.wait(id, settled)
	if !m.Kept || len(m.Reports) != 1 {
		t.Fatalf("%+v", m)
	}
	if m, err := r.spool.Revive(id); err != nil || m.Settled() {
		t.Fatal(m, err)
	}
	if m = r.wait(id, settled); !m.Kept || len(m.Reports) != 2 {
		t.Fatalf("failed again: %+v", m)
	}
	if err := r.runner.SetConfig(settings(server, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.spool.Revive(id); err != nil {
		t.Fatal(err)
	}
	if m = r.wait(id, settled); m.Kept || m.Recipients[0].Status != spool.Relayed || m.Recipients[0].Attempts != 3 {
		t.Errorf("%+v", m)
	}
}

// Mail that policy refuses after it was accepted fails with that, is reported, and can
// be sent again.
func TestRefusedMailIsReported(t *testing.T) {
	t.Parallel()
	server := relaytest.New(t, relaytest.Options{})
	r := start(t, t.TempDir(), settings(server, nil))
	m := spooltest.Message(t, "b@y.test", "c@y.test")
	m.Refused = &spool.Reply{Status: "5.3.4", Text: "too large", Command: "policy"}
	d, err := r.spool.NewDraft(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = d.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	id, err := d.Commit(m)
	if err != nil {
		t.Fatal(err)
	}
	m = r.wait(id, settled)
	for _, rcpt := range m.Recipients {
		if rcpt.Status != spool.Failed || rcpt.Reply.Status != "5.3.4" {
			t.Errorf("%+v", rcpt)
		}
	}
	if len(m.Reports) != 1 || !m.Kept {
		t.Errorf("%d reports, kept: %v", len(m.Reports), m.Kept)
	}
	if _, err := r.spool.Revive(id); err != nil {
		t.Fatal(err)
	}
	if m = r.wait(id, settled); m.Recipients[0].Status != spool.Relayed || m.Recipients[1].Status != spool.Relayed {
		t.Errorf("sent again: %+v", m.Recipients)
	}
}

// The list has no more than it may have, for the runner sees to it at once.
func TestFailedListIsKeptSmall(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), settings(nil, func(c *config.Config) {
		c.History.FailedSize = config.Size(3 * len(content))
		c.Routes = []config.Route{{Recipients: []string{"@y.test", "@dom.test", "@x.test", "@example.org"}, Transport: config.Transport{Kind: config.ViaError, Status: "5.7.1", Text: "no"}}}
	}))
	var last spool.ID
	for range 20 {
		last = spooltest.Put(t, r.spool, content, "b@y.test")
		r.wait(last, settled)
	}
	eventually(t, "a list of no more than three", func() (any, bool) {
		n, octets := 0, int64(0)
		for m, err := range r.spool.Failed() {
			if err != nil {
				t.Fatal(err)
			}
			n, octets = n+1, octets+m.Size
		}
		return fmt.Sprintf("%d messages, %d octets", n, octets), octets <= int64(3*len(content)) && n > 0
	})
}
