package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// tries is how often each server is asked, and tryTimeout how long each answer
	// is waited for: the defaults of resolv.conf(5).
	tries      = 2
	tryTimeout = 5 * time.Second
	// udpSize is the largest answer we take by UDP, in octets: what passes every path
	// without being cut in pieces.
	udpSize = 1232
	// maxServers is how many servers of resolv.conf(5) are used, as there.
	maxServers = 3

	// lookAgain is how often resolv.conf is looked at: it is another one when a machine
	// is in another network, or in one at last.
	lookAgain = 2 * time.Second

	resolvConf = "/etc/resolv.conf"
	dnsPort    = "53"
)

// Resolver asks servers that resolve recursively. Make it with New or System. It may
// be used by several goroutines.
type Resolver struct {
	path    string // of resolv.conf, where the servers are from; empty: from New
	timeout time.Duration
	cache   cache

	mu      sync.Mutex
	servers []string    // guarded by mu, as all below: host:port, in the order to ask
	trust   bool        // believe their AD bit
	file    os.FileInfo // of path when it was read; nil: there was none
	looked  time.Time   // when it was looked at
}

// New returns a Resolver that asks the given servers, "address" or "address:port",
// in that order. Whether an answer was validated is believed of servers on the
// loopback alone: anything may happen on the way to others.
func New(servers ...string) (*Resolver, error) {
	r := &Resolver{trust: len(servers) > 0, timeout: tryTimeout}
	for _, s := range servers {
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			host, port = strings.Trim(s, "[]"), dnsPort
		}
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return nil, fmt.Errorf("%q is not the address of a resolver: write an IP address, and a port if it is not %s", s, dnsPort)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("%q: %q is not a port", s, port)
		}
		r.trust = r.trust && addr.IsLoopback()
		r.servers = append(r.servers, net.JoinHostPort(host, port))
	}
	return r, nil
}

// System returns a Resolver for the servers in /etc/resolv.conf, or for one on this
// machine where that names none (resolv.conf(5)). Its option trust-ad is obeyed. When
// the file changes the next question goes by it.
func System() (*Resolver, error) { return fromFile(resolvConf) }

func fromFile(path string) (*Resolver, error) {
	servers := []string{"127.0.0.1"}
	file, _ := os.Stat(path) // what is not there now may be later
	if c, err := dns.ClientConfigFromFile(path); err == nil && len(c.Servers) > 0 {
		servers = servers[:0]
		for _, s := range c.Servers[:min(len(c.Servers), maxServers)] {
			servers = append(servers, net.JoinHostPort(s, c.Port))
		}
	}
	r, err := New(servers...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.path, r.file, r.looked = path, file, time.Now()
	r.trust = r.trust || trustsAD(path)
	return r, nil
}

// ways are the servers to ask now, and whether their word is taken.
func (r *Resolver) ways() (servers []string, trust bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.path == "" || time.Since(r.looked) < lookAgain {
		return r.servers, r.trust
	}
	r.looked = time.Now()
	file, _ := os.Stat(r.path)
	if same(file, r.file) {
		return r.servers, r.trust
	}
	if other, err := fromFile(r.path); err == nil { // else it is being written, or of no use
		r.servers, r.trust, r.file = other.servers, other.trust, other.file
		r.cache.clear() // another network may know other names
	}
	return r.servers, r.trust
}

// same reports whether a file is as it was.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// reply is an answer and whether it may be taken for validated.
type reply struct {
	*dns.Msg
	authentic bool
}

// ask returns the answer to one question: one that says what is there, or that
// nothing is. Every other is ErrTemporary.
func (r *Resolver) ask(ctx context.Context, name string, qtype uint16) (reply, error) {
	key := question{name, qtype}
	servers, trust := r.ways()
	if m, ok := r.cache.get(key, time.Now()); ok {
		return m, nil
	}
	problem := errors.New("no resolver is configured")
	for range tries {
		for _, server := range servers {
			if ctx.Err() != nil {
				return reply{}, fmt.Errorf("%w: %w", ErrTemporary, context.Cause(ctx))
			}
			m, err := r.exchange(ctx, server, name, qtype)
			if err != nil {
				problem = fmt.Errorf("%s: %w", server, err)
				continue
			}
			if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
				answer := reply{m, m.AuthenticatedData && trust}
				r.cache.put(key, answer, time.Now())
				return answer, nil
			}
			problem = fmt.Errorf("%s says %s", server, rcode(m.Rcode))
		}
	}
	return reply{}, fmt.Errorf("%w: %w", ErrTemporary, problem)
}

func rcode(n int) string {
	if s, ok := dns.RcodeToString[n]; ok {
		return s
	}
	return "code " + strconv.Itoa(n)
}

// exchange asks one server by UDP, and by TCP where the answer was cut. A server
// that does not know EDNS (RFC 6891 §7) is asked again without.
func (r *Resolver) exchange(ctx context.Context, server, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	q.SetEdns0(udpSize, false)
	q.AuthenticatedData = true // tell us whether it was validated (RFC 6840 §5.7)
	m, err := r.try(ctx, "udp", server, q)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) {
		q.Extra = nil
		m, err = r.try(ctx, "udp", server, q)
	}
	if err == nil && m.Truncated {
		m, err = r.try(ctx, "tcp", server, q)
	}
	return m, err
}

func (r *Resolver) try(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	q.Id = dns.Id()
	c := &dns.Client{Net: network, Timeout: r.timeout, UDPSize: udpSize}
	m, _, err := c.ExchangeContext(ctx, q, server)
	if err != nil {
		return nil, err
	}
	// The library compares the ID alone.
	if !m.Response || len(m.Question) != 1 || m.Question[0].Qtype != q.Question[0].Qtype ||
		!strings.EqualFold(m.Question[0].Name, q.Question[0].Name) {
		return nil, errors.New("an answer to another question")
	}
	return m, nil
}

// hasWord reports whether a line of resolv.conf(5) is "options … word …".
func hasWord(line, word string) bool {
	fields := strings.Fields(line)
	return len(fields) > 1 && fields[0] == "options" && slices.Contains(fields[1:], word)
}
