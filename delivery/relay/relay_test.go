package relay

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/address"
	"postino/spool/standstill"
)

const password = "Zq7-secret"

// settings is a relay configuration for server, with plaintext unless changed.
func settings(server *relaytest.Server, change ...func(*config.Relay)) *config.Relay {
	c := &config.Relay{
		Host: config.Hosts{server.Host()}, Port: server.Port(), TLS: config.NoTLS, CAFile: server.CAFile(),
		Auth: config.AuthAuto, MaxConnections: 2, MessagesPerConnection: 100,
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func withTLS(p config.TLSPolicy) func(*config.Relay) { return func(c *config.Relay) { c.TLS = p } }

func withLogin(c *config.Relay) { c.Username, c.Password = "u", password }

// patience is how long anything here waits for what has to come, so that a broken
// program ends a test instead of hanging it. No stall of the machine comes near it.
const patience = 2 * time.Minute

// patient are timeouts that no test here should meet. Those that are to be met are
// those of clock_test.go, where no stall can be taken for one.
func patient() config.Timeouts {
	d := config.Duration(patience)
	return config.Timeouts{Connect: d, Greeting: d, Command: d, Data: d, Dot: d}
}

// eventually waits until see says that what has to come is there. It also says what
// there is, for when that was all.
func eventually(t *testing.T, what string, see func() (seen any, there bool)) {
	t.Helper()
	var seen any
	there := false
	defer func() {
		if !there {
			t.Logf("all there is of %s: %v", what, seen)
		}
	}()
	standstill.Wait(t, patience, what, func() bool {
		seen, there = see()
		return there
	})
}

func newRelay(t *testing.T, c *config.Relay, timeouts config.Timeouts) *Relay {
	t.Helper()
	r, err := New(c, timeouts, "client.test", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.pools {
		p.idle = patience / 2 // what a test counts is not to depend on how fast it is
	}
	t.Cleanup(r.Close)
	return r
}

const hello = "Subject: hi\r\n\r\nhello\r\n"

// batch is a message with this content to these recipients.
func batch(content string, to ...string) *spool.Batch {
	m := &spool.Message{Sender: address.Address{Local: "s", Domain: "sender.test"}, Size: int64(len(content))}
	b := &spool.Batch{Message: m, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
	for i, a := range to {
		local, domain, _ := strings.Cut(a, "@")
		m.Recipients = append(m.Recipients, spool.Recipient{Address: address.Address{Local: local, Domain: domain}})
		b.Recipients = append(b.Recipients, i)
	}
	return b
}

func one() *spool.Batch { return batch(hello, "a@x.test") }

// want is what a Reply should be: class or whole status ("4", "4.4.2"; "x.7.1"
// fits any class), code, command and a regular expression for its text.
type want struct {
	status  string
	code    int
	command string
	text    string
}

func (w want) check(t *testing.T, r spool.Reply) {
	t.Helper()
	if !strings.HasPrefix(r.Status, w.status) || r.Code != w.code || w.command != "" && r.Command != w.command || !regexp.MustCompile(w.text).MatchString(r.Text) {
		t.Errorf("got %+v, want status %s, code %d, command %q, text matching %q", r, w.status, w.code, w.command, w.text)
	}
}

// warm is a server with that offer and these rules, and a relay for it with one
// connection. Content goes by BDAT after a first message, which the rules are not
// about then.
func warm(t *testing.T, offer []string, rules ...relaytest.Rule) (*relaytest.Server, *Relay) {
	t.Helper()
	server := relaytest.New(t, relaytest.Options{Extensions: offer})
	r := newRelay(t, settings(server, single), patient())
	if slices.Contains(offer, "CHUNKING") && slices.Contains([]string{"MAIL", "RCPT", "dot"}, rules[0].At) {
		want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
	}
	server.SetRules(rules...)
	return server, r
}

// inDoubt is w for a server with that offer. With CHUNKING the end of the content has
// left before the first reply: when the session breaks after MAIL, nobody knows.
func (w want) inDoubt(offer []string) (want, bool) {
	broken := strings.HasPrefix(w.status, "4.4.2") || w.status == "4.5.0" && w.text != "nobody asked"
	if w.command != "MAIL" && w.command != "RCPT" || !broken || !slices.Contains(offer, "CHUNKING") || !slices.Contains(offer, "PIPELINING") {
		return w, false
	}
	return want{w.status, 0, "dot", "may have been delivered"}, true
}

// never checks that no command line matches pattern; said that one does.
func never(t *testing.T, server *relaytest.Server, pattern string) {
	t.Helper()
	if lines := server.Commands(); slices.ContainsFunc(lines, regexp.MustCompile(pattern).MatchString) {
		t.Errorf("commands %q match %q", lines, pattern)
	}
}

func said(t *testing.T, server *relaytest.Server, pattern string) {
	t.Helper()
	if lines := server.Commands(); !slices.ContainsFunc(lines, regexp.MustCompile(pattern).MatchString) {
		t.Errorf("no command of %q matches %q", lines, pattern)
	}
}

// TestOneTransaction runs one message with one rule against the outcome, which is the
// same however the server wants to be spoken to.
func TestOneTransaction(t *testing.T) {
	rule := func(at, reply string) relaytest.Rule { return relaytest.Rule{At: at, Reply: reply} }
	raw := func(at, raw string) relaytest.Rule { return relaytest.Rule{At: at, Raw: raw} }
	do := func(at string, do relaytest.Do) relaytest.Rule { return relaytest.Rule{At: at, Do: do} }
	for _, tt := range []struct {
		name string
		rule relaytest.Rule
		want want
	}{
		{"happy", relaytest.Rule{}, want{"2.0.0", 250, "dot", "queued as Q1"}},
		{"multi-line greeting", rule("greeting", "220-a\n220-b\n220 c"), want{"2.0.0", 250, "dot", ""}},
		{"bare greeting", raw("greeting", "220"), want{"2.0.0", 250, "dot", ""}},
		{"greeting 554", rule("greeting", "554 5.7.1 listed"), want{"4.7.1", 554, "greeting", "^listed$"}},
		{"greeting 421", relaytest.Rule{At: "greeting", Reply: "421 later", Do: relaytest.Close}, want{"4.3.2", 421, "greeting", ""}},
		{"greeting 250", rule("greeting", "250 hi"), want{"4.5.0", 250, "greeting", "out of place"}},
		{"HTTP", relaytest.Rule{At: "greeting", Raw: "HTTP/1.1 400 Bad Request\r\n\r\n", Do: relaytest.Close}, want{"4.5.0", 0, "greeting", "not an SMTP reply"}},
		{"closed at once", do("greeting", relaytest.Close), want{"4.4.2", 0, "greeting", "closed"}},
		{"EHLO 502 falls back to HELO", rule("EHLO", "502 what"), want{"2", 250, "dot", ""}},
		{"EHLO 421", relaytest.Rule{At: "EHLO", Reply: "421 4.7.0 later", Do: relaytest.Close}, want{"4.7.0", 421, "EHLO", ""}},
		{"EHLO 5xx and gone", relaytest.Rule{At: "EHLO", Reply: "550 5.7.1 bad helo", Do: relaytest.Close}, want{"4.7.1", 550, "EHLO", "bad helo"}},
		{"EHLO line without end", raw("EHLO", "250-"+strings.Repeat("x", 100_000)), want{"4.5.0", 0, "EHLO", "too long"}},
		{"EHLO without end", raw("EHLO", strings.Repeat("250-x\r\n", 20_000)+"250 x"), want{"4.5.0", 0, "EHLO", "too long"}},
		{"mixed codes", raw("EHLO", "250-a\r\n550 b"), want{"4.5.0", 0, "EHLO", "different codes"}},
		{"mixed codes at RCPT", raw("RCPT", "250-a\r\n550 b"), want{"4.5.0", 0, "RCPT", "different codes"}},
		{"stray reply", raw("EHLO", "250-a\r\n250 8BITMIME\r\n250 stray"), want{"4.5.0", 0, "MAIL", "nobody asked"}},
		{"MAIL 252", rule("MAIL", "252 fine"), want{"2", 250, "dot", ""}},
		{"MAIL 354", rule("MAIL", "354 what"), want{"4.5.0", 354, "MAIL", "out of place"}},
		{"MAIL 550", rule("MAIL", "550 5.1.8 no such domain"), want{"5.1.8", 550, "MAIL", ""}},
		{"MAIL 451", rule("MAIL", "451 busy"), want{"4.0.0", 451, "MAIL", ""}},
		{"MAIL 530", rule("MAIL", "530 5.7.0 Authentication required"), want{"4.7.0", 530, "MAIL", ""}},
		{"MAIL 550 5.7.9", rule("MAIL", "550 5.7.9 weak"), want{"4.7.9", 550, "MAIL", ""}},
		{"MAIL 421", relaytest.Rule{At: "MAIL", Reply: "421 4.3.2 bye", Do: relaytest.Close}, want{"4.3.2", 421, "MAIL", ""}},
		{"RCPT 251", rule("RCPT", "251 2.1.5 will forward"), want{"2", 250, "dot", ""}},
		{"RCPT 550", rule("RCPT", "550 5.1.1 unknown"), want{"5.1.1", 550, "RCPT", "^unknown$"}},
		{"RCPT 550 without text", raw("RCPT", "550 5.1.1"), want{"5.1.1", 550, "RCPT", "^$"}},
		{"RCPT 550 of the wrong class", rule("RCPT", "550 4.1.1 odd"), want{"5.0.0", 550, "RCPT", "^4.1.1 odd$"}},
		{"RCPT many lines", rule("RCPT", "550-5.7.1 one\n550-5.7.1 https://example/help\n550 5.7.1 end"), want{"5.7.1", 550, "RCPT", "^one https://example/help end$"}},
		{"RCPT with control characters", rule("RCPT", "550 5.1.1 \x1b[31mno\x07"), want{"5.1.1", 550, "RCPT", `^\?\[31mno\?$`}},
		{"RCPT 452 at the first", rule("RCPT", "452 4.5.3 too many"), want{"4.5.3", 452, "RCPT", ""}},
		{"RCPT 552 5.2.2", rule("RCPT", "552 5.2.2 full"), want{"5.2.2", 552, "RCPT", ""}},
		{"RCPT 503", rule("RCPT", "503 5.5.1 MAIL first"), want{"4.5.1", 503, "RCPT", ""}},
		{"RCPT closed", do("RCPT", relaytest.Close), want{"4.4.2", 0, "RCPT", "closed"}},
		{"DATA 554", rule("DATA", "554 5.7.1 blocked"), want{"5.7.1", 554, "DATA", ""}},
		{"DATA 250", rule("DATA", "250 ok"), want{"4.5.0", 250, "DATA", "out of place"}},
		{"DATA 421", relaytest.Rule{At: "DATA", Reply: "421 4.3.2 bye", Do: relaytest.Close}, want{"4.3.2", 421, "DATA", ""}},
		{"dot 252", rule("dot", "252 fine"), want{"2.0.0", 252, "dot", ""}},
		{"dot 552", rule("dot", "552 5.3.4 too large"), want{"5.3.4", 552, "dot", ""}},
		{"dot 454", rule("dot", "454 Throttling failure"), want{"4.0.0", 454, "dot", "Throttling"}},
		{"dot 530", rule("dot", "530 5.7.57 not authenticated"), want{"4.7.57", 530, "dot", ""}},
		{"late dot", relaytest.Rule{At: "dot", Reply: "250 2.0.0 ok", Delay: 50 * time.Millisecond}, want{"2.0.0", 250, "dot", ""}},
		{"dripped reply in time", relaytest.Rule{At: "RCPT", Reply: "250 ok", Do: relaytest.Drip, Pause: time.Millisecond}, want{"2", 250, "dot", ""}},
	} {
		for name, offer := range offers {
			if tt.rule.At == "DATA" && slices.Contains(offer, "CHUNKING") {
				continue
			}
			t.Run(tt.name+", "+name, func(t *testing.T) {
				server, r := warm(t, offer, tt.rule)
				before := len(server.Messages())
				replies := r.Deliver(t.Context(), one())
				if len(replies) != 1 {
					t.Fatalf("%d replies, want 1", len(replies))
				}
				want, doubt := tt.want.inDoubt(offer)
				want.check(t, replies[0])
				if replies[0].Maybe != doubt {
					t.Errorf("got %+v, want Maybe to be %v", replies[0], doubt)
				}
				if host := fmt.Sprintf("127.0.0.1[127.0.0.1]:%d", server.Port()); replies[0].Host != host {
					t.Errorf("host is %q, want %q", replies[0].Host, host)
				}
				if got, took := replies[0].Class() == spool.Success, len(server.Messages()) == before+1; got != took && !doubt {
					t.Errorf("success is %v, but the server took it: %v", got, took)
				}
				never(t, server, "localhost")
			})
		}
	}
}

// Every recipient has a Reply at its own place, whatever happens to the others.
func TestRepliesAreByRecipient(t *testing.T) {
	to := []string{"a@x.test", "b@x.test", "c@x.test"}
	for _, tt := range []struct {
		name  string
		rules []relaytest.Rule
		want  [3]want
	}{
		{"one refused", []relaytest.Rule{{At: "RCPT", Arg: "<b@", Reply: "550 5.1.1 no"}},
			[3]want{{"2", 250, "dot", ""}, {"5.1.1", 550, "RCPT", ""}, {"2", 250, "dot", ""}}},
		{"one deferred", []relaytest.Rule{{At: "RCPT", Arg: "<c@", Reply: "450 4.2.1 grey"}},
			[3]want{{"2", 250, "dot", ""}, {"2", 250, "dot", ""}, {"4.2.1", 450, "RCPT", ""}}},
		{"421 at the second", []relaytest.Rule{{At: "RCPT", N: 2, Reply: "421 4.7.0 closing", Do: relaytest.Close}},
			[3]want{{"4.7.0", 421, "RCPT", ""}, {"4.7.0", 421, "RCPT", ""}, {"4.7.0", 421, "RCPT", ""}}},
		{"refused, then 421 at DATA", []relaytest.Rule{{At: "RCPT", Arg: "<a@", Reply: "550 5.1.1 no"}, {At: "DATA", Reply: "421 4.3.2 bye", Do: relaytest.Close}},
			[3]want{{"5.1.1", 550, "RCPT", ""}, {"4.3.2", 421, "DATA", ""}, {"4.3.2", 421, "DATA", ""}}},
		{"lost at the third", []relaytest.Rule{{At: "RCPT", Arg: "<a@", Reply: "550 5.1.1 no"}, {At: "RCPT", N: 3, Do: relaytest.Reset}},
			[3]want{{"5.1.1", 550, "RCPT", ""}, {"4.4.2", 0, "RCPT", ""}, {"4.4.2", 0, "RCPT", ""}}},
		{"dot refused", []relaytest.Rule{{At: "RCPT", Arg: "<a@", Reply: "450 4.2.1 grey"}, {At: "dot", Reply: "554 5.7.1 spam"}},
			[3]want{{"4.2.1", 450, "RCPT", ""}, {"5.7.1", 554, "dot", ""}, {"5.7.1", 554, "dot", ""}}},
		{"too many for one transaction", []relaytest.Rule{{At: "RCPT", N: 3, Reply: "452 4.5.3 too many"}},
			[3]want{{"2", 250, "dot", ""}, {"2", 250, "dot", ""}, {"2", 250, "dot", ""}}},
		{"552 in that sense", []relaytest.Rule{{At: "RCPT", N: 2, Reply: "552 too many"}},
			[3]want{{"2", 250, "dot", ""}, {"2", 250, "dot", ""}, {"2", 250, "dot", ""}}},
		{"too many and never more", []relaytest.Rule{{At: "RCPT", N: 1}, {At: "RCPT", Reply: "452 4.5.3 too many"}},
			[3]want{{"2", 250, "dot", ""}, {"4.5.3", 452, "RCPT", ""}, {"4.5.3", 452, "RCPT", ""}}},
	} {
		for name, offer := range offers {
			if slices.ContainsFunc(tt.rules, func(r relaytest.Rule) bool { return r.At == "DATA" }) && slices.Contains(offer, "CHUNKING") {
				continue
			}
			t.Run(tt.name+", "+name, func(t *testing.T) {
				_, r := warm(t, offer, tt.rules...)
				replies := r.Deliver(t.Context(), batch(hello, to...))
				for i, reply := range replies {
					want, _ := tt.want[i].inDoubt(offer)
					want.check(t, reply)
				}
			})
		}
	}
}

// A batch may name some recipients in any order; the others are not written to.
func TestBatchIsAPart(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Arg: "<a@", Reply: "550 5.1.1 no"}}})
	b := batch(hello, "a@x.test", "b@x.test", "c@x.test")
	b.Recipients = []int{2, 0}
	replies := newRelay(t, settings(server), patient()).Deliver(t.Context(), b)
	want{"2", 250, "dot", ""}.check(t, replies[0])
	want{"5.1.1", 550, "RCPT", ""}.check(t, replies[1])
	never(t, server, "<b@")
}

