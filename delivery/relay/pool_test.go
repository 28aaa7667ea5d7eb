package relay

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// Messages follow each other on one connection, without RSET or EHLO between.
func TestConnectionIsReused(t *testing.T) {
	for _, policy := range []config.TLSPolicy{config.NoTLS, config.StartTLS} {
		server := relaytest.New(t, relaytest.Options{TLS: relaytest.StartTLS})
		r := newRelay(t, settings(server, withTLS(policy)), patient())
		for range 3 {
			want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
		}
		r.Close()
		if n, m := server.Connections(), len(server.Messages()); n != 1 || m != 3 {
			t.Errorf("%s: %d messages over %d connections, want 3 over 1", policy, m, n)
		}
		never(t, server, "^RSET")
		quits(t, server)
	}
}

// quits waits for QUIT to be the last command: Close has not, longer than quitWait.
func quits(t *testing.T, server *relaytest.Server) {
	t.Helper()
	eventually(t, "QUIT in the end", func() (any, bool) {
		lines := server.Commands()
		return lines, len(lines) > 0 && lines[len(lines)-1] == "QUIT"
	})
}

func TestMessagesPerConnection(t *testing.T) {
	for _, tt := range []struct {
		most  int
		offer []string
	}{{2, []string{}}, {100, []string{"LIMITS RCPTMAX=9 MAILMAX=2"}}} {
		server := relaytest.New(t, relaytest.Options{Extensions: tt.offer})
		r := newRelay(t, settings(server, func(c *config.Relay) { c.MessagesPerConnection = tt.most }), patient())
		for range 4 {
			want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
		}
		if n := server.Connections(); n != 2 {
			t.Errorf("%d connections for 4 messages, want 2", n)
		}
	}
}

// However many messages at a time, there are no more connections than allowed.
func TestMaxConnections(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "dot", Reply: "250 2.0.0 ok", Delay: 5 * time.Millisecond}}})
	r := newRelay(t, settings(server, func(c *config.Relay) { c.MaxConnections, c.MessagesPerConnection = 2, 3 }), patient())
	var sends sync.WaitGroup
	for range 20 {
		sends.Go(func() { want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0]) })
	}
	sends.Wait()
	if n := server.Parallel(); n > 2 {
		t.Errorf("%d connections at a time, want at most 2", n)
	}
	if n := len(server.Messages()); n != 20 {
		t.Errorf("%d messages arrived, want 20", n)
	}
}

// Who waits for a connection obeys the context too.
func TestWaitingForConnectionEndsWithContext(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "MAIL", Do: relaytest.Stall}}})
	r := newRelay(t, settings(server, func(c *config.Relay) { c.MaxConnections = 1 }), patient())
	first, cancel := context.WithCancel(t.Context())
	var sends sync.WaitGroup
	sends.Go(func() { r.Deliver(first, one()) })
	eventually(t, "the first to have the connection", func() (any, bool) { return server.Commands(), isAt(server, "MAIL") })
	second, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	want{"4.3.2", 0, "connect", "waiting"}.check(t, r.Deliver(second, one())[0])
	cancel()
	sends.Wait()
}

// A connection that ends between two messages is replaced, and nobody notices.
func TestStaleConnectionIsReplaced(t *testing.T) {
	for _, rule := range []relaytest.Rule{
		{At: "MAIL", N: 2, Conn: 1, Do: relaytest.Close},
		{At: "MAIL", N: 2, Conn: 1, Do: relaytest.Reset},
		{At: "MAIL", N: 2, Conn: 1, Reply: "421 4.7.0 max messages", Do: relaytest.Close},
		{At: "idle", Conn: 1, Do: relaytest.Close},
		{At: "idle", Conn: 1, Do: relaytest.Reset},
		{At: "idle", Conn: 1, Raw: "421 4.4.2 idle too long", Do: relaytest.Close},
		{At: "idle", Conn: 1, Raw: "250 stray"},
	} {
		for _, policy := range []config.TLSPolicy{config.NoTLS, config.StartTLS} {
			server := relaytest.New(t, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{rule}})
			r := newRelay(t, settings(server, withTLS(policy)), patient())
			want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
			if rule.At == "idle" {
				awaitEnd(t, r)
			}
			want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
			if n, m := server.Connections(), len(server.Messages()); n != 2 || m != 2 {
				t.Errorf("%+v, %s: %d messages over %d connections, want 2 over 2", rule, policy, m, n)
			}
		}
	}
}

// awaitEnd waits until no session is left: an idle one notices its end.
func awaitEnd(t *testing.T, r *Relay) {
	t.Helper()
	eventually(t, "idle connections to notice their end", func() (any, bool) {
		r.pools[0].mu.Lock()
		defer r.pools[0].mu.Unlock()
		n := len(r.pools[0].sessions)
		return fmt.Sprint(n, " of them"), n == 0
	})
}

// awaitJobs waits until so many messages are under way, or wait for a connection.
func awaitJobs(t *testing.T, r *Relay, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " messages to be there"), func() (any, bool) {
		p := r.pools[0]
		p.mu.Lock()
		defer p.mu.Unlock()
		there := len(p.waiting)
		for _, s := range p.sessions {
			there += len(s.flight)
		}
		return there, there == n
	})
}

