package relay

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// offers are the ways of a server to be spoken to.
var offers = map[string][]string{
	"a command at a time": {},
	"PIPELINING":          {"PIPELINING"},
	"CHUNKING":            {"PIPELINING", "CHUNKING"},
	"CHUNKING alone":      {"CHUNKING"},
}

// single keeps to one connection.
func single(c *config.Relay) { c.MaxConnections = 1 }

// Many messages at a time over one connection: each gets the reply to itself and
// arrives once, unaltered, whoever else is refused in between.
func TestRepliesAreByMessage(t *testing.T) {
	for name, offer := range offers {
		t.Run(name, func(t *testing.T) {
			server := relaytest.New(t, relaytest.Options{Extensions: offer, Rules: []relaytest.Rule{
				{At: "RCPT", Arg: "<no", Reply: "550 5.1.1 unknown"},
				{At: "MAIL", Arg: "<bad", Reply: "550 5.1.8 sender"},
				{At: "RCPT", Arg: "<later", Reply: "450 4.2.1 grey"},
			}})
			r := newRelay(t, settings(server, single), patient())
			var sends sync.WaitGroup
			const n = 200
			for i := range n {
				sends.Go(func() {
					content := fmt.Sprintf("Subject: %d\r\n\r\n.dot\r\n%s", i, strings.Repeat("x\r\n", i*40%70000))
					to := []string{fmt.Sprintf("a%d@x.test", i), "no@x.test", "later@x.test"}
					wants := []want{{"2", 250, "dot", ""}, {"5.1.1", 550, "RCPT", ""}, {"4.2.1", 450, "RCPT", ""}}
					switch i % 5 {
					case 1:
						to, wants = to[1:], wants[1:]
					case 2:
						wants = []want{{"5.1.8", 550, "MAIL", ""}, {"5.1.8", 550, "MAIL", ""}, {"5.1.8", 550, "MAIL", ""}}
					}
					b := batch(content, to...)
					if i%5 == 2 {
						b.Message.Sender.Local = "bad"
					}
					for k, reply := range r.Deliver(t.Context(), b) {
						wants[k].check(t, reply)
					}
				})
			}
			sends.Wait()
			got := map[string]string{}
			for _, m := range server.Messages() {
				if _, twice := got[m.To[0]]; twice || len(m.To) != 1 {
					t.Errorf("%q arrived again", m.To)
				}
				got[m.To[0]] = string(m.Data)
			}
			if len(got) != n*3/5 {
				t.Errorf("%d messages arrived, want %d", len(got), n*3/5)
			}
			for to, data := range got {
				var i int
				fmt.Sscanf(to, "a%d@", &i)
				if want := fmt.Sprintf("Subject: %d\r\n\r\n.dot\r\n%s", i, strings.Repeat("x\r\n", i*40%70000)); data != want {
					t.Errorf("message %d arrived altered", i)
				}
			}
		})
	}
}

// Where the connection ends under way, only what the remote may have taken whole is
// in doubt, nothing that it took is sent again, and everything has a reply.
func TestConnectionLostUnderWay(t *testing.T) {
	for name, offer := range offers {
		for _, do := range []relaytest.Do{relaytest.Close, relaytest.Reset} {
			for _, at := range []string{"MAIL", "RCPT", "dot"} {
				for _, reply := range []string{"", "421 4.3.2 enough"} {
					t.Run(fmt.Sprint(name, at, do, reply), func(t *testing.T) {
						server := relaytest.New(t, relaytest.Options{Extensions: offer, Rules: []relaytest.Rule{
							{At: at, N: 7, Conn: 1, Reply: reply, Do: do},
						}})
						r := newRelay(t, settings(server, single), patient())
						replies := make([]spool.Reply, 30)
						var sends sync.WaitGroup
						for i := range replies {
							sends.Go(func() { replies[i] = r.Deliver(t.Context(), batch(hello, fmt.Sprintf("a%d@x.test", i)))[0] })
						}
						sends.Wait()
						took := map[string]int{}
						for _, m := range server.Messages() {
							took[m.To[0]]++
						}
						maybe := 0
						for i, reply := range replies {
							n := took[fmt.Sprintf("a%d@x.test", i)]
							switch {
							case reply.Class() == spool.Success && n != 1, reply.Class() == spool.Permanent, n > 1,
								n == 1 && reply.Class() != spool.Success && !reply.Maybe:
								t.Errorf("%d: taken %d times, reply %+v", i, n, reply)
							case reply.Maybe:
								maybe++
							}
						}
						// A socket closed on unread commands is reset, and the 421 may get lost.
						if maybe > 0 && reply != "" && do == relaytest.Close && len(offer) < 2 || maybe > 1 && len(offer) < 2 || maybe == 0 && at == "dot" && reply == "" {
							t.Errorf("%d messages are in doubt", maybe)
						}
					})
				}
			}
		}
	}
}

