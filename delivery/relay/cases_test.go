package relay

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// recipients are n of them in one domain.
func recipients(n int) (to []string) {
	for i := range n {
		to = append(to, fmt.Sprintf("r%d@x.test", i+1))
	}
	return to
}

// Limits of the remote split a message into as many transactions as it takes, each
// recipient gets it once, and a limit that never lets anybody through ends in a
// deferral.
func TestRecipientLimits(t *testing.T) {
	everyone := want{"2", 250, "dot", ""}
	for _, tt := range []struct {
		name         string
		offer        []string
		rules        []relaytest.Rule
		to           []string
		want         want
		transactions int
	}{
		{"552 at the eleventh", nil, []relaytest.Rule{{At: "RCPT", N: 11, Reply: "552 too many recipients"}}, recipients(12), everyone, 2},
		{"452 4.5.3 for each after the tenth", nil, each(11, 20, "452 4.5.3 too many"), recipients(20), everyone, 2},
		{"451 4.5.3", nil, []relaytest.Rule{{At: "RCPT", N: 3, Reply: "451 4.5.3 enough"}}, recipients(3), everyone, 2},
		{"one domain at a time", nil, []relaytest.Rule{{At: "RCPT", N: 2, Reply: "451 4.3.0 Multiple destination domains per transaction is unsupported. Try again."}},
			[]string{"a@x.test", "b@y.test"}, everyone, 2},
		{"RCPTMAX", []string{"LIMITS RCPTMAX=3"}, nil, recipients(10), everyone, 4},
		{"RCPTMAX in lower case, beside others", []string{"limits foo=1 mailmax=50 rcptmax=5"}, nil, recipients(10), everyone, 2},
		{"RCPTMAX of nonsense", []string{"LIMITS RCPTMAX=0 RCPTMAX=-1 RCPTMAX=x"}, nil, recipients(10), everyone, 1},
		{"RCPTDOMAINMAX", []string{"LIMITS RCPTDOMAINMAX=1"}, nil, []string{"a@x.test", "b@y.test", "c@X.TEST", "d@z.test"}, everyone, 3},
		{"what every server takes", nil, nil, recipients(250), everyone, 3},
		{"none at all", nil, []relaytest.Rule{{At: "RCPT", Reply: "452 4.5.3 too many"}}, recipients(2), want{"4.5.3", 452, "RCPT", ""}, 1},
		{"mailbox full is no limit", nil, []relaytest.Rule{{At: "RCPT", Reply: "452 4.2.2 over quota"}}, recipients(2), want{"4.2.2", 452, "RCPT", ""}, 1},
	} {
		for name, offer := range offers {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				server := relaytest.New(t, relaytest.Options{Extensions: append(slices.Clone(tt.offer), offer...), Rules: tt.rules})
				r := newRelay(t, settings(server, single), patient())
				for _, reply := range r.Deliver(t.Context(), batch(hello, tt.to...)) {
					tt.want.check(t, reply)
				}
				got := map[string]int{}
				for _, m := range server.Messages() {
					for _, to := range m.To {
						got[to]++
					}
				}
				for _, to := range tt.to {
					if n := got[to]; n != 1 && tt.want == everyone || n > 1 {
						t.Errorf("%s got it %d times", to, n)
					}
				}
				n := 0
				for _, line := range server.Commands() {
					if strings.HasPrefix(line, "MAIL") {
						n++
					}
				}
				if n != tt.transactions {
					t.Errorf("%d transactions, want %d", n, tt.transactions)
				}
			})
		}
	}
}

// each refuses the nth to the mth RCPT.
func each(n, m int, reply string) (rules []relaytest.Rule) {
	for ; n <= m; n++ {
		rules = append(rules, relaytest.Rule{At: "RCPT", N: n, Reply: reply})
	}
	return rules
}

// A content that nobody is to get is not sent by DATA, even to a server that wants
// it: a lone dot ends what it began. What it says to that is nothing.
func TestContentForNobody(t *testing.T) {
	for _, rule := range []relaytest.Rule{
		{At: "RCPT", Reply: "550 5.1.1 no"},
		{At: "MAIL", Reply: "550 5.1.1 no"},
	} {
		server := relaytest.New(t, relaytest.Options{Extensions: offers["PIPELINING"], Rules: []relaytest.Rule{rule}})
		r := newRelay(t, settings(server, single), patient())
		want{"5.1.1", 550, rule.At, ""}.check(t, r.Deliver(t.Context(), one())[0])
		server.SetRules()
		want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
		if lost := server.Unaddressed(); len(lost) != 1 || len(lost[0].Data) != 0 {
			t.Errorf("%s: the server got %+v for nobody, want one empty message", rule.At, lost)
		}
		if n := server.Connections(); n != 1 {
			t.Errorf("%s: %d connections, want 1", rule.At, n)
		}
	}
}