// All refused: nothing is sent, and the session is ended in order.
func TestNoRecipientNoData(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Reply: "550 5.1.1 no"}}})
	r := newRelay(t, settings(server), patient())
	r.Deliver(t.Context(), batch(hello, "a@x.test", "b@x.test"))
	r.Close()
	never(t, server, "^DATA")
	quits(t, server)
}

// The end of the context ends any wait, over a socket too, and says so.
func TestContextEndsAnyWait(t *testing.T) {
	t.Parallel()
	for at, status := range waits {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: at, Until: t.Context().Done()}}})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r := newRelay(t, settings(server), patient())
			replies := make(chan []spool.Reply, 1)
			go func() { replies <- r.Deliver(ctx, one()) }()
			eventually(t, "the server to be at "+at, func() (any, bool) { return server.Commands(), isAt(server, at) })
			cancel()
			interrupted(t, (<-replies)[0], at, status)
		})
	}
}

// waits are the places where a remote may keep us waiting, and the status of what is
// interrupted there.
var waits = map[string]string{"greeting": "4.3.2", "EHLO": "4.3.2", "MAIL": "4.4.2", "RCPT": "4.4.2", "DATA": "4.4.2", "dot": "4.4.2"}

// isAt reports whether a server has come to that place, where it says nothing.
func isAt(server *relaytest.Server, at string) bool {
	switch at {
	case "greeting":
		return server.Connections() > 0
	case "dot":
		return len(server.Messages()) > 0
	}
	return slices.ContainsFunc(server.Commands(), func(line string) bool { return strings.HasPrefix(line, at) })
}

