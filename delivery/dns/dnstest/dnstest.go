// Package dnstest is a name server for tests, on the loopback.
package dnstest

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// Zone says what is answered to "name. TYPE": records in the form of a zone file, or
// words: a response code, "silent" (no answer), "cut" (truncated by UDP, the records
// after it by TCP), "noedns" (FORMERR to a question with EDNS), "other" (an answer
// to another question) and "insecure" (not validated, whatever Validate says). A name without an entry does not exist; one with entries of
// other types has no data.
type Zone map[string][]string

// Server answers by UDP and TCP on one port.
type Server struct {
	Addr string // address:port

	mu        sync.Mutex
	zone      Zone     // guarded by mu, as all below
	validated bool     // say of answers, when somebody asks
	asked     []string // questions
}

// Serve starts a server that ends with the test.
func Serve(t testing.TB, z Zone) *Server {
	t.Helper()
	s := &Server{zone: z}
	udp, tcp, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = udp.LocalAddr().String()
	for _, d := range []*dns.Server{{PacketConn: udp, Handler: s}, {Listener: tcp, Handler: s}} {
		up := make(chan struct{})
		d.NotifyStartedFunc = func() { close(up) }
		go d.ActivateAndServe()
		<-up
		t.Cleanup(func() { d.Shutdown() })
	}
	return s
}

// listen finds a port that is free for both.
func listen() (net.PacketConn, net.Listener, error) {
	for tries := 20; ; tries-- {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil || tries == 0 {
			return udp, tcp, err
		}
		tcp.Close()
	}
}

// Set replaces what is answered.
func (s *Server) Set(z Zone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone = z
}

// Validate makes the server say that its answers were validated (RFC 4035 §3.2.3).
func (s *Server) Validate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.validated = true
}

// Asked are the questions so far: "name. TYPE".
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// ServeDNS answers one question.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	name, kind := strings.ToLower(q.Question[0].Name), dns.TypeToString[q.Question[0].Qtype]
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	if m := s.answer(q, name, kind, udp); m != nil {
		_ = w.WriteMsg(m) // who has gone needs no answer
	}
}

func (s *Server) answer(q *dns.Msg, name, kind string, udp bool) *dns.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, name+" "+kind)
	m := new(dns.Msg).SetReply(q)
	m.AuthenticatedData = s.validated && q.AuthenticatedData
	rows, known := s.zone[name+" "+kind]
	if !known {
		m.Rcode = dns.RcodeNameError
		for other := range s.zone {
			if strings.HasPrefix(other, name+" ") {
				m.Rcode = dns.RcodeSuccess
			}
		}
	}
	for _, row := range rows {
		switch code, isCode := dns.StringToRcode[row]; {
		case row == "silent":
			return nil
		case row == "cut":
			m.Truncated = udp
		case row == "noedns":
			if q.IsEdns0() != nil {
				m.Rcode = dns.RcodeFormatError
			}
		case row == "insecure":
			m.AuthenticatedData = false
		case row == "other":
			m.Question[0].Name = "other.test."
		case isCode:
			m.Rcode = code
		case !m.Truncated && m.Rcode == dns.RcodeSuccess:
			rr, err := dns.NewRR(row)
			if err != nil {
				panic(row + ": " + err.Error())
			}
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}
