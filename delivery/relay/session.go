package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"postino/config"
	"postino/spool"
)

// quitWait is how long a remote may take over QUIT. Nothing depends on its
// answer, and shutdown waits for it.
const quitWait = 2 * time.Second

// session is one connection to a relay host, ready for MAIL.
type session struct {
	remote
	g    *guard
	ext  extensions
	at   int    // which of the relay's hosts it is with
	name string // what we said in EHLO
	time config.Timeouts

	unwatch func() bool // ends the watch over the context of the attempt
	taken   int         // messages sent over it
	most    int         // messages it is good for
	fate    fate
	timer   *time.Timer // while idle: the end of it
}

// fate is what is to be done with a session after a transaction.
type fate int

const (
	hangUp  fate = iota // close the socket and send nothing more
	sayQuit             // QUIT is safe; another transaction is not
	keep                // good for another transaction
)

// refusal is why no session came about, as a Reply for all recipients.
type refusal struct {
	spool.Reply
	// final: the next host would say the same, since the fault is ours.
	final bool
}

// open connects to host and goes as far as MAIL could follow: greeting, EHLO, TLS
// and AUTH as the configuration wants them. A refusal is of class 4 whatever was
// said: what happens here is about us, never about a recipient.
func (r *Relay) open(ctx context.Context, at int) (*session, *refusal) {
	host := r.config.Host[at]
	s := &session{at: at, time: r.timeouts, most: r.config.MessagesPerConnection}
	roots, err := loadRoots(r.config.CAFile)
	if err != nil {
		return nil, &refusal{s.local("connect", "4.7.5", err.Error()), true}
	}
	login, refused := r.credentials(ctx)
	if refused != nil {
		return nil, refused
	}
	where := net.JoinHostPort(host, strconv.Itoa(r.config.Port))
	dialer := net.Dialer{Timeout: time.Duration(r.timeouts.Connect)}
	socket, err := dialer.DialContext(ctx, "tcp", where)
	if err != nil {
		return nil, &refusal{unreachable(where, err), false}
	}
	s.host = remoteName(host, socket.RemoteAddr())
	s.name = ehloName(r.hostname, socket.LocalAddr())
	s.g = newGuard(socket, socket, time.Duration(r.timeouts.Command))
	s.watch(ctx)
	refused = s.secure(ctx, r.config.TLS, &tls.Config{
		ServerName: strings.TrimSuffix(host, "."),
		RootCAs:    roots,
		MinVersion: uint16(r.config.TLSMin), // zero is crypto/tls's own minimum, 1.2
	})
	if refused == nil && login != nil {
		refused = s.authenticate(r.config.Auth, login)
	}
	if refused != nil {
		s.abandon(refused)
		return nil, refused
	}
	if n := s.ext.limit("MAILMAX"); n > 0 {
		s.most = min(s.most, n)
	}
	return s, nil
}

// remoteName is the remote as a Reply names it.
func remoteName(host string, addr net.Addr) string {
	ip, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return host
	}
	return fmt.Sprintf("%s[%s]:%s", host, ip, port)
}

// unreachable is the Reply to an error of dialing where (RFC 3463 §3.5).
func unreachable(where string, err error) spool.Reply {
	status := "4.4.1"
	var dns *net.DNSError
	var op *net.OpError
	if errors.As(err, &op) {
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

// loadRoots reads the certificates to trust; nil, for an empty path, is the
// system's. It is read for each connection so that a mended file needs no restart.
func loadRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("relay.ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("relay.ca_file: %s holds no certificate: write them in PEM", path)
	}
	return roots, nil
}

// watch makes the end of ctx close the socket, which ends any wait at once. The
// watch over an earlier context must have ended.
func (s *session) watch(ctx context.Context) {
	socket := s.g.socket
	s.unwatch = context.AfterFunc(ctx, func() { socket.Close() })
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
			return &refusal{s.local("STARTTLS", "4.7.4", `STARTTLS is not offered: mail waits; if the relay has no TLS, set relay.tls = "none"`), false}
		}
	}
	return s.startTLS(ctx, policy, t)
}

