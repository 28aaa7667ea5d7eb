package delivery_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/address"
	"postino/spool/spooltest"
)

// A storm of reports to an operator is one mail at once and one an hour later, also
// over a restart, and none is lost; a sender elsewhere gets each of them.
func TestStormOfReportsIsGathered(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	server := relaytest.New(t, relaytest.Options{})
	dir := t.TempDir()
	conf := settings(server, func(c *config.Config) {
		c.BounceTo = "ops@z.test"
		c.Routes = []config.Route{{Recipients: []string{"@y.test"}, Transport: config.Transport{Kind: config.ViaError, Status: "5.7.1", Text: "not now"}}}
	})
	reports := func(to string) (n int) {
		for _, m := range server.Messages() {
			if len(m.To) == 1 && strings.Contains(m.To[0], to) {
				n++
			}
		}
		return n
	}
	fail := func(r *rig, n int) {
		for i := range n {
			m := r.wait(spooltest.Put(t, r.spool, content, fmt.Sprintf("b%d@y.test", i)), settled)
			for _, id := range m.Reports {
				if m := r.wait(id, func(m *spool.Message) bool { return m.Settled() || m.Gathered != nil }); m.Origin.Action != "failed" {
					t.Errorf("%s is no report of a failure: %+v", id, m.Origin)
				}
			}
		}
	}
	t.Run("before", func(t *testing.T) {
		r := start(t, dir, conf)
		r.t = t
		fail(r, 3)
	})
	r := start(t, dir, conf)
	fail(r, 3)
	if got := reports("sender@example.org"); got != 6 {
		t.Errorf("%d reports to the sender, want each of the 6", got)
	}
	if got := reports("ops@z.test"); got != 1 {
		t.Errorf("%d reports to the operator, want one", got)
	}
	var waiting []*spool.Message
	for m, err := range r.spool.Gathered(mustParse(t, "ops@z.test")) {
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, m)
	}
	if len(waiting) != 5 {
		t.Fatalf("%d reports wait, want 5", len(waiting))
	}
	if first := waiting[0].Recipients[0].Next.Add(-time.Hour); first.Before(begun.Truncate(time.Second)) || first.After(time.Now()) {
		t.Errorf("the next goes out at %v, want an hour after the first, since %v", waiting[0].Recipients[0].Next, begun)
	}
	r.runner.Retry() // everything else is tried at once
	if _, err := r.spool.Retry(waiting[2].ID, false); err != nil {
		t.Fatal(err)
	}
	var done *spool.Message
	for _, w := range waiting {
		done = r.wait(w.ID, settled)
	}
	words := strings.Fields(done.Recipients[0].Reply.Text)
	id, err := spool.ParseID(words[len(words)-1])
	if err != nil || done.Recipients[0].Status != spool.Expanded {
		t.Fatalf("%+v: %v", done, err)
	}
	if m := r.wait(id, func(*spool.Message) bool { return true }); m.Origin.Reports != 5 {
		t.Errorf("the digest has not 5 reports: %+v", m.Origin)
	}
	r.logged("msg=digest")
	eventually(t, "2 mails to the operator", func() (any, bool) { return r.log, reports("ops@z.test") >= 2 })
	got := server.Messages()[len(server.Messages())-1]
	text := string(got.Data)
	if reports("ops@z.test") != 2 || got.From != "" || !strings.Contains(text, "Subject: Not delivered: 5 mails\r\n") ||
		strings.Count(text, "Content-Type: message/delivery-status") != 5 {
		t.Errorf("%d mails to the operator; the last is from %q:\n%s", reports("ops@z.test"), got.From, text)
	}
	fail(r, 1)
	if got := reports("ops@z.test"); got != 2 {
		t.Errorf("%d mails to the operator within the next hour", got)
	}
}

func mustParse(t *testing.T, text string) address.Address {
	t.Helper()
	a, err := address.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
