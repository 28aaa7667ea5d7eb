package cmd_test

import (
	"slices"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
)

// Each recipient has an outcome of its own: one is taken, one refused for good,
// one is tried again, and the taken one does not get a second copy.
func TestEachRecipientHasItsOwnOutcome(t *testing.T) {
	t.Parallel()
	s := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{
		{At: "RCPT", Arg: "bob@", Reply: "550 5.1.1 no such user"},
		{At: "RCPT", Arg: "carol@", Reply: "452 4.2.2 mailbox full"},
	}})
	b := newBox(t, relayTo(s.Port())+"[retry]\nfirst = \"1h\"\nmax = \"1h\"\n")
	b.start()
	b.sendmail("Subject: three\n\nhi\n", "-f", "me@web.test", "alice@example.org", "bob@example.org", "carol@example.org")
	b.log.await(t, "msg=attempt", "carol@example.org", "status=deferred")
	b.log.await(t, "msg=finished") // the report about bob

	m := b.one()
	for address, want := range map[string]string{
		"alice@example.org": "relayed", "bob@example.org": "failed", "carol@example.org": "deferred",
	} {
		if got := m.status(address); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
	for _, r := range m.Recipients {
		want := map[string]reply{
			"bob@example.org":   {Code: 550, Status: "5.1.1", Text: "no such user", Command: "RCPT"},
			"carol@example.org": {Code: 452, Status: "4.2.2", Text: "mailbox full", Command: "RCPT"},
		}[r.Address]
		if want.Code != 0 && (r.Reply == nil || r.Reply.Code != want.Code || r.Reply.Status != want.Status ||
			r.Reply.Text != want.Text || r.Reply.Command != want.Command || !strings.HasPrefix(r.Reply.Host, "127.0.0.1")) {
			t.Errorf("the reply for %s is %+v, want %+v", r.Address, r.Reply, want)
		}
	}
	mailq := b.run(b.command("", program("mailq"))).out
	if !strings.Contains(mailq, "carol@example.org") || !strings.Contains(mailq, "mailbox full") || strings.Contains(mailq, "alice@") {
		t.Errorf("mailq shows who is waited for and why:\n%s", mailq)
	}

	s.SetRules()
	b.postino("retry", m.ID)
	b.log.await(t, "msg=finished", m.ID)
	var got []string
	for _, m := range s.Messages() {
		got = append(got, strings.Join(m.To, ","))
	}
	slices.Sort(got)
	if strings.Join(got, " ") != "alice@example.org carol@example.org me@web.test" {
		t.Errorf("sent to %q, want alice and carol, and a report to me, each once", got)
	}
	tr := b.trace(m.ID)
	if tr.Status != "finished" || tr.status("bob@example.org") != "failed" || len(tr.Attempts) != 2 || len(tr.Reports) != 1 {
		t.Errorf("trace: %+v", tr)
	}
	report := messageWith(t, s, `Not delivered: "three" to bob@example.org`)
	if report == nil || report.From != "" || !strings.Contains(string(report.Data), "550 5.1.1 no such user") {
		t.Errorf("the report is %+v", report)
	}
}

// What is deferred is tried again without anybody's doing.
func TestDeferredMailIsRetried(t *testing.T) {
	t.Parallel()
	s := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{
		{At: "dot", Conn: 1, Reply: "451 4.3.0 out of disk"},
		{At: "greeting", Conn: 2, Reply: "421 4.3.2 too busy"},
		{At: "DATA", Conn: 3, Do: relaytest.Close},
	}})
	b := newBox(t, relayTo(s.Port())+"[retry]\nfirst = \"100ms\"\nmax = \"100ms\"\n")
	b.start()
	b.sendmail("Subject: patience\n\nhi\n", "alice@example.org")
	b.log.await(t, "msg=finished")
	if n := len(s.Messages()); n != 1 {
		t.Errorf("it arrived %d times, want once", n)
	}
	tr := b.trace("patience")
	if len(tr.Attempts) < 2 || tr.Recipients[0].Attempts != len(tr.Attempts) || tr.status("alice@example.org") != "relayed" {
		t.Errorf("trace: %+v", tr)
	}
	if r := tr.Attempts[0].Replies[0]; r.Code != 451 || r.Status != "4.3.0" {
		t.Errorf("the first outcome is %+v, want 451 4.3.0", r)
	}
}