// interrupted checks the reply to what was interrupted there.
func interrupted(t *testing.T, reply spool.Reply, at, status string) {
	t.Helper()
	command := at
	if status == "4.3.2" {
		command = "connect"
	}
	want{status, 0, command, "interrupted"}.check(t, reply)
	if reply.Maybe != (at == "dot") {
		t.Errorf("Maybe is %v", reply.Maybe)
	}
}

// What would end the path in a command never gets there.
func TestBadAddressesNeverReachTheWire(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	b := one()
	good := b.Message.Recipients[0].Address
	for _, a := range []address.Address{
		{Local: "a", Domain: "x.test> SIZE=1 X=<"},
		{Local: "a", Domain: "x.test\r\nRCPT TO:<b@x.test"},
		{Local: "a\r\nDATA", Domain: "x.test"},
		{Local: "a\x00", Domain: "x.test"},
		{Local: "a\xff", Domain: "x.test"},
		{Local: "", Domain: "x.test"},
		{Local: "a", Domain: ""},
		{},
	} {
		b.Message.Recipients[0].Address = a
		want{"5.1.3", 0, "RCPT", ""}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), b)[0])
	}
	b.Message.Recipients[0].Address = good
	b.Message.Sender.Domain = "x.test> X=<"
	want{"5.1.7", 0, "MAIL", ""}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), b)[0])
	if n := server.Connections(); n != 0 {
		t.Errorf("%d connections, want none", n)
	}
}

