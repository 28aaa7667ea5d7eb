package delivery_test

import (
	"strings"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/spooltest"
)

// Mail of a route is from whom the route says, on the wire and in the message, and from
// nobody else anywhere: the queue, and who hears of a failure, are as before.
func TestRouteHasASenderOfItsOwn(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Arg: "bad@", Reply: "550 5.1.1 no"}}})
	r := start(t, t.TempDir(), settings(server, func(c *config.Config) {
		c.Routes = []config.Route{{Recipients: []string{"@acct.test"}, From: "{user}@acct.example", Relay: c.Relay}}
	}))
	const mail = "Subject: hi\r\nFrom: The Web <web@old.test>\r\nTo: web@old.test\r\n\r\nFrom: web@old.test\r\n.\r\nend\r\n"
	m := r.wait(spooltest.Put(t, r.spool, mail, "a@acct.test", "b@other.test", "bad@acct.test"), settled)
	if m.Sender.String() != "sender@example.org" || m.Recipients[2].Status != spool.Failed {
		t.Errorf("%+v", m)
	}
	got := make(map[string]relaytest.Message)
	taken(t, server, 3)
	for _, m := range server.Messages() {
		got[strings.Join(m.To, " ")] = m
	}
	want := strings.Replace(mail, "<web@old.test>", "<web@acct.example>", 1)
	if a := got["a@acct.test"]; a.From != "sender@acct.example" || string(a.Data) != want {
		t.Errorf("by the route: from %s\n%q\nwant %q", a.From, a.Data, want)
	}
	if b := got["b@other.test"]; b.From != "sender@example.org" || string(b.Data) != mail {
		t.Errorf("by no route: from %s\n%q", b.From, b.Data)
	}
	if report, ok := got["sender@example.org"]; !ok || report.From != "" {
		t.Errorf("no report to the sender: %+v", report)
	}
	r.logged("from=sender@acct.example")
	attempts, err := r.spool.Attempts(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attempts {
		want := ""
		if to := m.Recipients[a.Outcomes[0].Recipient].Address.Domain; to == "acct.test" {
			want = "sender@acct.example"
		}
		if got := a.From.String(); got != want {
			t.Errorf("the attempt for %s is from %q, want %q", m.Recipients[a.Outcomes[0].Recipient].Address, got, want)
		}
	}
}
