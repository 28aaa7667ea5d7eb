package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// These tests have a virtual clock: what takes minutes is over at once, and the
// time that something took is exact.

// usual are the timeouts of RFC 5321 §4.5.3.2, all different.
var usual = config.Timeouts{
	Connect:  config.Duration(30 * time.Second),
	Greeting: config.Duration(5 * time.Minute),
	Command:  config.Duration(4 * time.Minute),
	Data:     config.Duration(3 * time.Minute),
	Dot:      config.Duration(10 * time.Minute),
}

// piped is a pool for a server without a network.
func piped(t *testing.T, server *relaytest.Server, change ...func(*pool)) *pool {
	t.Helper()
	p := newPool(&peer{host: "relay.test", policy: config.NoTLS, hello: "client.test", time: usual, dial: server.Dial}, 1, 100, config.Rate{})
	for _, f := range change {
		f(p)
	}
	t.Cleanup(p.close)
	return p
}

// send has p deliver b.
func send(t *testing.T, p *pool, b *spool.Batch) []spool.Reply {
	t.Helper()
	replies := make([]spool.Reply, len(b.Recipients))
	p.deliver(t.Context(), b, replies, b.Recipients)
	return replies
}

// Silence ends each step at its own timeout, and so does a reply that drips: the
// time is for the whole of it.
func TestEachStepHasItsTime(t *testing.T) {
	large := "A: b\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 100_000)
	for _, tt := range []struct {
		at   string
		took config.Duration
	}{
		{"greeting", usual.Greeting}, {"EHLO", usual.Command}, {"MAIL", usual.Command}, {"RCPT", usual.Command},
		{"DATA", usual.Command}, {"body", usual.Data}, {"dot", usual.Dot},
	} {
		for name, offer := range offers {
			for way, rule := range map[string]relaytest.Rule{
				"silence": {Do: relaytest.Stall},
				"octets":  {Do: relaytest.Drip, Reply: "250 2.0.0 this takes longer than anybody waits"},
				"lines":   {Raw: strings.Repeat("250-\r\n", 20) + "250 2.0.0 no line takes that long"},
			} {
				if way != "silence" && tt.at == "body" {
					continue
				}
				t.Run(fmt.Sprint(tt.at, " ", name, " ", way), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						rule.At, rule.Pause = tt.at, time.Minute
						server := relaytest.Piped(t, relaytest.Options{Extensions: offer, Rules: []relaytest.Rule{rule}})
						start := time.Now()
						reply := send(t, piped(t, server), batch(large, "a@x.test"))[0]
						says := "timeout"
						if tt.at == "dot" {
							says = "may have been delivered.*timeout"
						}
						want{"4.4.2", 0, "", says}.check(t, reply)
						if reply.Maybe != (tt.at == "dot") || server.Connections() != 1 {
							t.Errorf("%+v: Maybe is wrong, or %d connections, want 1", reply, server.Connections())
						}
						// After a write there is a moment to find out why.
						if took := time.Since(start); took < tt.took.D() || took > tt.took.D()+earlyWait {
							t.Errorf("took %v, want %v", took, tt.took.D())
						}
					})
				})
			}
		}
	}
}

// The end of the context ends any wait: at once, when all there is to do is to wait.
func TestContextEndsAnyWaitAtOnce(t *testing.T) {
	for at, status := range waits {
		synctest.Test(t, func(t *testing.T) {
			server := relaytest.Piped(t, relaytest.Options{Rules: []relaytest.Rule{{At: at, Until: t.Context().Done()}}})
			p, start := piped(t, server), time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			replies := make([]spool.Reply, 1)
			done := make(chan struct{})
			go func() {
				defer close(done)
				p.deliver(ctx, one(), replies, []int{0})
			}()
			synctest.Wait() // nobody has anything to do
			if !isAt(server, at) {
				t.Fatalf("the server is not at %s: %q", at, server.Commands())
			}
			cancel()
			<-done
			interrupted(t, replies[0], at, status)
			if took := time.Since(start); took != 0 {
				t.Errorf("%s: took %v", at, took)
			}
		})
	}
}

// A remote that reads a little now and then cannot hold a connection for days.
func TestContentHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := "A: b\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 100_000)
		p := piped(t, relaytest.Piped(t, relaytest.Options{}))
		p.peer.dial = func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				for _, reply := range []string{"220 hi\r\n", "250 hi\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"} {
					if reply[:3] != "220" {
						theirs.Read(make([]byte, 1000))
					}
					theirs.Write([]byte(reply))
				}
				for { // 1 KiB a second
					if _, err := theirs.Read(make([]byte, 1024)); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}()
			return ours, nil
		}
		p.peer.time.Data = config.Duration(time.Hour)
		start := time.Now()
		want{"4.4.2", 0, "DATA", "timeout"}.check(t, send(t, p, batch(content, "a@x.test"))[0])
		most := contentTime + time.Duration(len(content)/contentRate)*time.Second
		if took := time.Since(start); took < most || took > most+earlyWait {
			t.Errorf("took %v, want %v", took, most)
		}
	})
}