// A local part is quoted where it must be, and the null reverse-path is empty.
func TestAddressesOnTheWire(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	b := one()
	b.Message.Sender = address.Address{}
	b.Message.Recipients[0].Address.Local = `a > "b`
	want{"2", 250, "dot", ""}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), b)[0])
	said(t, server, `^MAIL FROM:<> `)
	said(t, server, regexp.QuoteMeta(`RCPT TO:<"a > \"b"@x.test>`)+"$")
}

// Without anybody to talk to there is no host in the Reply, and nothing fails.
func TestUnreachable(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	c := settings(server)
	server.Close()
	r := newRelay(t, c, patient())
	reply := r.Deliver(t.Context(), one())[0]
	want{"4.4.1", 0, "connect", "refused"}.check(t, reply)
	if reply.Host != "" {
		t.Errorf("host is %q, want none", reply.Host)
	}
	c.Host = config.Hosts{"no-such-host.invalid"}
	hasty := patient()
	hasty.Connect = config.Duration(time.Second) // where no name server answers
	if status := newRelay(t, c, hasty).Deliver(t.Context(), one())[0].Status; status != "4.4.4" && status != "4.4.3" {
		t.Errorf("status for an unknown host is %s, want 4.4.4 or 4.4.3", status)
	}
}

func TestHop(t *testing.T) {
	r, err := New(&config.Relay{Host: config.Hosts{"smtp.example.net"}, Port: 587}, patient(), "h.test", nil)
	if err != nil || r.Hop() != "relay smtp.example.net:587" {
		t.Errorf("Hop of %+v, %v", r, err)
	}
	if _, err := New(&config.Relay{}, patient(), "h.test", nil); err == nil {
		t.Error("New without a host succeeds")
	}
	if _, err := New(&config.Relay{Host: config.Hosts{"h"}}, config.Timeouts{}, "h.test", nil); err == nil {
		t.Error("New without timeouts succeeds")
	}
}
