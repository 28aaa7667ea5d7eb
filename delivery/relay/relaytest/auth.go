package relaytest

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// auth answers AUTH (RFC 4954).
func (c *conn) auth(arg, line string) bool {
	if r := c.server.rule(c, "AUTH", line); r != (Rule{}) {
		code, ok := c.answer(r, "235 2.7.0 ok")
		if code == "235" {
			c.user = "?"
		}
		return ok
	}
	mechanism, initial, _ := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	dialogue := map[string]func(string) (user string, good, ok bool){
		"PLAIN": c.plain, "LOGIN": c.login, "CRAM-MD5": c.cram, "SCRAM-SHA-256": c.scram, "SCRAM-SHA-256-PLUS": c.scramPlus,
		"XOAUTH2": c.bearer, "OAUTHBEARER": c.bearer, "EXTERNAL": c.external,
	}[mechanism]
	if dialogue == nil {
		return c.write("504 5.5.4 unknown mechanism")
	}
	if initial == "" && mechanism != "LOGIN" && mechanism != "CRAM-MD5" {
		var ok bool
		if initial, ok = c.ask(""); !ok {
			return false
		}
	}
	user, good, ok := dialogue(decode(initial))
	switch {
	case !ok:
		return false
	case !good:
		return c.write("535 5.7.8 wrong user name or password")
	}
	c.user = user
	return c.write("235 2.7.0 ok")
}

// password reports whether it is that of user.
func (c *conn) password(user, password string) bool {
	want, known := c.server.options.Users[user]
	return known && want == password
}

func (c *conn) plain(initial string) (user string, good, ok bool) {
	parts := strings.Split(initial, "\x00")
	if len(parts) != 3 {
		return "", false, true
	}
	return parts[1], c.password(parts[1], parts[2]), true
}

func (c *conn) login(string) (user string, good, ok bool) {
	first, ok := c.ask("who is it")
	if !ok {
		return "", false, false
	}
	second, ok := c.ask("")
	return decode(first), c.password(decode(first), decode(second)), ok
}

// external takes who has a certificate of the authority (RFC 4422 appendix A).
func (c *conn) external(initial string) (user string, good, ok bool) {
	conn, isTLS := c.rw.(*tls.Conn)
	return initial, isTLS && len(conn.ConnectionState().VerifiedChains) > 0, true
}

// cram is CRAM-MD5 (RFC 2195).
func (c *conn) cram(string) (user string, good, ok bool) {
	const challenge = "<1896.697170952@relay.test>"
	response, ok := c.ask(challenge)
	user, digest, _ := strings.Cut(decode(response), " ")
	want := mac(md5.New, []byte(c.server.options.Users[user]), challenge)
	return user, digest == hex.EncodeToString(want), ok
}

// scram is SCRAM-SHA-256 (RFC 5802).
func (c *conn) scram(initial string) (user string, good, ok bool) {
	flag, bare, found := strings.Cut(initial, ",,")
	if !found || flag != "n" && (flag != "y" || c.server.options.Plus) {
		return "", false, true
	}
	return c.scramBound(bare, []byte(flag+",,"))
}

// scramPlus is SCRAM-SHA-256-PLUS, with the bindings of RFC 9266 and RFC 5929.
func (c *conn) scramPlus(initial string) (user string, good, ok bool) {
	flag, bare, found := strings.Cut(initial, ",,")
	conn, isTLS := c.rw.(*tls.Conn)
	if !found || !isTLS {
		return "", false, true
	}
	state := conn.ConnectionState()
	var data []byte
	switch flag {
	case "p=tls-exporter":
		data, _ = state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32) // nil is refused
	case "p=tls-unique":
		data = state.TLSUnique
	case "p=tls-server-end-point":
		sum := sha256.Sum256(c.server.config.Certificates[0].Certificate[0])
		data = sum[:]
	}
	if data == nil {
		return "", false, true
	}
	return c.scramBound(bare, append([]byte(flag+",,"), data...))
}

// scramBound goes on with a dialogue whose client has to show bound.
func (c *conn) scramBound(bare string, bound []byte) (user string, good, ok bool) {
	name, nonce, found := strings.Cut(strings.TrimPrefix(bare, "n="), ",r=")
	if !found {
		return "", false, true
	}
	user = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(name)
	const iterations = 4096
	salt := []byte("salt of relaytest")
	nonce += "and-ours"
	first := fmt.Sprintf("r=%s,s=%s,i=%d", nonce, base64.StdEncoding.EncodeToString(salt), iterations)
	response, ok := c.ask(first)
	if !ok {
		return "", false, false
	}
	final, proof, _ := strings.Cut(decode(response), ",p=")
	salted, err := pbkdf2.Key(sha256.New, c.server.options.Users[user], salt, iterations, sha256.Size)
	if err != nil || final != "c="+base64.StdEncoding.EncodeToString(bound)+",r="+nonce {
		return "", false, true
	}
	message := bare + "," + first + "," + final
	key := mac(sha256.New, salted, "Client Key")
	stored := sha256.Sum256(key)
	want := mac(sha256.New, stored[:], message)
	for i := range want {
		want[i] ^= key[i]
	}
	if decode(proof) != string(want) {
		return "", false, true
	}
	signature := mac(sha256.New, mac(sha256.New, salted, "Server Key"), message)
	empty, ok := c.ask("v=" + base64.StdEncoding.EncodeToString(signature))
	return user, empty == "", ok
}

// bearer is XOAUTH2 and OAUTHBEARER (RFC 7628). What is wrong is said in a
// challenge, and the refusal comes after the answer.
func (c *conn) bearer(initial string) (user string, good, ok bool) {
	fields := strings.Split(initial, "\x01")
	user, isXOAuth := strings.CutPrefix(fields[0], "user=")
	if !isXOAuth {
		user = strings.TrimSuffix(strings.TrimPrefix(fields[0], "n,a="), ",")
	}
	for _, f := range fields {
		if token, is := strings.CutPrefix(f, "auth=Bearer "); is && c.token(user, token) {
			return user, true, true
		}
	}
	answer, ok := c.ask(`{"status":"invalid_token"}`)
	if isXOAuth != (answer == "") {
		return "", false, false
	}
	return user, false, ok
}

func (c *conn) token(user, token string) bool {
	if takes := c.server.options.Bearer; takes != nil {
		return takes(token)
	}
	return c.password(user, token)
}

func mac(h func() hash.Hash, key []byte, message string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(message))
	return m.Sum(nil)
}

// ask sends a challenge and reads the line that answers it.
func (c *conn) ask(challenge string) (string, bool) {
	code, ok := c.say("AUTHRESP", "", "334 "+base64.StdEncoding.EncodeToString([]byte(challenge)))
	if !ok || code != "334" {
		return "", false
	}
	line, ok := c.read()
	c.server.record(line)
	return line, ok
}

func decode(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(b)
}