// An idle session says QUIT after idleTime and not before, whatever its use before.
func TestIdleSessionLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := relaytest.Piped(t, relaytest.Options{})
		p := piped(t, server)
		for range 3 {
			want{"2", 250, "dot", ""}.check(t, send(t, p, one())[0])
			time.Sleep(idleTime - time.Second)
		}
		synctest.Wait()
		never(t, server, "QUIT")
		time.Sleep(time.Second)
		synctest.Wait()
		said(t, server, "QUIT")
		if n := server.Connections(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
}

// A connection is given nothing new after maxAge.
func TestOldSessionLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := relaytest.Piped(t, relaytest.Options{})
		p := piped(t, server, func(p *pool) { p.perConnection = 1000 })
		start := time.Now()
		for time.Since(start) < 2*maxAge {
			want{"2", 250, "dot", ""}.check(t, send(t, p, one())[0])
			time.Sleep(5 * time.Second)
		}
		if n := server.Connections(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
	})
}

// QUIT without an answer holds nobody up: close takes quitWait, and deliver then no time
// at all.
func TestQUITIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := relaytest.Piped(t, relaytest.Options{Rules: []relaytest.Rule{{At: "QUIT", Do: relaytest.Stall}}})
		p := piped(t, server)
		want{"2", 250, "dot", ""}.check(t, send(t, p, one())[0])
		start := time.Now()
		p.close()
		if took := time.Since(start); took != quitWait {
			t.Errorf("took %v, want %v", took, quitWait)
		}
		said(t, server, "^QUIT$")
		want{"4.3.2", 0, "connect", ""}.check(t, send(t, p, one())[0])
		if took := time.Since(start); took != quitWait {
			t.Errorf("deliver after close: took %v", took-quitWait)
		}
	})
}

// rate spreads transactions evenly, over all connections; a second message of the
// same moment waits.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := relaytest.Piped(t, relaytest.Options{Extensions: offers["CHUNKING"]})
		p := piped(t, server, func(p *pool) { p.most, p.allowed, p.rate = 3, 3, config.Rate{N: 14, Per: time.Second} })
		start := time.Now()
		var ends []time.Duration
		var mu sync.Mutex
		var sends sync.WaitGroup
		for range 43 {
			sends.Go(func() {
				want{"2", 250, "dot", ""}.check(t, send(t, p, one())[0])
				mu.Lock()
				ends = append(ends, time.Since(start))
				mu.Unlock()
			})
		}
		sends.Wait()
		slices.Sort(ends)
		for i, end := range ends {
			if first := time.Duration(i) * (time.Second / 14); end < first || end > first+100*time.Millisecond {
				t.Fatalf("message %d went after %v, want %v", i, end, first)
			}
		}
	})
}

// With PIPELINING the commands of a message do not wait for each other, and those of
// the next are there before the end of this one is answered; with CHUNKING its
// content too. The server that is asked answers when nobody has anything else to do.
func TestCommandsAreSentAhead(t *testing.T) {
	for name, want := range map[string]int{"PIPELINING": 2, "CHUNKING": 3} {
		synctest.Test(t, func(t *testing.T) {
			server := relaytest.Piped(t, relaytest.Options{Extensions: offers[name], Rules: []relaytest.Rule{
				{At: "dot", Reply: "250 2.0.0 ok", Delay: time.Second},
			}})
			p := piped(t, server)
			var sends sync.WaitGroup
			for range 4 {
				sends.Go(func() { send(t, p, one()) })
			}
			sends.Wait()
			if n := server.Ahead(); n < want {
				t.Errorf("%s: at most %d commands were there before they were due, want %d", name, n, want)
			}
		})
	}
}

// delayed is a server whose every answer is a round trip away.
func delayed(t *testing.T, trip time.Duration, offer []string, rules ...relaytest.Rule) *relaytest.Server {
	for _, at := range []string{"greeting", "EHLO", "dot"} {
		rules = append(rules, relaytest.Rule{At: at, Delay: trip})
	}
	return relaytest.Piped(t, relaytest.Options{Extensions: offer, Rules: rules})
}

// What is under way on a connection is bounded by what the remote answers in
// depthTime, so that who comes last does not wait for long, and is at least one.
func TestDepthFollowsTheRemote(t *testing.T) {
	for _, pace := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			server := delayed(t, pace, offers["CHUNKING"])
			p := piped(t, server, func(p *pool) { p.perConnection = 10000 })
			var sends sync.WaitGroup
			for range 200 {
				sends.Go(func() { send(t, p, one()) })
			}
			sends.Wait()
			p.mu.Lock()
			got := p.sessions[0].depth.limit()
			p.mu.Unlock()
			want := int(max(1, min(maxDepth, depthTime/pace)))
			if got < want-1 || got > want+1 {
				t.Errorf("%v: depth %d, want %d", pace, got, want)
			}
			if room := p.room(); room != got {
				t.Errorf("%v: room for %d, want %d", pace, room, got)
			}
		})
	}
}

