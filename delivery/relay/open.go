package relay

import (
	"context"
	"crypto/tls"
	"strings"
	"time"

	"postino/config"
	"postino/spool"
)

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
		return s.notUs(verb, a)
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
	return s.notUs("HELO", a)
}

// notUs refuses a server that has our name: mail for it would go in circles. It waits,
// and is not returned, since two machines may have one name by mistake.
func (s *session) notUs(verb string, a answer) *refusal {
	name, _, _ := strings.Cut(a.lines[0], " ")
	// localhost, say, names nobody.
	if !s.pool.peer.notUs || !strings.Contains(name, ".") || !strings.EqualFold(name, s.pool.peer.hello) {
		return nil
	}
	return &refusal{Reply: s.local(verb, "4.4.6", "it calls itself "+name+", which is the name of this machine: mail would go in circles; "+
		"if it is another one, give this one a hostname of its own in postino.toml")}
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
