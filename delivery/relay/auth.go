package relay

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-sasl"

	"postino/config"
	"postino/delivery/oauth"
	"postino/spool"
)

// maxCommand is how long a command line with its line end may be, in octets; an
// initial response that does not fit goes in a line of its own (RFC 4954 §4).
const maxCommand = 512

// login is who we are to the relay.
type login struct {
	username, password string
	// token: the password is an access token. renew, if set, fetches another one when
	// the relay does not take it.
	token bool
	renew func(context.Context) (*login, *refusal)
}

// credentials fetches what the configuration names; nil without a refusal means
// that none is configured. Errors of the source are the operator's to mend.
func (r *Relay) credentials(ctx context.Context) (*login, *refusal) {
	if r.config.Auth == config.AuthExternal {
		return &login{username: r.config.Username}, nil
	}
	if !r.config.Credentials() {
		return nil, nil
	}
	if r.config.OAuth.IsSet() {
		return r.bearer(ctx, "")
	}
	refuse := func(text string) (*login, *refusal) {
		return nil, &refusal{Reply: remote{}.local("AUTH", "4.7.8", text), final: true}
	}
	secret, err := r.config.Secret(ctx)
	switch {
	case err != nil:
		return refuse(err.Error())
	case r.config.Auth == config.AuthNone:
		return refuse(`credentials are set and relay.auth is "none": remove one of them`)
	case secret.Reveal() == "" || r.config.Username == "":
		return refuse("user name or password is missing: set relay.username and relay.password_file")
	case strings.ContainsRune(r.config.Username+secret.Reveal(), 0):
		return refuse("user name or password holds a NUL")
	}
	return &login{username: r.config.Username, password: secret.Reveal()}, nil
}

// bearer is a login with an access token, other than refused. That there is none is the
// operator's to mend, or the provider is out of reach.
func (r *Relay) bearer(ctx context.Context, refused config.Secret) (*login, *refusal) {
	if r.tokens == nil {
		return nil, &refusal{Reply: remote{}.local("AUTH", "4.7.8", "there is no place for access tokens"), final: true}
	}
	fetch := r.tokens.Token
	if refused != "" {
		fetch = func(ctx context.Context, c *config.Relay) (config.Secret, error) {
			return r.tokens.Renew(ctx, c, refused)
		}
	}
	token, err := fetch(ctx, r.config)
	if err != nil {
		status := "4.4.1"
		if oauth.Lasting(err) {
			status = "4.7.8"
		}
		return nil, &refusal{Reply: remote{}.local("AUTH", status, err.Error()), final: true}
	}
	l := &login{username: r.config.Username, password: token.Reveal(), token: true}
	if refused == "" {
		l.renew = func(ctx context.Context) (*login, *refusal) { return r.bearer(ctx, token) }
	}
	return l, nil
}

// authenticate says who we are by the first mechanism of wanted that the remote
// offers, and by the next one if it declines the mechanism. It never goes on
// without: an offer may have been taken away to make us.
func (s *session) authenticate(method config.AuthMethod, l *login) *refusal {
	proxied := s.pool.peer.proxy != config.Proxy{} // whose address is the remote one
	if s.tls == "" && (proxied || !loopback(s.w.socket.RemoteAddr())) {
		return &refusal{Reply: s.local("AUTH", "4.7.11", `credentials are sent under TLS only: set relay.tls = "starttls" or "implicit"`), final: true}
	}
	wanted := mechanisms(method, l.token)
	offered := s.ext.mechanisms()
	bound := s.binding
	bound.offered = slices.Contains(offered, scramPlus)
	var reply spool.Reply
	for _, name := range wanted {
		if !slices.Contains(offered, name) || name == scramPlus && bound.kind == "" {
			continue
		}
		a, err := s.exchange(l.mechanism(name, s.pool.peer.address, bound), l.password)
		switch {
		case errors.Is(err, errForged):
			return &refusal{Reply: s.local("AUTH", "4.7.8", err.Error()), broken: true}
		case err != nil:
			return s.failed("AUTH", err)
		case a.code/100 == 2:
			return nil
		}
		reply = temporary(s.judge("AUTH", a))
		if a.code != 504 && a.code != 534 && a.code != 538 {
			break
		}
	}
	if reply.Status == "" {
		text := fmt.Sprintf("no usable AUTH mechanism: want %s, offered: %s",
			strings.Join(wanted, " or "), cmp.Or(strings.Join(offered, " "), "none"))
		return &refusal{Reply: s.local("AUTH", "4.7.9", text), final: true}
	}
	return &refusal{Reply: reply, final: reply.Code/100 == 5}
}

// loopback reports whether the remote is this machine.
func loopback(addr net.Addr) bool {
	ap, err := netip.ParseAddrPort(addr.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// exchange runs one AUTH dialogue (RFC 4954 §4) and returns the reply that ended
// it, without what was said and without password. We speak it ourselves: go-smtp
// sends a stray line after a refusal and waits for its answer.
func (s *session) exchange(m sasl.Client, password string) (answer, error) {
	name, initial, err := m.Start()
	if err != nil {
		return answer{}, err
	}
	said := []string{password, encode([]byte(password)), encode(initial)}
	line := "AUTH " + name
	if len(initial) > 0 {
		if whole := line + " " + encode(initial); len(whole)+2 <= maxCommand {
			line, initial = whole, nil
		}
	}
	timeout := time.Duration(s.pool.peer.time.Command)
	a, err := s.w.command(line, timeout)
	for err == nil && a.code == 334 {
		response := initial
		initial = nil
		if len(response) == 0 {
			response, err = next(m, name, a)
			if errors.Is(err, errForged) {
				return a, err
			}
			if err != nil {
				a, err = s.w.command("*", timeout)
				break
			}
			said = append(said, encode(response))
		}
		a, err = s.w.command(encode(response), timeout)
	}
	if err == nil && a.code/100 == 2 && unproved(m) {
		return a, errForged
	}
	a.lines = redact(a.lines, said)
	return a, err
}

// next is the answer of m to the challenge in a. LOGIN does not look at it, and
// some servers do not encode it.
func next(m sasl.Client, name string, a answer) ([]byte, error) {
	challenge, err := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.Join(a.lines, "")))
	if err != nil && name != sasl.Login {
		return nil, err
	}
	return m.Next(challenge)
}
