package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/spool/standstill"
)

// What becomes of mail to each domain, directly by MX, is what the domain demands and
// its exchanger is: Postfix gets it as protected as that, or not at all.
func TestMailGoesAsDomainsDemand(t *testing.T) {
	t.Parallel()
	standstill.Steady(t, mailGoesAsDomainsDemand)
}

func mailGoesAsDomainsDemand(t testing.TB) {
	x := newExchange(t)
	exchanger := func(domain, host string) []string { return []string{domain + ". 0 MX 10 " + host + "."} }
	at := func(host, addr string, tlsa ...string) []string {
		rows := []string{host + ". 0 A " + addr}
		for _, record := range tlsa {
			rows = append(rows, x.tlsa(host, record))
		}
		return rows
	}
	wrong := "3 1 1 " + strings.Repeat("ab", 32)
	domains := []struct {
		domain string
		rows   [][]string
		want   string // status of the reply, and TLS of the attempt
		text   string
	}{
		{"dane.test", [][]string{exchanger("dane.test", "mx-dane.test"), at("mx-dane.test", mxGood, "3 1 1 "+x.keys["good"])}, "2.0.0 TLS1.3 dane", ""},
		{"authority.test", [][]string{exchanger("authority.test", "mx-ta.test"), at("mx-ta.test", mxGood, "2 0 1 "+x.keys["ca"])}, "2.0.0 TLS1.3 dane", ""},
		{"implicit.test", [][]string{at("implicit.test", mxGood, "3 1 1 "+x.keys["good"])}, "2.0.0 TLS1.3 dane", ""},
		{"roll.test", [][]string{exchanger("roll.test", "mx-roll.test"), at("mx-roll.test", mxGood, "3 1 1 "+x.keys["other"], "3 1 1 "+x.keys["good"])}, "2.0.0 TLS1.3 dane", ""},
		{"old.test", [][]string{exchanger("old.test", "mx-old.test"), at("mx-old.test", mxExpired, "3 1 1 "+x.keys["expired"])}, "2.0.0 TLS1.3 dane", ""},
		{"wrong.test", [][]string{exchanger("wrong.test", "mx-wrong.test"), at("mx-wrong.test", mxGood, wrong)}, "4.7.5 ", "DANE demands"},
		{"bogus.test", [][]string{exchanger("bogus.test", "mx-bogus.test"), at("mx-bogus.test", mxGood, wrong)}, "4.7.5 ", "SERVFAIL"},
		{"forged.test", [][]string{exchanger("forged.test", "mx-dane.test")}, "4.4.3 ", "SERVFAIL"},
		{"taken.test", [][]string{exchanger("taken.test", "mx-taken.test"), at("mx-taken.test", mxPlain, "3 1 1 "+x.keys["good"])}, "4.7.4 ", "DANE demands TLS"},
		{"useless.test", [][]string{exchanger("useless.test", "mx-useless.test"), at("mx-useless.test", mxExpired, "1 1 1 "+x.keys["good"])}, "2.0.0 TLS1.3 unverified", ""},
		{"sts.test", [][]string{exchanger("sts.test", "mx-sts.test"), at("mx-sts.test", mxGood), x.policy("sts.test", "enforce", "*.test")}, "2.0.0 TLS1.3 mta-sts", ""},
		{"strange.test", [][]string{exchanger("strange.test", "mx-sts.test"), x.policy("strange.test", "enforce", "mx.strange.test")}, "4.7.5 ", "the MTA-STS policy of strange.test"},
		{"over.test", [][]string{exchanger("over.test", "mx-over.test"), at("mx-over.test", mxExpired), x.policy("over.test", "enforce", "mx-over.test")}, "4.7.5 ", "expired"},
		{"bare.test", [][]string{exchanger("bare.test", "mx-bare.test"), at("mx-bare.test", mxPlain), x.policy("bare.test", "enforce", "mx-bare.test")}, "4.7.4 ", "MTA-STS demands TLS"},
		{"testing.test", [][]string{exchanger("testing.test", "mx-over.test"), x.policy("testing.test", "testing", "mx.testing.test")}, "2.0.0 TLS1.3 unverified", ""},
		{"nothing.test", [][]string{exchanger("nothing.test", "mx-bare.test")}, "2.0.0 ", ""},
		{"verified.test", [][]string{exchanger("verified.test", "mx-sts.test")}, "2.0.0 TLS1.3 verified", ""},
	}
	var rows, to []string
	for _, d := range domains {
		to = append(to, "box@"+d.domain)
		for _, r := range d.rows {
			rows = append(rows, r...)
		}
	}
	x.names(rows, fmt.Sprintf("_%d._tcp.mx-bogus.test. TLSA", x.port), "forged.test. MX")
	b := newBox(t, fmt.Sprintf("[mx]\nport = %d\nresolver = %q\nallow_loopback = true\n", x.port, x.resolver))
	r := b.startTrusting(x.ca)
	b.sendmail("Subject: first\n\nhi\n", append([]string{"-f", "me@web.test"}, to...)...)
	poll(t, "all are attempted", func() bool { return b.attempted("first") == len(domains) })
	first := b.sent("first")
	for _, d := range domains {
		status, text, protected := first.outcome("box@" + d.domain)
		if status+" "+protected != d.want || !strings.Contains(text, d.text) {
			t.Errorf("%s: %s %q %s, want %s %s", d.domain, status, protected, text, d.want, d.text)
		}
	}

	// A message may say that it is worth more than that, or less (RFC 8689).
	b.sendmail("Subject: anyhow\nTLS-Required: No\n\nhi\n", "-f", "me@web.test", "box@wrong.test", "box@over.test", "box@bare.test")
	b.sendmail("Subject: secret\n\nhi\n", "-f", "me@web.test", "-O", "RequireTLS=yes", "box@dane.test", "box@wrong.test", "box@verified.test")
	poll(t, "all are attempted", func() bool { return b.attempted("anyhow") == 3 && b.attempted("secret") == 3 })
	for subject, want := range map[string]map[string]string{
		"anyhow": {"box@wrong.test": "2.0.0 TLS1.3 verified", "box@over.test": "2.0.0 TLS1.3 unverified", "box@bare.test": "2.0.0 "},
		"secret": {"box@dane.test": "5.7.30 TLS1.3 dane", "box@wrong.test": "4.7.5 ", "box@verified.test": "5.7.30 TLS1.3 verified"},
	} {
		for address, want := range want {
			if status, text, protected := b.sent(subject).outcome(address); status+" "+protected != want {
				t.Errorf("%s, %s: %s %q %s, want %s", subject, address, status, protected, text, want)
			}
		}
	}
	b.log.await(t, "msg=policy", "domain=testing.test", "in testing")
	// And who asks hears it.
	for address, want := range map[string]string{
		"box@dane.test": "TLS: DANE", "box@useless.test": "TLS: DANE, nothing verified", "box@sts.test": "TLS: MTA-STS", "box@testing.test": "TLS: opportunistic, MTA-STS testing",
		"box@verified.test": "TLS: opportunistic", "box@strange.test": "mx-sts.test is not a mail exchanger that the MTA-STS policy",
	} {
		if got := b.postino("route", address); !strings.HasPrefix(got, address+": mx "+address[4:]+" ("+want) {
			t.Errorf("route: %s, want %s", got, want)
		}
	}

	// Later the names point to other servers, and the policy host lies.
	r.stop()
	x.mu.Lock()
	x.policies = map[string]string{"sts.test": "<html>moved</html>"}
	x.mu.Unlock()
	rows = append(exchanger("sts.test", "mx-bare.test"), at("mx-bare.test", mxPlain)...)
	rows = append(rows, `_mta-sts.sts.test. 0 TXT "v=STSv1; id=2;"`, "mta-sts.sts.test. 0 A "+policyAddr)
	rows = append(rows, exchanger("roll.test", "mx-roll.test")...)
	rows = append(rows, at("mx-roll.test", mxOther, "3 1 1 "+x.keys["other"], "3 1 1 "+x.keys["good"])...)
	x.names(rows)
	b.startTrusting(x.ca)
	b.sendmail("Subject: second\n\nhi\n", "-f", "me@web.test", "box@sts.test", "box@roll.test")
	poll(t, "both are attempted", func() bool { return b.attempted("second") == 2 })
	for address, want := range map[string]string{"box@sts.test": "4.7.4 ", "box@roll.test": "2.0.0 TLS1.3 dane"} {
		if status, text, protected := b.sent("second").outcome(address); status+" "+protected != want {
			t.Errorf("later, %s: %s %q %s, want %s", address, status, protected, text, want)
		}
	}
	b.log.await(t, "msg=policy", "domain=sts.test", "holds on")
	poll(t, "what was sent has arrived", func() bool {
		files, _ := filepath.Glob(filepath.Join(x.dir, "mail/box/new/*"))
		return len(files) == 14
	})
	// What Postfix says of it is what we say.
	text, err := os.ReadFile(filepath.Join(x.dir, "postfix.log"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "to=<box@"); n != 14 {
		t.Errorf("Postfix took %d recipients, want 14:\n%s", n, text)
	}
}

// startTrusting starts a runner that trusts the authority in that file.
func (b *box) startTrusting(ca string) *runner {
	b.t.Helper()
	r := b.launchBy("/usr/bin/env", "SSL_CERT_FILE="+ca, program("postino"), "run")
	awaitIn(b.t, b.spool, "a runner", func() bool { return b.holder() == r.cmd.Process.Pid && b.accepts("submit.sock") })
	return r
}

// sent is the message with that subject, reports about it apart.
func (b *box) sent(subject string) *message {
	b.t.Helper()
	for _, m := range parseMessages(b.t, b.postino("trace", "--json", subject)) {
		if m.Subject == subject {
			return &m
		}
	}
	b.t.Fatalf("there is no message %q", subject)
	return nil
}

// attempted is how many recipients of a message have been attempted.
func (b *box) attempted(what string) (n int) {
	for _, r := range b.sent(what).Recipients {
		n += min(1, r.Attempts)
	}
	return n
}

// outcome is what was last said about a recipient, and how it was protected.
func (m *message) outcome(address string) (status, text, protected string) {
	for _, a := range m.Attempts {
		for i, to := range a.Recipients {
			if to == address {
				status, text, protected = a.Replies[i].Status, a.Replies[i].Text, a.TLS
			}
		}
	}
	return status, text, protected
}
