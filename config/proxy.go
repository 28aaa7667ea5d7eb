package config

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Proxy is a SOCKS5 proxy to connect through (RFC 1928); the zero Proxy is none. It
// is the proxy that looks up the name of the relay.
type Proxy struct {
	// Address is its host and port.
	Address string
	// Username and Password are for the proxy (RFC 1929); both or neither are set.
	Username string
	Password Secret
}

// errProxy does not repeat what was written: a password may be in it.
var errProxy = errors.New(`not a SOCKS5 proxy: write "socks5://host:port" or "socks5://user:password@host:port"`)

// maxProxyLogin bounds a user name and a password, in octets (RFC 1929 §2).
const maxProxyLogin = 255

// UnmarshalText reads "socks5://host:port", with "user:password@" before the host
// where the proxy wants one; "socks5h" is the same.
func (p *Proxy) UnmarshalText(b []byte) error {
	if strings.Contains(string(b), ":"+hidden+"@") {
		return errors.New("its password is not shown there: write the password itself")
	}
	u, err := url.Parse(string(b))
	if err != nil || u.Scheme != "socks5" && u.Scheme != "socks5h" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return errProxy
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 || !isHost(u.Hostname()) {
		return errProxy
	}
	proxy := Proxy{Address: net.JoinHostPort(u.Hostname(), u.Port())}
	if u.User != nil {
		password, _ := u.User.Password()
		proxy.Username, proxy.Password = u.User.Username(), Secret(password)
		if proxy.Username == "" || password == "" || len(proxy.Username) > maxProxyLogin || len(password) > maxProxyLogin {
			return errProxy
		}
	}
	*p = proxy
	return nil
}

// String is the text that UnmarshalText reads, but for the password, which is "…".
func (p Proxy) String() string {
	switch {
	case p.Address == "":
		return ""
	case p.Username == "":
		return "socks5://" + p.Address
	}
	return "socks5://" + url.User(p.Username).String() + ":" + hidden + "@" + p.Address
}
