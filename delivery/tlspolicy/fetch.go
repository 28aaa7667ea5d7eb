package tlspolicy

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"postino/delivery/dns"
)

const (
	// fetchTime is how long all of fetching a policy may take (RFC 8461 §3.3).
	fetchTime = time.Minute
	// connectTime is how long one address of a policy host is waited for, and
	// maxAddresses how many of them are.
	connectTime  = 10 * time.Second
	maxAddresses = 4
	// maxHeader is how many octets the header section of a response may have.
	maxHeader = 16 << 10

	policyPort = "443"
)

// fetcher gets policies from their hosts. The zero value trusts the system's roots.
type fetcher struct {
	roots *x509.CertPool
	port  string // empty is policyPort
	// connect is how long one address is waited for; 0 is connectTime.
	connect time.Duration
}

// fetch gets the policy of a domain. Whoever serves it must prove to be its policy
// host; that is all that makes it worth more than the DNS. It is not cached, not
// looked for elsewhere and no redirection is followed (RFC 8461 §3.3).
func (f fetcher) fetch(ctx context.Context, r *dns.Resolver, may func(netip.Addr) bool, domain string) (Policy, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	host := "mta-sts." + domain
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return Policy{}, err
	}
	request.Header.Set("User-Agent", "postino")
	transport := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return f.dial(ctx, r, may, host) },
		TLSClientConfig:        &tls.Config{RootCAs: f.roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHeader,
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return Policy{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return Policy{}, fmt.Errorf("%s says %q", host, response.Status)
	}
	// So that a site where anybody may put files does not speak for the domain
	// (RFC 8461 §3.2).
	if kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		return Policy{}, fmt.Errorf("%s: %q is not text/plain", host, response.Header.Get("Content-Type"))
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxPolicy+1))
	if err != nil {
		return Policy{}, fmt.Errorf("%s: %w", host, err)
	}
	p, err := ParsePolicy(text)
	if err != nil {
		return Policy{}, fmt.Errorf("%s: %w", host, err)
	}
	return p, nil
}

// dial connects to a policy host.
func (f fetcher) dial(ctx context.Context, r *dns.Resolver, may func(netip.Addr) bool, host string) (net.Conn, error) {
	answer, err := r.Addrs(ctx, host, dns.Any)
	if err != nil {
		return nil, err
	}
	port := f.port
	if port == "" {
		port = policyPort
	}
	dialer := net.Dialer{Timeout: cmp.Or(f.connect, connectTime)}
	problem := errors.New("no address that a policy host may have")
	for _, addr := range alternate(slices.DeleteFunc(slices.Clone(answer.Records), func(a netip.Addr) bool { return !may(a) })) {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), port))
		if err == nil {
			return conn, nil
		}
		problem = err
	}
	return nil, problem
}

// alternate is the addresses to try, a first one of each family before the others, so
// that a broken family does not use all tries.
func alternate(list []netip.Addr) []netip.Addr {
	for i, addr := range list {
		if i > 1 && addr.Is4() != list[0].Is4() {
			list = append([]netip.Addr{list[0], addr}, append(append([]netip.Addr(nil), list[1:i]...), list[i+1:]...)...)
			break
		}
	}
	return list[:min(len(list), maxAddresses)]
}
