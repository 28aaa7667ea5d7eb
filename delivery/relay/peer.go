package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"postino/config"
	"postino/delivery/socks"
	"postino/spool"
)

// peer is a server and how to open a session with it: all that the engine has to
// know before the first octet. What finds a peer, be it a configured host or MX
// records, makes one and a pool for it.
type peer struct {
	// host names the server in TLS and in Replies; address is where it listens on
	// network, which is "tcp" or "unix".
	network, address, host string
	lmtp                   bool // LMTP (RFC 2033) instead of SMTP

	policy config.TLSPolicy
	demand demand // of a mail exchanger, what policy is StartTLS for
	tlsMin config.TLSVersion
	caFile string // read for each connection, as are the next; empty means the system's roots
	// certFile and keyFile are our certificate; empty is none.
	certFile, keyFile string
	pin               config.Pin // of the server's public key; empty is none
	source            string     // the IP address to connect from; empty is any
	proxy             config.Proxy

	// login fetches the credentials for each connection, by method; nil, or a nil
	// login, goes without.
	login  func(context.Context) (*login, *refusal)
	method config.AuthMethod

	hello string // our name in EHLO; see ehloName
	// notUs: it may not call itself hello, as one must not that strangers' DNS names.
	notUs bool
	time  config.Timeouts
	// dial connects; nil dials address.
	dial func(ctx context.Context) (net.Conn, error)
}

// peer is the host at that place of the relay's list.
func (r *Relay) peer(at int) *peer {
	host := r.config.Host[at]
	return &peer{
		network: "tcp", address: net.JoinHostPort(host, strconv.Itoa(r.config.Port)), host: host,
		policy: r.config.TLS, tlsMin: r.config.TLSMin, caFile: r.config.CAFile,
		certFile: r.config.CertFile, keyFile: r.config.KeyFile, pin: r.config.TLSPin, source: r.config.SourceAddress, proxy: r.config.Proxy,
		login: r.credentials, method: r.config.Auth, hello: r.hostname, time: r.timeouts,
	}
}

// connect opens the socket.
func (p *peer) connect(ctx context.Context) (net.Conn, *refusal) {
	dial := p.dial
	if dial == nil {
		dialer := &net.Dialer{Timeout: time.Duration(p.time.Connect)}
		if p.source != "" {
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(p.source)}
		}
		dial = func(ctx context.Context) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialer.Timeout) // of what a proxy is told too
			defer cancel()
			return socks.Dialer(p.proxy.Address, p.proxy.Username, p.proxy.Password.Reveal(), dialer).DialContext(ctx, p.network, p.address)
		}
	}
	socket, err := dial(ctx)
	if err != nil {
		return nil, &refusal{Reply: unreachable(p.where(), err)}
	}
	return socket, nil
}

// where is the address as people read it, with the name that led to it if that is
// another.
func (p *peer) where() string {
	if p.proxy != (config.Proxy{}) {
		return p.address + " by the proxy " + p.proxy.Address
	}
	ip, port, err := net.SplitHostPort(p.address)
	if p.network != "tcp" || err != nil || ip == p.host {
		return p.address
	}
	return fmt.Sprintf("%s[%s]:%s", p.host, ip, port)
}

// remoteName is the remote as a Reply names it: "name[address]:port".
func (p *peer) remoteName(addr net.Addr) string {
	ip, port, err := net.SplitHostPort(addr.String())
	switch {
	case p.proxy != (config.Proxy{}):
		return p.address // the other end is the proxy's
	case err != nil:
		return p.host
	}
	return fmt.Sprintf("%s[%s]:%s", p.host, ip, port)
}

// unreachable is the Reply to an error of dialing where (RFC 3463 §3.5).
func unreachable(where string, err error) spool.Reply {
	status := "4.4.1"
	var dns *net.DNSError
	var op *net.OpError
	for errors.As(err, &op) { // one in another behind a proxy
		err = op.Err // without the address, which where says
	}
	if errors.As(err, &dns) {
		status = "4.4.3"
		if dns.IsNotFound {
			status = "4.4.4"
		}
	}
	return remote{}.local("connect", status, "cannot connect to "+where+": "+err.Error())
}
