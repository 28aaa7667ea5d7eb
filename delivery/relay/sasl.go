package relay

import (
	"cmp"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"

	"postino/config"
)

// Mechanisms that go-sasl does not name.
const (
	cramMD5     = "CRAM-MD5"
	scramSHA256 = "SCRAM-SHA-256"
	scramPlus   = "SCRAM-SHA-256-PLUS"
	xoauth2     = "XOAUTH2"
)

// maxIterations bounds the work that a remote may have us do for SCRAM: about a
// second. RFC 7677 §4 asks for 4096, servers of today use up to 600000.
const maxIterations = 2_000_000

// errForged says that the remote could not prove that it knows the password, which
// a server with our account can (RFC 5802 §3). It is nobody to give mail to.
var errForged = errors.New("the server did not prove that it knows the password (SCRAM signature): look who answers there")

// mechanisms are what method, auto when it is empty, allows, the strongest first. An access token is no
// password, so that auto never takes one for the other.
func mechanisms(method config.AuthMethod, token bool) []string {
	if method == config.AuthAuto || method == "" {
		if token {
			return []string{xoauth2, sasl.OAuthBearer}
		}
		return []string{scramPlus, scramSHA256, cramMD5, sasl.Plain, sasl.Login}
	}
	if method == config.AuthSCRAM {
		return []string{scramPlus, scramSHA256}
	}
	return []string{strings.ToUpper(string(method))}
}

// mechanism begins a dialogue by the mechanism of that name with the server at
// address, which is "host:port", over a connection with that binding.
func (l *login) mechanism(name, address string, b binding) sasl.Client {
	switch name {
	case sasl.Login:
		return &answers{name: name, list: []string{l.username, l.password}}
	case sasl.External:
		return &answers{name: name, initial: l.username, list: []string{""}} // no name is that of the certificate
	case cramMD5:
		return &cramClient{login: *l}
	case scramSHA256, scramPlus:
		return &scramClient{login: *l, name: name, binding: b, nonce: rand.Text()}
	case xoauth2:
		return &answers{name: name, initial: "user=" + l.username + "\x01auth=Bearer " + l.password + "\x01\x01", list: []string{""}}
	case sasl.OAuthBearer:
		host, port, _ := net.SplitHostPort(address)
		initial := "n,a=" + saslName(l.username) + ",\x01host=" + host + "\x01port=" + port + "\x01auth=Bearer " + l.password + "\x01\x01"
		return &answers{name: name, initial: initial, list: []string{"\x01"}}
	}
	return sasl.NewPlainClient("", l.username, l.password)
}

// answers is a mechanism that answers by order, whatever the challenges say. LOGIN
// sends user name and then password, as servers word their challenges as they
// like. XOAUTH2 and OAUTHBEARER (RFC 7628 §3.2.3) are challenged after a failure
// only, and the answer fetches the reply that says so.
type answers struct {
	name, initial string
	list          []string
}

func (c *answers) Start() (string, []byte, error) { return c.name, []byte(c.initial), nil }

func (c *answers) Next([]byte) ([]byte, error) {
	if len(c.list) == 0 {
		return nil, errors.New("more challenges than " + c.name + " has")
	}
	answer := c.list[0]
	c.list = c.list[1:]
	return []byte(answer), nil
}

// cramClient is CRAM-MD5 (RFC 2195).
type cramClient struct {
	login
	done bool
}

func (c *cramClient) Start() (string, []byte, error) { return cramMD5, nil, nil }

func (c *cramClient) Next(challenge []byte) ([]byte, error) {
	if c.done {
		return nil, errors.New("more challenges than CRAM-MD5 has")
	}
	c.done = true
	digest := mac(md5.New, []byte(c.password), string(challenge))
	return []byte(c.username + " " + hex.EncodeToString(digest)), nil
}

