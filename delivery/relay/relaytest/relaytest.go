// Package relaytest is an SMTP server for tests that does what it is told to:
// everything is taken happily, unless a Rule says otherwise at one place. It is
// written on a raw socket so that it can break the protocol, and it remembers
// what was said to it.
package relaytest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// patience bounds each read and write of the server, so that a broken client ends a
// test instead of hanging it. No stall of the machine comes near it.
const patience = 2 * time.Minute

// maxChunk is the largest chunk taken, in octets: more is a broken client.
const maxChunk = 64 << 20

// TLS is how a Server offers TLS.
type TLS int

// The ways to offer TLS.
const (
	Plain TLS = iota
	StartTLS
	Implicit
)

// Cert is what is wrong with a Server's certificate.
type Cert int

// The certificates.
const (
	Valid      Cert = iota // for 127.0.0.1 and localhost, by the CA in CAFile
	Expired                // yesterday
	WrongName              // for another name
	SelfSigned             // not by that CA
	Early                  // from tomorrow on
	Chained                // valid, and sent with that of the CA
)

// Do is what happens at a Rule's place, after its reply if it has one.
type Do string

// What a server can do other than go on.
const (
	Close Do = "close" // close the connection
	Reset Do = "reset" // close it with a TCP reset
	Stall Do = "stall" // neither read nor write any more, until the test ends
	Drip  Do = "drip"  // send the reply an octet at a time, each after Pause
)

// Rule changes what the server does at one place. The first one that fits is
// taken.
type Rule struct {
	// At: greeting, tls (before the handshake), EHLO (LHLO too), HELO, STARTTLS,
	// AUTH, AUTHRESP (a line of an AUTH dialogue), MAIL, RCPT, DATA, body, BDAT (a
	// chunk that is not the last), dot (the last one too; by LMTP once for each
	// recipient), RSET, QUIT, and idle (after the answer to dot).
	At string
	// N is which time on a connection it applies, from 1; 0 is always. Conn is on
	// which connection, likewise. Arg must be part of the command line.
	N, Conn int
	Arg     string
	// Reply is the text of the reply; "\n" separates its lines. Raw is sent instead
	// as it is. Neither: the usual reply, unless Do is Close, Reset or Stall.
	Reply, Raw string
	Do         Do
	// Pause is between the octets of Drip, and without Drip between the lines of a
	// reply. Delay is before the reply.
	Pause, Delay time.Duration
	// Until, if set, is closed when the server may do all that: it waits for that first.
	Until <-chan struct{}
	// After, at body, is how many octets are read first.
	After int
}

// Options say what a Server offers. The zero value is a plain happy server.
type Options struct {
	TLS  TLS
	Cert Cert
	// MaxTLS is the highest version spoken, as crypto/tls numbers it; 0 is any.
	MaxTLS uint16
	// Extensions are the EHLO lines after the first, STARTTLS apart; nil means
	// 8BITMIME, SIZE, ENHANCEDSTATUSCODES and, with Users, AUTH PLAIN LOGIN.
	Extensions []string
	// Users are the passwords by user name; with any, MAIL wants AUTH first.
	Users map[string]string
	// Plus has SCRAM refuse who says that there is no channel binding here
	// (RFC 5802 §6), whatever the offer was when it arrived.
	Plus bool
	// Bearer says which access tokens are good; without it, those of Users are.
	Bearer func(token string) bool
	Rules  []Rule
	// Deaf has what comes together with a command, behind it, dropped, as some firewalls do.
	Deaf bool
	// LMTP has the end of a message answered once for each recipient.
	LMTP bool
	// Listen is the address to listen on, on this machine's loopback; empty means
	// 127.0.0.1 and a free port. A path is that of a unix socket.
	Listen string
	// Buffer is the size of the socket's buffers, in octets; 0 is the system's.
	Buffer int
}

// Message is a message that the server took.
type Message struct {
	From string   // as between the brackets of MAIL
	To   []string // likewise, those that were accepted
	Data []byte   // without dot-stuffing
	Conn int      // the number of the connection, from 1
	User string   // who had authenticated
	TLS  bool
	// Client is the address it came from.
	Client string
}

// Server is a running server.
type Server struct {
	t        testing.TB
	options  Options
	listener net.Listener
	ca       *authority
	caFile   string
	config   *tls.Config
	stop     chan struct{}
	done     sync.WaitGroup

	mu       sync.Mutex
	rules    []Rule
	edition  int // of rules
	conns    int
	open     int
	peak     int
	commands []string
	messages []Message
	lost     []Message
	ahead    int
	early    int
}