// A server that answers more often than asked is found out before any content is
// given to it.
func TestExtraReplies(t *testing.T) {
	for name, offer := range offers {
		for _, at := range []string{"EHLO", "MAIL", "RCPT"} {
			server := relaytest.New(t, relaytest.Options{Extensions: offer, Rules: []relaytest.Rule{{At: at, Raw: "250-a\r\n250 CHUNKING\r\n250 b"}}})
			reply := newRelay(t, settings(server), patient()).Deliver(t.Context(), one())[0]
			if reply.Class() != spool.Temporary || reply.Maybe || len(server.Messages()) > 0 {
				t.Errorf("%s, %s: got %+v", name, at, reply)
			}
		}
	}
}

// Only the recipients that need SMTPUTF8 fail for want of it.
func TestUTF8IsByRecipient(t *testing.T) {
	for _, offer := range [][]string{{"8BITMIME"}, {"8BITMIME", "SMTPUTF8"}} {
		server := relaytest.New(t, relaytest.Options{Extensions: offer})
		b := batch(hello, "grün@x.test", "a@bücher.test")
		b.Message.UTF8 = true
		replies := newRelay(t, settings(server), patient()).Deliver(t.Context(), b)
		want{"2", 250, "dot", ""}.check(t, replies[1])
		said(t, server, `^RCPT TO:<a@xn--bcher-kva\.test>$`)
		if len(offer) == 1 {
			want{"5.6.7", 0, "RCPT", "SMTPUTF8"}.check(t, replies[0])
			never(t, server, "SMTPUTF8")
		} else {
			want{"2", 250, "dot", ""}.check(t, replies[0])
			said(t, server, "^MAIL .* SMTPUTF8$")
		}
	}
	// The header section needs it: nobody can have the message.
	server := relaytest.New(t, relaytest.Options{})
	b := batch("Subject: grün\r\n\r\nhello\r\n", "a@x.test")
	b.Message.UTF8, b.Message.EightBit = true, true
	want{"5.6.7", 0, "MAIL", "header"}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), b)[0])
	// Octets above 127 in the body are no reason.
	b = batch("Subject: x\r\n\r\ngrün\r\n", "a@x.test")
	b.Message.UTF8, b.Message.EightBit = true, true
	want{"2", 250, "dot", ""}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), b)[0])
}

// A refused EHLO is answered by HELO, unless the session is over; refused both, the
// mail waits whatever the class.
func TestEHLORefused(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{
		{At: "EHLO", Reply: "550 bad helo"}, {At: "HELO", Reply: "550 5.7.1 bad helo"}}})
	want{"4.7.1", 550, "HELO", "bad helo"}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), one())[0])
	server = relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "EHLO", Reply: "421 4.7.0 later"}}})
	want{"4.7.0", 421, "EHLO", ""}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), one())[0])
	never(t, server, "^HELO")
}

// Replies are read while commands are written: neither side waits for the other,
// however small the buffers. (Not with CHUNKING: Linux drops segments that are larger
// than such a buffer, and their repetitions take seconds.)
func TestManyRecipientsDoNotDeadlock(t *testing.T) {
	for name, buffer := range map[string]int{"a command at a time": 4096, "PIPELINING": 4096, "CHUNKING": 0} {
		server := relaytest.New(t, relaytest.Options{Extensions: offers[name], Buffer: buffer, Rules: []relaytest.Rule{
			{At: "RCPT", Arg: "<r7", Reply: "550-5.1.1 " + strings.Repeat("x", 500) + "\n550 5.1.1 no"}}})
		for i, reply := range newRelay(t, settings(server, single), patient()).Deliver(t.Context(), batch(hello, recipients(2000)...)) {
			if no := strings.HasPrefix(fmt.Sprint(i+1), "7"); no != (reply.Class() == spool.Permanent) || !no && reply.Class() != spool.Success {
				t.Fatalf("%s: r%d has %+v", name, i+1, reply)
			}
		}
	}
}

