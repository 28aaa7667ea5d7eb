package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"time"

	"postino/config"
	"postino/delivery/tlspolicy"
	"postino/spool"
)

// quitWait is how long a remote may take over QUIT. Nothing depends on its
// answer, and shutdown waits for it.
const quitWait = 2 * time.Second

// session is one connection to a peer. open makes it ready for MAIL; from then on
// two goroutines have it, a writer (writer.go) and a reader (reader.go), and what
// they share is guarded by the mutex of the pool.
type session struct {
	remote
	pool *pool
	w    *wire
	ext  extensions
	name string // what we said in EHLO

	binding binding // of the TLS that there is

	changed *sync.Cond // of pool.mu: anything below has
	// All below is guarded by pool.mu.
	ready    bool           // open has come to its end
	expected []expectation  // replies to come, in order
	flight   []*transaction // begun and not done with, in order
	sending  *transaction   // whose content is being written and has no end yet
	fault    *fault         // why the connection is of no more use
	served   int            // transactions that the remote has answered to the end
	taken    int            // transactions begun
	most     int            // transactions it is good for
	rcptMax  int            // recipients that the remote takes in one transaction
	unclean  bool           // RSET must come before the next MAIL
	words    words          // by which its answers can be told apart
	chunked  bool           // content was sent by BDAT
	leaving  bool           // nothing more is to be begun: QUIT
	// listening: the writer waits for a job, and nobody has woken it yet.
	listening bool
	begun     bool // the writer has a job and no transaction for it yet
	depth     depth
	opened    time.Time
	// hurry: writing has failed, with the error cut; what the remote has said about
	// it is read until then.
	hurry  time.Time
	cut    error
	cancel context.CancelFunc // ends open
}

// refusal is why no session came about, as a Reply for all recipients.
type refusal struct {
	spool.Reply
	// final: the next host would say the same, since the fault is ours.
	final bool
	// broken: the connection is of no use, not even for QUIT.
	broken bool
}

// open connects to the peer and goes as far as MAIL could follow: greeting, EHLO,
// TLS and AUTH as it wants them. A refusal is of class 4 whatever was said: what
// happens here is about us, never about a recipient. The end of ctx ends it.
func (s *session) open(ctx context.Context) *refusal {
	p := s.pool.peer
	t, err := p.tls()
	if err != nil {
		return &refusal{Reply: s.local("connect", "4.7.5", err.Error()), final: true}
	}
	var who *login
	var refused *refusal
	if p.login != nil {
		if who, refused = p.login(ctx); refused != nil {
			return refused
		}
	}
	refused = s.try(ctx, t, who)
	// An access token may have been taken back before its end: another one, once.
	if refused != nil && refused.Code == codeNotTaken && who != nil && who.renew != nil {
		if who, again := who.renew(ctx); again == nil {
			return s.try(ctx, t, who)
		} else if again.Status == refused.Status {
			return again // says what to do
		}
	}
	return refused
}

// codeNotTaken is the reply to credentials that are not taken (RFC 4954 §6).
const codeNotTaken = 535

// try is open with what it takes.
func (s *session) try(ctx context.Context, t *tls.Config, who *login) *refusal {
	p := s.pool.peer
	socket, refused := p.connect(ctx)
	if refused != nil {
		return refused
	}
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	defer stop()
	s.host = p.remoteName(socket.RemoteAddr())
	s.name = ehloName(p.hello, socket.LocalAddr())
	s.w = newWire(socket, socket)
	refused = s.secure(ctx, p.policy, t)
	if refused == nil && who != nil {
		refused = s.authenticate(p.method, who)
	}
	if refused == nil {
		if err := s.w.unread(); err != nil {
			refused = s.failed("MAIL", err)
		}
	}
	if refused != nil {
		s.abandon(refused)
	}
	return refused
}

// secure speaks greeting, EHLO and STARTTLS as policy wants.
func (s *session) secure(ctx context.Context, policy config.TLSPolicy, t *tls.Config) *refusal {
	if policy == config.Implicit {
		if refused := s.handshake(ctx, t); refused != nil {
			return refused
		}
	}
	if refused := s.greeting(); refused != nil {
		return refused
	}
	if refused := s.hello(); refused != nil {
		return refused
	}
	switch policy {
	case config.Implicit, config.NoTLS:
		return nil
	case config.Opportunistic:
		if !s.ext.has("STARTTLS") {
			return nil
		}
		t.InsecureSkipVerify = true // protects against listening only, which is what was asked for
	default:
		// Not offered may mean that somebody in between took the offer away
		// (RFC 3207 §6): nothing is sent then, least of all credentials.
		if !s.ext.has("STARTTLS") {
			return &refusal{Reply: s.local("STARTTLS", "4.7.4", "STARTTLS is not offered: mail waits; "+s.pool.peer.withoutTLS())}
		}
	}
	return s.startTLS(ctx, policy, t)
}

