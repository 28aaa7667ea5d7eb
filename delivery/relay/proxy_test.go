package relay

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/oauth/oauthtest"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// proxy is a SOCKS5 proxy (RFC 1928, RFC 1929) for tests, which knows one name.
type proxy struct {
	net.Listener
	name, leads string // to that address
	login       string // "user:password"; empty: none is asked for

	mu    sync.Mutex
	asked []string // what it was to connect to
	open  sync.WaitGroup
}

func startProxy(t *testing.T, p *proxy) *proxy {
	t.Helper()
	var err error
	if p.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	p.open.Go(func() {
		for {
			c, err := p.Accept()
			if err != nil {
				return
			}
			p.open.Go(func() { defer c.Close(); p.serve(c) })
		}
	})
	t.Cleanup(func() { p.Close(); p.open.Wait() })
	return p
}

func (p *proxy) serve(c net.Conn) {
	in := bufio.NewReader(c)
	text := func() string { // with its length before it
		n, _ := in.ReadByte()
		b := make([]byte, n)
		io.ReadFull(in, b)
		return string(b)
	}
	in.ReadByte() // 5
	switch methods := text(); {
	case p.login == "":
		c.Write([]byte{5, 0})
	case !strings.Contains(methods, "\x02"):
		c.Write([]byte{5, 0xff})
		return
	default:
		c.Write([]byte{5, 2})
		in.ReadByte() // 1
		if user := text(); user+":"+text() != p.login {
			c.Write([]byte{1, 1})
			return
		}
		c.Write([]byte{1, 0})
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil {
		return
	}
	host := "an address"
	if head[3] == 3 {
		host = text()
	} else {
		in.Discard(4)
	}
	var port uint16
	binary.Read(in, binary.BigEndian, &port)
	p.mu.Lock()
	p.asked = append(p.asked, fmt.Sprintf("%s:%d", host, port))
	p.mu.Unlock()
	var there net.Conn
	var err error
	if host == p.name {
		there, err = net.Dial("tcp", p.leads)
	}
	if there == nil || err != nil {
		c.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0}) // host unreachable
		return
	}
	defer there.Close()
	c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	go func() { io.Copy(there, in); there.(*net.TCPConn).CloseWrite() }()
	io.Copy(c, there)
}

// Mail goes through the proxy, which alone looks up the name of the relay; what is wrong
// with the proxy or behind it has the mail wait, and is told without the proxy's password.
func TestProxyConnectsAndLooksUpNames(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, Users: map[string]string{"u": password}})
	up := startProxy(t, &proxy{name: "localhost", leads: server.Addr()})
	private := startProxy(t, &proxy{name: "localhost", leads: server.Addr(), login: "u:p%rox"})
	behind := startProxy(t, &proxy{name: "localhost", leads: "127.0.0.1:1"})
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good := want{"2", 250, "dot", ""}
	for _, tt := range []struct {
		name, login, host string
		proxy             net.Listener
		want              want
	}{
		{"up", "", "localhost", up, good},
		{"with a login", "u:p%25rox@", "localhost", private, good},
		{"with a wrong login", "u:geheim@", "localhost", private, want{"4.4.1", 0, "connect", "by the proxy 127.0.0.1"}},
		{"without the login", "", "localhost", private, want{"4.4.1", 0, "connect", "by the proxy 127.0.0.1"}},
		{"down", "", "localhost", down, want{"4.4.1", 0, "connect", "by the proxy 127.0.0.1.*refused"}},
		{"silent", "", "localhost", silent, want{"4.4.1", 0, "connect", "by the proxy 127.0.0.1.*timeout"}},
		{"unknown name", "", "relay.invalid", up, want{"4.4.1", 0, "connect", "relay.invalid:.* by the proxy.*host unreachable"}},
		{"nothing behind", "", "localhost", behind, want{"4.4.1", 0, "connect", "host unreachable"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := settings(server, withTLS(config.Implicit), withLogin, func(c *config.Relay) { c.Host = config.Hosts{tt.host} })
			if err := c.Proxy.UnmarshalText([]byte("socks5://" + tt.login + tt.proxy.Addr().String())); err != nil {
				t.Fatal(err)
			}
			timeouts := patient()
			if tt.name == "silent" {
				timeouts.Connect = config.Duration(300 * time.Millisecond)
			}
			reply := newRelay(t, c, timeouts).Deliver(t.Context(), one())[0]
			tt.want.check(t, reply)
			if tt.want != good && (reply.Fault != spool.FaultNetwork || !strings.Contains(reply.Remedy, "relay.proxy")) {
				t.Errorf("%+v is not told as the way's", reply)
			}
			if strings.Contains(reply.Text, "geheim") {
				t.Errorf("the proxy's password is told: %s", reply.Text)
			}
			if tt.want == good && reply.Host != fmt.Sprintf("localhost:%d", server.Port()) {
				t.Errorf("from %s", reply.Host)
			}
		})
	}
	for _, asked := range up.asked {
		if strings.HasPrefix(asked, "an address") {
			t.Error("the name of the relay was looked up here")
		}
	}
	if len(server.Messages()) != 2 {
		t.Errorf("%d messages", len(server.Messages()))
	}
}

// The proxy's localhost is not ours: no password goes there in plaintext.
func TestNoPlaintextCredentialsBehindAProxy(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Users: map[string]string{"u": password}})
	up := startProxy(t, &proxy{name: "localhost", leads: server.Addr()})
	c := settings(server, withLogin, func(c *config.Relay) {
		c.Host, c.Proxy = config.Hosts{"localhost"}, config.Proxy{Address: up.Addr().String()}
	})
	want{"4.7.11", 0, "AUTH", "under TLS only"}.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
	never(t, server, "^AUTH")
}

// The provider of access tokens is behind the proxy too.
func TestTokensAreFetchedThroughTheProxy(t *testing.T) {
	provider := oauthtest.New(t, "u")
	_, r := provided(t, provider, true)
	up := startProxy(t, &proxy{name: "provider.invalid", leads: provider.Listener.Addr().String()})
	c := *r.config
	c.Proxy = config.Proxy{Address: up.Addr().String()}
	c.OAuth.TokenURL = "http://provider.invalid/token"
	r.config = &c
	if l, refused := r.credentials(t.Context()); refused != nil || !provider.Takes(l.password) {
		t.Errorf("got %+v", refused)
	}
}