// scramClient is SCRAM-SHA-256 (RFC 5802, RFC 7677), or its variant with channel
// binding. The password goes in as it is written: SASLprep changes nothing in ASCII.
type scramClient struct {
	login
	name      string
	binding   binding
	nonce     string
	signature []byte // what the server has to prove itself with; nil before its challenge
	proved    bool
	refused   bool // the server has said so, and its reply is to follow
}

func (c *scramClient) bare() string { return "n=" + saslName(c.username) + ",r=" + c.nonce }

func (c *scramClient) Start() (string, []byte, error) {
	return c.name, []byte(c.binding.header(c.name) + c.bare()), nil
}

func (c *scramClient) Next(challenge []byte) ([]byte, error) {
	switch {
	case c.proved, c.refused:
		return nil, errors.New("more challenges than SCRAM has")
	case c.signature == nil:
		return c.prove(string(challenge))
	case strings.HasPrefix(string(challenge), "e="):
		c.refused = true
		return []byte{}, nil
	}
	text, _ := strings.CutPrefix(string(challenge), "v=")
	text, _, _ = strings.Cut(text, ",")
	given, err := base64.StdEncoding.DecodeString(text)
	if err != nil || subtle.ConstantTimeCompare(given, c.signature) == 0 {
		return nil, errForged
	}
	c.proved = true
	return []byte{}, nil
}

// prove answers the server's first message with the proof that we know the
// password, and works out the server's own.
func (c *scramClient) prove(first string) ([]byte, error) {
	nonce, salt, iterations, err := parseChallenge(first)
	switch {
	case err != nil:
		return nil, err
	case !strings.HasPrefix(nonce, c.nonce) || nonce == c.nonce:
		return nil, errForged // an old dialogue played back
	}
	salted, err := pbkdf2.Key(sha256.New, c.password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, err
	}
	final := "c=" + encode(c.binding.proof(c.name)) + ",r=" + nonce
	message := c.bare() + "," + first + "," + final
	c.signature = mac(sha256.New, mac(sha256.New, salted, "Server Key"), message)
	key := mac(sha256.New, salted, "Client Key")
	stored := sha256.Sum256(key)
	proof := mac(sha256.New, stored[:], message)
	subtle.XORBytes(proof, proof, key)
	return []byte(final + ",p=" + encode(proof)), nil
}

// parseChallenge reads "r=nonce,s=salt,i=iterations" and extensions that may be
// passed over (RFC 5802 §7).
func parseChallenge(s string) (nonce string, salt []byte, iterations int, err error) {
	parts := strings.Split(s, ",")
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "r=") || !strings.HasPrefix(parts[1], "s=") || !strings.HasPrefix(parts[2], "i=") {
		return "", nil, 0, errors.New("not a challenge of SCRAM")
	}
	salt, saltErr := base64.StdEncoding.DecodeString(parts[1][2:])
	iterations, err = strconv.Atoi(parts[2][2:])
	if err = cmp.Or(err, saltErr); err != nil {
		return "", nil, 0, err
	}
	if len(salt) == 0 || iterations < 1 || iterations > maxIterations {
		return "", nil, 0, fmt.Errorf("no salt, or a count of iterations that is not 1 to %d", maxIterations)
	}
	return parts[0][2:], salt, iterations, nil
}

// unproved reports whether the dialogue of m is one in which the server has yet to
// prove itself.
func unproved(m sasl.Client) bool {
	c, ok := m.(*scramClient)
	return ok && !c.proved
}

func mac(h func() hash.Hash, key []byte, message string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(message))
	return m.Sum(nil)
}

// saslName writes a user name where commas separate (RFC 5801 §4).
func saslName(s string) string { return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s) }

// redact blanks what was said in a dialogue, and the password, in the reply that
// ended it: some servers quote what they did not like.
func redact(lines, said []string) []string {
	var pairs []string
	for _, s := range slices.Backward(said) {
		if s != "" {
			pairs = append(pairs, s, "…")
		}
	}
	return strings.Split(strings.NewReplacer(pairs...).Replace(strings.Join(lines, "\n")), "\n")
}
