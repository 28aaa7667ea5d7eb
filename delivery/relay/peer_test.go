package relay

import (
	"encoding/hex"
	"net"
	"strings"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
)

// A pin stands in for everything else about a certificate, and nothing goes to another
// key.
func TestPin(t *testing.T) {
	for _, tls := range []struct {
		policy config.TLSPolicy
		server relaytest.TLS
	}{{config.Implicit, relaytest.Implicit}, {config.StartTLS, relaytest.StartTLS}} {
		for _, cert := range []relaytest.Cert{relaytest.Valid, relaytest.SelfSigned, relaytest.Expired} {
			server := relaytest.New(t, relaytest.Options{TLS: tls.server, Cert: cert})
			sum := server.Pin()
			c := settings(server, withTLS(tls.policy), func(c *config.Relay) { c.TLSPin = config.Pin(hex.EncodeToString(sum[:])) })
			reply := newRelay(t, c, patient()).Deliver(t.Context(), one())[0]
			want{"2", 250, "dot", ""}.check(t, reply)
			if reply.TLS != "TLS1.3 verified" {
				t.Errorf("TLS is %q", reply.TLS)
			}
			c.TLSPin = config.Pin(strings.Repeat("ab", 32))
			want{"4.7.5", 0, "TLS", hex.EncodeToString(sum[:])}.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
			if n := len(server.Messages()); n != 1 {
				t.Errorf("%d messages, want the one under the right pin", n)
			}
		}
	}
}

// By EXTERNAL the certificate is who we are, and without one nobody; a missing
// file defers mail until it is there.
func TestClientCertificate(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, Users: map[string]string{"u": password},
		Extensions: []string{"AUTH PLAIN EXTERNAL"}})
	c := settings(server, withTLS(config.Implicit), func(c *config.Relay) { c.Auth = config.AuthExternal })
	want{"4.7.8", 535, "AUTH", ""}.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
	c.CertFile, c.KeyFile = server.ClientCert(t)
	c.Username = "web1"
	want{"2", 250, "dot", ""}.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
	if user := server.Messages()[0].User; user != "web1" {
		t.Errorf("logged in as %q", user)
	}
	c.KeyFile = "/nonexistent/key"
	want{"4.7.5", 0, "connect", "no such file"}.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
}

func TestSourceAddress(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{})
	c := settings(server, func(c *config.Relay) { c.SourceAddress = "127.0.0.2" })
	want{"2", 250, "dot", ""}.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
	if host, _, _ := net.SplitHostPort(server.Messages()[0].Client); host != "127.0.0.2" {
		t.Errorf("came from %s", host)
	}
	c.SourceAddress = foreign(0)
	want{"4.4.1", 0, "connect", "cannot connect"}.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
}
