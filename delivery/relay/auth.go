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
	"postino/spool"
)

// maxCommand is how long a command line with its line end may be, in octets; an
// initial response that does not fit goes in a line of its own (RFC 4954 §4).
const maxCommand = 512

// login is who we are to the relay.
type login struct{ username, password string }

// credentials fetches what the configuration names; nil without a refusal means
// that none is configured. Errors of the source are the operator's to mend.
func (r *Relay) credentials(ctx context.Context) (*login, *refusal) {
	if !r.config.Credentials() {
		return nil, nil
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
	return &login{r.config.Username, secret.Reveal()}, nil
}

// authenticate says who we are by the first mechanism of wanted that the remote
// offers, and by the next one if it declines the mechanism. It never goes on
// without: an offer may have been taken away to make us.
func (s *session) authenticate(method config.AuthMethod, l *login) *refusal {
	if s.tls == "" && !loopback(s.w.socket.RemoteAddr()) {
		return &refusal{Reply: s.local("AUTH", "4.7.11", `credentials are sent under TLS only: set relay.tls = "starttls" or "implicit"`), final: true}
	}
	wanted := []string{sasl.Plain, sasl.Login}
	switch method {
	case config.AuthPlain:
		wanted = wanted[:1]
	case config.AuthLogin:
		wanted = wanted[1:]
	}
	offered := s.ext.mechanisms()
	var reply spool.Reply
	for _, name := range wanted {
		if !slices.Contains(offered, name) {
			continue
		}
		a, err := s.exchange(l.mechanism(name))
		if err != nil {
			return s.failed("AUTH", err)
		}
		if a.code/100 == 2 {
			return nil
		}
		a.lines = l.redact(a.lines)
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

func (l *login) mechanism(name string) sasl.Client {
	if name == sasl.Login {
		return &loginClient{answers: []string{l.username, l.password}}
	}
	return sasl.NewPlainClient("", l.username, l.password)
}

// redact blanks the password in a reply to AUTH: some servers quote the command
// they did not like.
func (l *login) redact(lines []string) []string {
	_, plain, _ := l.mechanism(sasl.Plain).Start()
	var pairs []string
	for _, secret := range []string{encode(plain), encode([]byte(l.password)), l.password} {
		pairs = append(pairs, secret, "…")
	}
	return strings.Split(strings.NewReplacer(pairs...).Replace(strings.Join(lines, "\n")), "\n")
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// exchange runs one AUTH dialogue (RFC 4954 §4) and returns the reply that ended
// it. We speak it ourselves: go-smtp sends a stray line after a refusal and waits
// for its answer.
func (s *session) exchange(m sasl.Client) (answer, error) {
	name, initial, err := m.Start()
	if err != nil {
		return answer{}, err
	}
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
			challenge, decodeErr := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.Join(a.lines, "")))
			if decodeErr == nil || name == sasl.Login {
				response, decodeErr = m.Next(challenge)
			}
			if decodeErr != nil {
				return s.w.command("*", timeout)
			}
		}
		a, err = s.w.command(encode(response), timeout)
	}
	return a, err
}

// loginClient is the LOGIN mechanism. It answers by order, user name and then
// password, whatever the challenges say: servers word them as they like.
type loginClient struct{ answers []string }

func (c *loginClient) Start() (string, []byte, error) { return sasl.Login, nil, nil }

func (c *loginClient) Next([]byte) ([]byte, error) {
	if len(c.answers) == 0 {
		return nil, errors.New("more challenges than LOGIN has")
	}
	answer := c.answers[0]
	c.answers = c.answers[1:]
	return []byte(answer), nil
}