// By LMTP over a unix socket, with nobody left to get the content: there would be no
// reply to wait for.
func TestLMTPOverUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lmtp")
	server := relaytest.New(t, relaytest.Options{LMTP: true, Listen: path, Extensions: offers["PIPELINING"]})
	p := newPool(&peer{network: "unix", address: path, host: path, lmtp: true, policy: config.NoTLS, hello: "client.test", time: patient()},
		1, 100, config.Rate{})
	t.Cleanup(p.close)
	replies := send(t, p, one())
	want{"2", 250, "dot", ""}.check(t, replies[0])
	if replies[0].Host != path {
		t.Errorf("host is %q, want %q", replies[0].Host, path)
	}
	server.SetRules(relaytest.Rule{At: "RCPT", Reply: "550 5.1.1 no"})
	want{"5.1.1", 550, "RCPT", ""}.check(t, send(t, p, one())[0])
	server.SetRules()
	want{"2", 250, "dot", ""}.check(t, send(t, p, one())[0])
	if n := len(server.Messages()); n != 2 {
		t.Errorf("%d messages arrived, want 2", n)
	}
}

// Nothing is sent before the whole greeting is there (RFC 5321 §4.3.1).
func TestSilenceBeforeTheGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		early := make(chan bool, 1)
		p := piped(t, relaytest.Piped(t, relaytest.Options{}))
		p.peer.dial = func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				theirs.Write([]byte("220-wait\r\n"))
				theirs.SetReadDeadline(time.Now().Add(time.Second))
				n, _ := theirs.Read(make([]byte, 100))
				early <- n > 0
				theirs.Write([]byte("220 go\r\n"))
			}()
			return ours, nil
		}
		send(t, p, one())
		if <-early {
			t.Error("something was sent before the end of the greeting")
		}
	})
}

// Session by session, message by message: what is deferred for a lost connection is
// sent when it comes again, and nothing that a server took comes twice.
func TestNothingTwice(t *testing.T) {
	for name, offer := range offers {
		server := relaytest.New(t, relaytest.Options{Extensions: offer, Rules: []relaytest.Rule{
			{At: "MAIL", N: 5, Do: relaytest.Close}, {At: "RCPT", N: 3, Conn: 2, Reply: "421 4.3.2 bye", Do: relaytest.Close},
			{At: "dot", N: 3, Conn: 3, Reply: "421 4.3.2 bye", Do: relaytest.Close}, {At: "dot", N: 2, Reply: "451 4.3.0 busy"},
		}})
		r := newRelay(t, settings(server), patient())
		var sends sync.WaitGroup
		for i := range 60 {
			sends.Go(func() {
				for {
					reply := r.Deliver(t.Context(), batch(hello, fmt.Sprintf("a%d@x.test", i)))[0]
					if reply.Class() == spool.Success || reply.Maybe {
						return
					}
				}
			})
		}
		sends.Wait()
		seen := map[string]bool{}
		for _, m := range server.Messages() {
			if seen[m.To[0]] {
				t.Errorf("%s: %s got it twice", name, m.To[0])
			}
			seen[m.To[0]] = true
		}
		if len(offer) < 2 && len(seen) != 60 {
			t.Errorf("%s: %d messages arrived, want 60", name, len(seen))
		}
	}
}

// FuzzLines: however content is cut, what goes out has no CR or LF alone, ends once,
// and read as a receiver does (RFC 5321 §4.5.2) is the content, its line ends made
// CRLF.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\n.\r\n..b\r\n"), 3)
	f.Add([]byte(".\n.\r.\r\n\r\r\n\n."), 1)
	f.Fuzz(func(t *testing.T, content []byte, size int) {
		var plain, data []byte
		l, d := lines{}, lines{dots: true}
		for part := range slices.Chunk(content, max(1, size)) {
			plain, data = l.add(plain, part), d.add(data, part)
		}
		plain, data = l.end(plain), d.end(data)
		normal := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(string(content), "\r\n", "\n"), "\r", "\n"), "\n", "\r\n")
		if normal != "" && !strings.HasSuffix(normal, "\r\n") {
			normal += "\r\n"
		}
		if string(plain) != normal {
			t.Fatalf("%q became %q, want %q", content, plain, normal)
		}
		var got strings.Builder
		rest := string(data)
		for {
			line, after, found := strings.Cut(rest, "\r\n")
			if !found {
				t.Fatalf("%q became %q, which has no end", content, data)
			}
			rest = after
			if line == "." {
				break
			}
			got.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
		}
		if rest != "" || got.String() != normal {
			t.Fatalf("%q became %q, read as %q with %q left", content, data, got.String(), rest)
		}
	})
}