// Once anything of the message was taken there is no second try, and a fresh
// connection that dies at MAIL has none either.
func TestNoSecondTryAfterMAIL(t *testing.T) {
	for _, rule := range []relaytest.Rule{
		{At: "RCPT", N: 2, Conn: 1, Do: relaytest.Close},
		{At: "DATA", N: 2, Conn: 1, Reply: "421 4.3.2 bye", Do: relaytest.Close},
		{At: "dot", N: 2, Conn: 1, Do: relaytest.Close},
	} {
		server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{rule}})
		r := newRelay(t, settings(server), patient())
		want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
		if reply := r.Deliver(t.Context(), one())[0]; reply.Class() != spool.Temporary {
			t.Errorf("%+v: got %+v, want a temporary reply", rule, reply)
		}
		if n := server.Connections(); n != 1 {
			t.Errorf("%+v: %d connections, want 1", rule, n)
		}
	}
	server := relaytest.New(t, relaytest.Options{Rules: []relaytest.Rule{{At: "MAIL", Do: relaytest.Close}}})
	want{"4.4.2", 0, "MAIL", ""}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), one())[0])
	if n := server.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// After a transaction that came to nothing the session is cleared before it is used
// again, for what waits already; the end of content clears it anyway (RFC 5321
// §4.1.1.4). What comes later has a new session.
func TestRefusalsAreCleared(t *testing.T) {
	for _, tt := range []struct {
		rule  relaytest.Rule
		clear bool
	}{
		{relaytest.Rule{At: "MAIL", N: 1, Reply: "451 4.3.0 busy"}, true},
		{relaytest.Rule{At: "RCPT", N: 1, Reply: "550 5.1.1 no"}, true},
		{relaytest.Rule{At: "DATA", N: 1, Reply: "451 4.3.0 busy"}, true},
		{relaytest.Rule{At: "dot", N: 1, Reply: "554 5.7.1 spam"}, false},
	} {
		for _, offer := range [][]string{{}, {"PIPELINING"}} {
			both := make(chan struct{})
			tt.rule.Until = both
			server := relaytest.New(t, relaytest.Options{Extensions: offer, Rules: []relaytest.Rule{tt.rule}})
			r := newRelay(t, settings(server, single), patient())
			var sends sync.WaitGroup
			var refused atomic.Int32
			for range 2 {
				sends.Go(func() {
					if r.Deliver(t.Context(), one())[0].Class() != spool.Success {
						refused.Add(1)
					}
				})
			}
			awaitJobs(t, r, 2)
			close(both)
			sends.Wait()
			if n := server.Connections(); n != 1 || refused.Load() != 1 {
				t.Errorf("%+v: %d connections, %d refusals, want 1 and 1", tt.rule, n, refused.Load())
			}
			switch {
			case tt.clear:
				said(t, server, "^RSET$")
			case len(offer) == 0: // else it may have gone ahead of the refusal
				never(t, server, "^RSET$")
			}
			server.SetRules(relaytest.Rule{At: "dot", Reply: "451 4.3.0 busy"})
			r.Deliver(t.Context(), one())
			server.SetRules()
			before := server.Connections()
			want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
			if n := server.Connections(); n != before+1 {
				t.Errorf("%+v: %d connections more after a refusal, want 1", tt.rule, n-before)
			}
		}
	}
}

// The next host is asked while the answer is about the host or the connection, and
// not when it is about the mail, the credentials or a message perhaps delivered.
func TestNextHost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  relaytest.Options
		want   want
		second int // connections to it
	}{
		{"greeting 554", relaytest.Options{Rules: []relaytest.Rule{{At: "greeting", Reply: "554 no"}}}, want{"2", 250, "dot", ""}, 1},
		{"421 at RCPT", relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Reply: "421 4.3.2 bye"}}}, want{"2", 250, "dot", ""}, 1},
		{"closed at DATA", relaytest.Options{Rules: []relaytest.Rule{{At: "DATA", Do: relaytest.Close}}}, want{"2", 250, "dot", ""}, 1},
		{"too large there", relaytest.Options{Extensions: []string{"AUTH PLAIN", "SIZE 1"}}, want{"2", 250, "dot", ""}, 1},
		{"throttled", relaytest.Options{Rules: []relaytest.Rule{{At: "AUTH", Reply: "454 4.7.0 later"}}}, want{"2", 250, "dot", ""}, 1},
		{"wrong password", relaytest.Options{Users: map[string]string{"u": "other"}}, want{"4.7.8", 535, "AUTH", ""}, 0},
		{"refused", relaytest.Options{Rules: []relaytest.Rule{{At: "RCPT", Reply: "550 5.1.1 no"}}}, want{"5.1.1", 550, "RCPT", ""}, 0},
		{"no answer to dot", relaytest.Options{Rules: []relaytest.Rule{{At: "dot", Do: relaytest.Close}}}, want{"4.4.2", 0, "dot", ""}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.first.Users == nil {
				tt.first.Users = map[string]string{"u": password}
			}
			first := relaytest.New(t, tt.first)
			second := relaytest.New(t, relaytest.Options{
				Users: map[string]string{"u": password}, Listen: fmt.Sprintf("127.0.0.2:%d", first.Port()),
			})
			c := settings(first, withLogin)
			c.Host = config.Hosts{first.Host(), second.Host()}
			tt.want.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
			if n := second.Connections(); n != tt.second {
				t.Errorf("%d connections to the second host, want %d", n, tt.second)
			}
		})
	}
}
