package relay

import (
	"path/filepath"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

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
