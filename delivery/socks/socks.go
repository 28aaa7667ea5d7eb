// Package socks connects through a SOCKS5 proxy (RFC 1928).
package socks

import (
	"fmt"
	"net"

	"golang.org/x/net/proxy"
)

// Dialer connects through the proxy at address, "host:port", which looks up names
// itself; with an empty address directly. username and password are for a proxy that
// wants them (RFC 1929), or empty. The proxy itself is connected to by direct.
func Dialer(address, username, password string, direct *net.Dialer) proxy.ContextDialer {
	if address == "" {
		return direct
	}
	var login *proxy.Auth
	if username != "" {
		login = &proxy.Auth{User: username, Password: password}
	}
	d, err := proxy.SOCKS5("tcp", address, login, direct)
	if err != nil {
		panic(fmt.Errorf("socks: %w", err)) // it has no way to fail
	}
	return d.(proxy.ContextDialer)
}