// startTLS asks for TLS and says EHLO again under it: what was said before is
// forgotten (RFC 3207 §4.2). Under the opportunistic policy a remote that
// declines is spoken to in plaintext.
func (s *session) startTLS(ctx context.Context, policy config.TLSPolicy, t *tls.Config) *refusal {
	a, err := s.w.command("STARTTLS", time.Duration(s.pool.peer.time.Command))
	switch {
	case err != nil:
		return s.failed("STARTTLS", err)
	case a.code != 220:
		if policy == config.Opportunistic && a.code/100 > 3 && a.code != 421 {
			return nil
		}
		return s.refused("STARTTLS", a)
	}
	// Plaintext behind the answer was put there to be read as if it came under
	// TLS. What comes later breaks the handshake.
	if s.w.in.Buffered() > 0 {
		return s.failed("STARTTLS", errUnasked)
	}
	if refused := s.handshake(ctx, t); refused != nil {
		return refused
	}
	return s.hello()
}

// handshake puts TLS over the socket and a new wire over TLS.
func (s *session) handshake(ctx context.Context, t *tls.Config) *refusal {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.pool.peer.time.Command))
	defer cancel()
	conn := tls.Client(s.w.socket, t)
	if err := conn.HandshakeContext(ctx); err != nil {
		var certificate *tls.CertificateVerificationError
		switch {
		case errors.As(err, &certificate), errors.Is(err, errPin), errors.Is(err, tlspolicy.ErrNotAuthentic):
			return &refusal{Reply: s.local("TLS", "4.7.5", "certificate of "+t.ServerName+" not accepted: "+err.Error()+s.pool.peer.demand.because())}
		case lost(err):
			return s.failed("TLS", err)
		}
		return &refusal{Reply: s.local("TLS", "4.7.4", "TLS handshake: "+err.Error())}
	}
	state := conn.ConnectionState()
	s.tls = strings.ReplaceAll(tls.VersionName(state.Version), " ", "")
	switch proof := s.pool.peer.demand.proof; {
	case proof != "":
		s.tls += " " + proof
	case s.pool.peer.pin != "" || verified(state, t):
		s.tls += " verified"
	default:
		s.tls += " unverified"
	}
	s.binding = bindingOf(state)
	s.w = newWire(conn, s.w.socket)
	return nil
}

// verified reports whether the remote proved its name, even if that was not
// demanded.
func verified(state tls.ConnectionState, t *tls.Config) bool {
	if len(state.VerifiedChains) > 0 {
		return true
	}
	if len(state.PeerCertificates) == 0 {
		return false
	}
	intermediates := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: t.ServerName, Roots: t.RootCAs, Intermediates: intermediates})
	return err == nil
}

func (s *session) greeting() *refusal {
	a, err := s.w.await(time.Now().Add(time.Duration(s.pool.peer.time.Greeting)))
	switch {
	case err != nil:
		return s.failed("greeting", err)
	case a.code != 220:
		return s.refused("greeting", a)
	}
	return nil
}

// hello says EHLO, or HELO to a remote that refuses it (RFC 5321 §3.2), or LHLO,
// for which there is nothing older (RFC 2033 §4.1).
func (s *session) hello() *refusal {
	verb := "EHLO"
	if s.pool.peer.lmtp {
		verb = "LHLO"
	}
	timeout := time.Duration(s.pool.peer.time.Command)
	a, err := s.w.command(verb+" "+s.name, timeout)
	switch {
	case err != nil:
		return s.failed(verb, err)
	case a.code == 250:
		s.ext = parseEHLO(a)
		return nil
	case a.code/100 != 5 || verb == "LHLO":
		return s.refused(verb, a)
	}
	first := a
	s.ext = nil
	a, err = s.w.command("HELO "+s.name, timeout)
	switch {
	case err != nil:
		refused := s.refused("EHLO", first) // says more than a closed connection
		refused.broken = true
		return refused
	case a.code != 250:
		return s.refused("HELO", a)
	}
	return nil
}

// failed is the refusal made of an error of the connection.
func (s *session) failed(command string, err error) *refusal {
	return &refusal{Reply: s.broken(command, err), broken: true}
}

// refused is the refusal made of a remote's reply. A positive one in this place
// is not what was asked for.
func (s *session) refused(command string, a answer) *refusal {
	if a.code < 400 {
		return &refusal{Reply: s.misplaced(command, a)}
	}
	return &refusal{Reply: temporary(s.judge(command, a))}
}

// abandon ends a session that came to nothing: with QUIT while the remote
// understands us, else by closing the socket.
func (s *session) abandon(why *refusal) {
	if why.Command != "TLS" && why.Code != 421 && !why.broken {
		s.w.command("QUIT", quitWait)
	}
	s.w.socket.Close()
}