// startTLS asks for TLS and says EHLO again under it: what was said before is
// forgotten (RFC 3207 §4.2). Under the opportunistic policy a remote that
// declines is spoken to in plaintext.
func (s *session) startTLS(ctx context.Context, policy config.TLSPolicy, t *tls.Config) *refusal {
	a, err := s.g.command("STARTTLS", time.Duration(s.time.Command))
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
	if s.g.in.Buffered() > 0 {
		s.g.err = errUnasked
		return s.failed("STARTTLS", errUnasked)
	}
	if refused := s.handshake(ctx, t); refused != nil {
		return refused
	}
	return s.hello()
}

// handshake puts TLS over the socket and a new guard over TLS.
func (s *session) handshake(ctx context.Context, t *tls.Config) *refusal {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.time.Command))
	defer cancel()
	conn := tls.Client(s.g.socket, t)
	if err := conn.HandshakeContext(ctx); err != nil {
		var certificate *tls.CertificateVerificationError
		switch {
		case errors.As(err, &certificate):
			return &refusal{s.local("TLS", "4.7.5", "certificate of "+t.ServerName+" not accepted: "+err.Error()), false}
		case lost(err):
			return s.failed("TLS", err)
		}
		return &refusal{s.local("TLS", "4.7.4", "TLS handshake: "+err.Error()), false}
	}
	state := conn.ConnectionState()
	s.tls = strings.ReplaceAll(tls.VersionName(state.Version), " ", "")
	if verified(state, t) {
		s.tls += " verified"
	} else {
		s.tls += " unverified"
	}
	s.g = newGuard(conn, s.g.socket, s.g.patience)
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
	if err := s.g.SetDeadline(time.Now().Add(time.Duration(s.time.Greeting))); err != nil {
		return s.failed("greeting", err)
	}
	a, err := s.g.answer()
	switch {
	case err != nil:
		return s.failed("greeting", err)
	case a.code != 220:
		return s.refused("greeting", a)
	}
	return nil
}

// hello says EHLO, or HELO to a remote that refuses it (RFC 5321 §3.2).
func (s *session) hello() *refusal {
	a, err := s.g.command("EHLO "+s.name, time.Duration(s.time.Command))
	switch {
	case err != nil:
		return s.failed("EHLO", err)
	case a.code == 250:
		s.ext = parseEHLO(a)
		return nil
	case a.code/100 != 5:
		return s.refused("EHLO", a)
	}
	first := a
	s.ext = nil
	a, err = s.g.command("HELO "+s.name, time.Duration(s.time.Command))
	switch {
	case err != nil:
		return s.refused("EHLO", first) // says more than a closed connection
	case a.code != 250:
		return s.refused("HELO", a)
	}
	return nil
}

// failed is the refusal made of an error of the connection.
func (s *session) failed(command string, err error) *refusal {
	return &refusal{s.broken(command, err), false}
}

// refused is the refusal made of a remote's reply. A positive one in this place
// is not what was asked for.
func (s *session) refused(command string, a answer) *refusal {
	if a.code < 400 {
		return &refusal{s.misplaced(command, a), false}
	}
	return &refusal{temporary(s.judge(command, a)), false}
}

// abandon ends a session that came to nothing: with QUIT while the remote
// understands us, else by closing the socket.
func (s *session) abandon(why *refusal) {
	if why.Command != "TLS" && why.Code != 421 && s.g.err == nil {
		s.quit()
		return
	}
	s.close()
}

// end ends the session as its fate allows.
func (s *session) end() {
	if s.fate == hangUp {
		s.close()
		return
	}
	s.quit()
}

// quit ends the session in order, in 2 s at most. It must not be called while
// content is unfinished.
func (s *session) quit() {
	s.g.patience = quitWait
	s.g.until = time.Time{}
	s.g.command("QUIT", quitWait)
	s.close()
}

// close closes the socket, TLS or not: nothing more is written.
func (s *session) close() {
	s.unwatch()
	s.g.socket.Close()
}