// With PIPELINING the commands of a message do not wait for each other, and those of
// the next are there before the end of this one is answered; with CHUNKING its
// content too. The server that is asked holds back every answer until it has seen
// that.
func TestCommandsAreSentAhead(t *testing.T) {
	for name, want := range map[string]int{"PIPELINING": 2, "CHUNKING": 3} {
		server := relaytest.New(t, relaytest.Options{Extensions: offers[name], Rules: []relaytest.Rule{
			{At: "dot", Reply: "250 2.0.0 ok", Delay: 20 * time.Millisecond},
		}})
		r := newRelay(t, settings(server, single), patient())
		var sends sync.WaitGroup
		for range 4 {
			sends.Go(func() { r.Deliver(t.Context(), one()) })
		}
		sends.Wait()
		if n := server.Ahead(); n < want {
			t.Errorf("%s: at most %d commands were there before they were due, want %d", name, n, want)
		}
	}
}

// By LMTP each recipient has a reply of its own after the end (RFC 2033 §4.2), those
// of one name too.
func TestLMTP(t *testing.T) {
	for _, offer := range [][]string{{}, {"PIPELINING"}, {"PIPELINING", "CHUNKING"}} {
		server := relaytest.New(t, relaytest.Options{LMTP: true, Extensions: offer, Rules: []relaytest.Rule{
			{At: "RCPT", Arg: "<no", Reply: "550 5.1.1 unknown"},
			{At: "dot", N: 2, Reply: "452 4.2.2 full"},
			{At: "dot", N: 3, Reply: "550 5.2.1 disabled"},
		}})
		p := lmtp(t, server)
		replies := make([]spool.Reply, 5)
		b := batch(hello, "a@x.test", "b@x.test", "no@x.test", "c@x.test", "a@x.test")
		p.deliver(t.Context(), b, replies, []int{0, 1, 2, 3, 4})
		for i, w := range []want{{"2", 250, "dot", ""}, {"4.2.2", 452, "dot", ""}, {"5.1.1", 550, "RCPT", ""}, {"5.2.1", 550, "dot", ""}, {"2", 250, "dot", ""}} {
			w.check(t, replies[i])
		}
		said(t, server, "^LHLO client.test$")
		never(t, server, "^EHLO|^BDAT")
		p.deliver(t.Context(), batch(hello, "no@x.test"), replies, []int{0})
		want{"5.1.1", 550, "RCPT", ""}.check(t, replies[0])
		p.deliver(t.Context(), one(), replies, []int{0})
		want{"2", 250, "dot", ""}.check(t, replies[0])
	}
}

// lmtp is a pool for server by LMTP.
func lmtp(t *testing.T, server *relaytest.Server) *pool {
	t.Helper()
	p := newPool(&peer{network: "tcp", address: server.Addr(), host: "mda", lmtp: true, policy: config.NoTLS, hello: "client.test", time: patient()},
		1, 100, config.Rate{})
	t.Cleanup(p.close)
	return p
}

// One answer too many amid a stream of messages is not taken for the next one due: no
// message counts as taken for the yes to somebody's RCPT. Who is left without an answer
// is deferred, and in doubt if the content went out; the connection is not used again,
// and BDAT neither.
func TestSurplusAnswerShiftsNothing(t *testing.T) {
	for name, offer := range offers {
		for _, at := range []string{"MAIL", "RCPT", "dot"} {
			t.Run(name+" "+at, func(t *testing.T) {
				t.Parallel()
				again := map[string]string{"MAIL": "250 2.1.0 ok", "RCPT": "250 2.1.5 ok", "dot": "250 2.0.0 Ok: queued as Q1"}[at]
				server := relaytest.New(t, relaytest.Options{Extensions: offer, Rules: []relaytest.Rule{
					{At: at, N: 6, Conn: 1, Raw: again + "\r\n" + again},
					{At: "dot", N: 6, Conn: 1, Reply: "451 4.3.0 out of disk"}, // what would be hidden by the shift
					{At: "dot", N: 7, Conn: 1, Reply: "451 4.3.0 out of disk"},
				}})
				r := newRelay(t, settings(server, single), patient())
				replies := make([]spool.Reply, 30)
				var sends sync.WaitGroup
				for i := range replies {
					sends.Go(func() { replies[i] = r.Deliver(t.Context(), batch(hello, fmt.Sprintf("a%d@x.test", i)))[0] })
				}
				sends.Wait()
				took := map[string]int{}
				for _, m := range server.Messages() {
					took[m.To[0]]++
				}
				for i, reply := range replies {
					n := took[fmt.Sprintf("a%d@x.test", i)]
					if reply.Class() == spool.Success && n != 1 || reply.Class() == spool.Permanent || n > 1 || n == 1 && reply.Class() != spool.Success && !reply.Maybe {
						t.Errorf("%d: taken %d times, reply %+v", i, n, reply)
					}
				}
				server.SetRules()
				want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
				if n := server.Connections(); n < 2 {
					t.Error("the connection is used on")
				}
			})
		}
	}
}

// A server whose answers are all the same gets content by DATA, whatever it offers.
func TestEqualAnswersGetNoChunks(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Extensions: offers["CHUNKING"], Rules: []relaytest.Rule{
		{At: "MAIL", Reply: "250 ok"}, {At: "RCPT", Reply: "250 ok"}, {At: "dot", Reply: "250 ok"},
	}})
	r := newRelay(t, settings(server, single), patient())
	for range 3 {
		want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
	}
	never(t, server, "^BDAT")
}