// Piped starts a server without a network: Dial connects to it. It serves tests with
// a virtual clock (testing/synctest), by which a read on a socket never waits.
func Piped(t testing.TB, o Options) *Server {
	s := &Server{t: t, options: o, rules: o.Rules, stop: make(chan struct{})}
	t.Cleanup(s.Close)
	return s
}

// Dial makes a connection to a Piped server.
func (s *Server) Dial(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	s.accept(theirs)
	return ours, nil
}

// New starts a server, which ends with the test.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	ca := newAuthority(t)
	s := &Server{t: t, options: o, ca: ca, caFile: ca.file(t), rules: o.Rules, stop: make(chan struct{})}
	s.config = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, o.Cert, o.Listen)}, MaxVersion: o.MaxTLS, MinVersion: tls.VersionTLS10,
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca.pool()}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	var err error
	network := "tcp"
	if filepath.IsAbs(o.Listen) {
		network = "unix"
	}
	if s.listener, err = net.Listen(network, o.Listen); err != nil {
		t.Fatal(err)
	}
	s.done.Go(s.serve)
	t.Cleanup(s.Close)
	return s
}

// Close stops the server and waits for its connections to end.
func (s *Server) Close() {
	s.mu.Lock()
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.mu.Unlock()
	if s.listener != nil {
		s.listener.Close()
	}
	s.done.Wait()
}

// Host is the address that the server listens on.
func (s *Server) Host() string { return s.listener.Addr().(*net.TCPAddr).IP.String() }

// Port is the server's port.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// Addr is Host and Port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host(), strconv.Itoa(s.Port())) }

// CAFile is a PEM file with the root of the valid certificates.
func (s *Server) CAFile() string { return s.caFile }

// ClientCert makes a certificate that the server takes for a client's, and returns
// the files of it and of its key.
func (s *Server) ClientCert(t testing.TB) (cert, key string) { return s.ca.clientFiles(t) }

// Pin is the SHA-256 of the server's public key.
func (s *Server) Pin() [sha256.Size]byte {
	cert, err := x509.ParseCertificate(s.config.Certificates[0].Certificate[0])
	if err != nil {
		panic(err) // we made it
	}
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// SetRules replaces the rules. Each connection counts anew for them.
func (s *Server) SetRules(rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = rules
	s.edition++
}

// Commands are the command lines so far, of all connections; lines of an AUTH
// dialogue are among them.
func (s *Server) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.commands...)
}

// Messages are the messages taken so far.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.messages...)
}

// Unaddressed are the messages whose content came although no recipient was
// accepted.
func (s *Server) Unaddressed() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.lost...)
}

// Connections is how many connections there were.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Parallel is the largest number of connections that were open at a time.
func (s *Server) Parallel() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peak
}

// Ahead is how many lines with MAIL, RCPT and BDAT were there, at most, before the
// reply to an end of content was sent.
func (s *Server) Ahead() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ahead
}

// Early is how many connections spoke before the whole greeting was there, as far as
// a Pause in it gave them the time.
func (s *Server) Early() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.early
}

func (s *Server) serve() {
	for {
		socket, err := s.listener.Accept()
		if err != nil {
			return
		}
		if tcp, ok := socket.(*net.TCPConn); ok && s.options.Buffer > 0 {
			tcp.SetReadBuffer(s.options.Buffer)
			tcp.SetWriteBuffer(s.options.Buffer)
		}
		s.accept(socket)
	}
}

// accept begins to serve a connection.
func (s *Server) accept(socket net.Conn) {
	s.mu.Lock()
	s.conns++
	s.open++
	s.peak = max(s.peak, s.open)
	c := &conn{server: s, socket: socket, number: s.conns, seen: map[string]int{}}
	s.mu.Unlock()
	c.wire(socket)
	s.done.Go(func() {
		ended := make(chan struct{})
		s.done.Go(func() {
			select {
			case <-s.stop:
			case <-ended:
			}
			socket.Close()
		})
		c.run()
		socket.Close()
		close(ended)
		c.leave()
	})
}

// leave has the connection no longer counted. It is called before QUIT is
// answered, since then the client may open the next one.
func (c *conn) leave() {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.left {
		c.left = true
		s.open--
	}
}

// rule finds the rule for a place and counts the visit.
func (s *Server) rule(c *conn, at, line string) Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.edition != s.edition {
		c.seen, c.edition = map[string]int{}, s.edition
	}
	c.seen[at]++
	for _, r := range s.rules {
		if r.fits(at, line, c.seen[at], c.number) {
			return r
		}
	}
	return Rule{}
}

func (s *Server) record(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands = append(s.commands, line)
}

// wire makes conn what the session is read from and written to.
func (c *conn) wire(conn net.Conn) {
	c.rw = conn
	c.in = bufio.NewReader(conn)
}