// While one connection works, being refused another defers nothing, and the remote
// is not asked for so many at once until it has taken some.
func TestTooManyConnections(t *testing.T) {
	for _, refusal := range []relaytest.Rule{
		{At: "greeting", Reply: "421 4.7.0 too many connections", Do: relaytest.Close},
		{At: "greeting", Reply: "554 5.7.1 too many connections", Do: relaytest.Close},
		{At: "EHLO", Reply: "421 4.7.0 too many concurrent sessions", Do: relaytest.Close},
		{At: "MAIL", Reply: "421 4.7.0 too many concurrent sessions", Do: relaytest.Close},
		{At: "greeting", Do: relaytest.Close},
	} {
		synctest.Test(t, func(t *testing.T) {
			var rules []relaytest.Rule
			for conn := 3; conn < 50; conn++ {
				refusal.Conn = conn
				rules = append(rules, refusal)
			}
			server := delayed(t, 10*time.Millisecond, []string{}, rules...)
			p := piped(t, server, func(p *pool) { p.most, p.allowed, p.perConnection = 10, 10, 1000 })
			var sends sync.WaitGroup
			for range 300 {
				sends.Go(func() { want{"2", 250, "dot", ""}.check(t, send(t, p, one())[0]) })
			}
			sends.Wait()
			// Ten at first, and then one more for each growAfter that went well.
			if n := server.Connections(); n > 10+300/growAfter {
				t.Errorf("%+v: %d connections, want few more than 10", refusal, n)
			}
		})
	}
}

// A connection too many defers nothing either while others are only being opened.
func TestTooManyConnectionsBeforeAnyWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rules := []relaytest.Rule{{At: "EHLO", Conn: 1, Delay: time.Minute}}
		for conn := 2; conn < 50; conn++ {
			rules = append(rules, relaytest.Rule{At: "MAIL", Conn: conn, Reply: "421 4.7.0 too many concurrent sessions", Do: relaytest.Close})
		}
		server := relaytest.Piped(t, relaytest.Options{Rules: rules})
		p := piped(t, server, func(p *pool) { p.most, p.allowed = 5, 5 })
		var sends sync.WaitGroup
		for range 10 {
			sends.Go(func() { want{"2", 250, "dot", ""}.check(t, send(t, p, one())[0]) })
		}
		sends.Wait()
		if n := server.Connections(); n < 2 || n > 5 {
			t.Errorf("%d connections, want some that are refused, and 5 at most", n)
		}
	})
}

// When nobody answers all that waits is deferred at once, and not one after the
// other.
func TestUnreachableDefersAllThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := piped(t, relaytest.Piped(t, relaytest.Options{}), func(p *pool) { p.most, p.allowed = 4, 4 })
		var dials atomic.Int32
		p.peer.dial = func(ctx context.Context) (net.Conn, error) {
			dials.Add(1)
			time.Sleep(30 * time.Second)
			return nil, &net.OpError{Op: "dial", Err: errors.New("i/o timeout")}
		}
		start := time.Now()
		var sends sync.WaitGroup
		for range 50 {
			sends.Go(func() { want{"4.4.1", 0, "connect", "cannot connect"}.check(t, send(t, p, one())[0]) })
		}
		sends.Wait()
		if took := time.Since(start); took != 30*time.Second || dials.Load() != 4 {
			t.Errorf("took %v and %d connections, want 30s and 4", took, dials.Load())
		}
	})
}

// A message whose end has not left this machine is in no doubt, be it ready to go: the
// remote that stopped reading cannot have it, and another connection may be tried.
func TestUnsentEndIsNoDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := relaytest.Piped(t, relaytest.Options{Extensions: offers["CHUNKING"], Rules: []relaytest.Rule{{At: "idle", Conn: 1, Do: relaytest.Stall}}})
		p := piped(t, server)
		for range 2 {
			want{"2", 250, "dot", ""}.check(t, send(t, p, one())[0])
		}
		if n := server.Connections(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
	})
}

// A remote that announces the end of the session has nothing of what came after: it
// all goes over another connection, none of it in doubt.
func TestAnnouncedEndIsNoDoubt(t *testing.T) {
	for _, at := range []string{"MAIL", "RCPT"} {
		synctest.Test(t, func(t *testing.T) {
			server := relaytest.Piped(t, relaytest.Options{Extensions: offers["CHUNKING"], Rules: []relaytest.Rule{
				{At: at, N: 3, Conn: 1, Reply: "421 4.3.2 enough", Do: relaytest.Close}}})
			p := piped(t, server)
			var sends sync.WaitGroup
			deferred := make(chan spool.Reply, 20)
			for range 20 {
				sends.Go(func() {
					if reply := send(t, p, one())[0]; reply.Class() != spool.Success {
						deferred <- reply
					}
				})
			}
			sends.Wait()
			close(deferred)
			for reply := range deferred {
				// The one whose MAIL was taken has no other try in this attempt.
				want{"4.3.2", 421, "RCPT", "enough"}.check(t, reply)
			}
			if n := len(server.Messages()); n < 19 {
				t.Errorf("%s: %d messages arrived, want all but one at most", at, n)
			}
		})
	}
}
