package relay

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

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

// A server that offers CHUNKING and does not know BDAT has each message once by DATA, but
// for those whose content was out already, which wait; so it is with one that means
// something else by 500, and takes what comes behind.
func TestUnknownBDATSendsNothingTwice(t *testing.T) {
	for name, rule := range map[string]relaytest.Rule{
		"unknown":      {At: "dot", Arg: "BDAT", Reply: "500 5.5.1 command unrecognized"},
		"of one alone": {At: "dot", Arg: "BDAT", N: 1, Conn: 1, Reply: "502 5.5.2 I do not like it"},
	} {
		t.Run(name, func(t *testing.T) {
			server := relaytest.New(t, relaytest.Options{Extensions: offers["CHUNKING"], Rules: []relaytest.Rule{rule}})
			r := newRelay(t, settings(server, single), patient())
			var sends sync.WaitGroup
			var doubt atomic.Int32
			const n = 50
			for i := range n {
				sends.Go(func() {
					reply := r.Deliver(t.Context(), batch(hello, fmt.Sprintf("a%d@x.test", i)))[0]
					switch {
					case reply.Class() == spool.Success:
					case reply.Class() == spool.Temporary && reply.Maybe:
						doubt.Add(1)
					default:
						t.Errorf("%+v", reply)
					}
				})
			}
			sends.Wait()
			got := map[string]bool{}
			for _, m := range server.Messages() {
				if got[m.To[0]] {
					t.Errorf("%q arrived again", m.To)
				}
				got[m.To[0]] = true
			}
			if took := len(got); took+int(doubt.Load()) < n || took < n/2 {
				t.Errorf("%d of %d arrived, %d are in doubt", took, n, doubt.Load())
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