// What has waited too long fails, and says with what it was refused last.
func TestMailExpires(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t, relaytest.Rule{At: "RCPT", Arg: "alice@", Reply: "450 4.2.1 not now"})
	b.configure(relayTo(s.Port()) + "[retry]\nfirst = \"100ms\"\nmax = \"100ms\"\nlifetime = \"500ms\"\n")
	b.start()
	b.sendmail("Subject: too late\n\nhi\n", "-N", "never", "alice@example.org")
	b.log.await(t, "msg=attempt", "status=failed")
	b.log.await(t, "msg=finished")
	tr := b.trace("too late")
	if r := tr.Recipients[0].Reply; tr.status("alice@example.org") != "failed" || r == nil || !strings.Contains(r.Text, "not now") {
		t.Errorf("trace: %+v %+v", tr, r)
	}
	b.empty()
}

// In mode capture mail is kept to be read, as it would have been sent.
func TestCaptureKeepsAndSendsNothing(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t)
	b.configure("mode = \"capture\"\n" + relayTo(s.Port()))
	r := b.start()
	b.sendmail("Subject: keep me\nTo: alice@example.org\nBcc: bob@example.org\n\n.hidden\nüml\n", "-t", "-i")
	b.log.await(t, "msg=finished")
	id := b.trace("keep me").ID
	checks := func(when string) {
		t.Helper()
		content := b.postino("capture", "show", id)
		head, body := headerAndBody(t, []byte(content))
		if value(t, head, "Subject") != "keep me" || value(t, head, "Received") == "" || value(t, head, "Bcc") != "" || body != ".hidden\r\nüml\r\n" {
			t.Errorf("%s, capture show: %q", when, content)
		}
		list := b.postino("capture", "list")
		if !strings.Contains(list, id) || !strings.Contains(list, "keep me") || !strings.Contains(list, "bob@example.org") || strings.Count(list, "\n") != 1 {
			t.Errorf("%s, capture list: %q", when, list)
		}
		if m := parseMessages(t, b.postino("capture", "list", "--json")); len(m) != 1 || m[0].status("alice@example.org") != "delivered" {
			t.Errorf("%s, capture list --json: %+v", when, m)
		}
		b.empty()
	}
	checks("with the runner")
	r.stop()
	checks("without it")
	if n := s.Connections(); n != 0 {
		t.Errorf("%d connections to the smarthost, want none", n)
	}
}

// In mode hold mail is taken and stays, until the mode changes.
func TestModeHoldKeepsMailUntilItChanges(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t)
	b.configure("mode = \"hold\"\n" + relayTo(s.Port()))
	r := b.start()
	b.sendmail("Subject: wait\n\nhi\n", "alice@example.org")
	id := b.one().ID
	b.postino("retry", id)
	if n := s.Connections(); n != 0 {
		t.Errorf("%d connections to the smarthost, want none", n)
	}
	b.configure(relayTo(s.Port()))
	r.reload("configuration reloaded")
	b.log.await(t, "msg=finished", "id="+id)
	if len(s.Messages()) != 1 {
		t.Error("it did not arrive")
	}
}

// One message can be held, released and deleted.
func TestHoldReleaseDelete(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t, relaytest.Rule{At: "MAIL", Reply: "451 4.3.0 later"})
	b.configure(relayTo(s.Port()) + "[retry]\nfirst = \"1h\"\nmax = \"1h\"\n")
	b.start()
	for _, subject := range []string{"held", "deleted"} {
		b.sendmail("Subject: "+subject+"\n\nhi\n", "alice@example.org")
	}
	b.log.awaitN(t, 2, "msg=attempt", "status=deferred")
	held, deleted := b.trace("held").ID, b.trace("deleted").ID
	b.postino("hold", held)
	b.postino("delete", deleted)
	if m := b.one(); m.ID != held || m.Status != "held" {
		t.Errorf("queue: %+v, want the one that is held", m)
	}
	s.SetRules()
	b.postino("retry", "--all")
	if n := len(s.Messages()); n != 0 {
		t.Errorf("%d messages sent, though one is held and one deleted", n)
	}
	b.postino("release", held)
	b.log.await(t, "msg=finished", "id="+held)
	if list := s.Messages(); len(list) != 1 || !strings.Contains(string(list[0].Data), "Subject: held") {
		t.Errorf("%d messages arrived, want the one that was held", len(list))
	}
	b.empty()
}
