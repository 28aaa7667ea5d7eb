package relay

import (
	"crypto/tls"
	"encoding/base64"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
	"postino/spool/address"
)

// One message under each TLS policy, against each kind of server. Where TLS is
// demanded nothing is sent without it.
func TestTLSPolicies(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy config.TLSPolicy
		server relaytest.Options
		tls    string
		want   want
		never  string
	}{
		{"implicit", config.Implicit, relaytest.Options{TLS: relaytest.Implicit}, "TLS1.3 verified", want{"2", 250, "dot", ""}, "^STARTTLS"},
		{"implicit at 1.2", config.Implicit, relaytest.Options{TLS: relaytest.Implicit, MaxTLS: tls.VersionTLS12}, "TLS1.2 verified", want{"2", 250, "dot", ""}, "^STARTTLS"},
		{"starttls", config.StartTLS, relaytest.Options{TLS: relaytest.StartTLS}, "TLS1.3 verified", want{"2", 250, "dot", ""}, "localhost"},
		{"starttls taken away", config.StartTLS, relaytest.Options{}, "", want{"4.7.4", 0, "STARTTLS", "not offered"}, "^(AUTH|MAIL|STARTTLS)"},
		{"starttls and HELO only", config.StartTLS, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "EHLO", Reply: "500 what"}}}, "", want{"4.7.4", 0, "STARTTLS", ""}, "^(AUTH|MAIL)"},
		{"starttls in lower case", config.StartTLS, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "EHLO", N: 1, Reply: "250-r\n250 starttls"}}}, "TLS1.3 verified", want{"2", 250, "dot", ""}, "x{9}"},
		{"starttls refused", config.StartTLS, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "STARTTLS", Reply: "454 4.7.0 no"}}}, "", want{"4.7.0", 454, "STARTTLS", ""}, "^(AUTH|MAIL)"},
		{"starttls refused for good", config.StartTLS, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "STARTTLS", Reply: "554 no"}}}, "", want{"4.0.0", 554, "STARTTLS", ""}, "^(AUTH|MAIL)"},
		{"starttls injection", config.StartTLS, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "STARTTLS", Raw: "220 go\r\n250 injected"}}}, "", want{"4.5.0", 0, "STARTTLS", "nobody asked"}, "^(AUTH|MAIL)"},
		{"expired", config.StartTLS, relaytest.Options{TLS: relaytest.StartTLS, Cert: relaytest.Expired}, "", want{"4.7.5", 0, "TLS", "expired"}, "^(AUTH|MAIL)"},
		{"wrong name", config.Implicit, relaytest.Options{TLS: relaytest.Implicit, Cert: relaytest.WrongName}, "", want{"4.7.5", 0, "TLS", "127.0.0.1"}, "."},
		{"self-signed", config.Implicit, relaytest.Options{TLS: relaytest.Implicit, Cert: relaytest.SelfSigned}, "", want{"4.7.5", 0, "TLS", "unknown authority"}, "."},
		{"TLS 1.0 only", config.StartTLS, relaytest.Options{TLS: relaytest.StartTLS, MaxTLS: tls.VersionTLS10}, "", want{"4.7.4", 0, "TLS", "version"}, "^(AUTH|MAIL)"},
		{"handshake closed", config.StartTLS, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "tls", Do: relaytest.Close}}}, "", want{"4.4.2", 0, "TLS", ""}, "^(AUTH|MAIL)"},
		{"opportunistic", config.Opportunistic, relaytest.Options{TLS: relaytest.StartTLS, Cert: relaytest.SelfSigned}, "TLS1.3 unverified", want{"2", 250, "dot", ""}, "x{9}"},
		{"opportunistic, verified by the way", config.Opportunistic, relaytest.Options{TLS: relaytest.StartTLS}, "TLS1.3 verified", want{"2", 250, "dot", ""}, "x{9}"},
		{"opportunistic, not offered", config.Opportunistic, relaytest.Options{}, "", want{"2", 250, "dot", ""}, "^STARTTLS"},
		{"opportunistic, declined", config.Opportunistic, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "STARTTLS", Reply: "454 4.7.0 no"}}}, "", want{"2", 250, "dot", ""}, "x{9}"},
		{"opportunistic, handshake closed", config.Opportunistic, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "tls", Do: relaytest.Close}}}, "", want{"4.4.2", 0, "TLS", ""}, "^MAIL"},
		{"none", config.NoTLS, relaytest.Options{TLS: relaytest.StartTLS}, "", want{"2", 250, "dot", ""}, "^STARTTLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := relaytest.New(t, tt.server)
			reply := newRelay(t, settings(server, withTLS(tt.policy)), patient()).Deliver(t.Context(), one())[0]
			tt.want.check(t, reply)
			if reply.TLS != tt.tls {
				t.Errorf("TLS is %q, want %q", reply.TLS, tt.tls)
			}
			never(t, server, tt.never)
		})
	}
}

func TestMinimumTLSVersion(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, MaxTLS: tls.VersionTLS12})
	c := settings(server, withTLS(config.Implicit), func(c *config.Relay) { c.TLSMin = tls.VersionTLS13 })
	want{"4.7.4", 0, "TLS", "version"}.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
}

// What was said in plaintext is forgotten under TLS (RFC 3207 §4.2).
func TestExtensionsAreForgottenUnderTLS(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{
		{At: "EHLO", N: 1, Reply: "250-r\n250-STARTTLS\n250-AUTH LOGIN\n250 SIZE 1"},
		{At: "EHLO", N: 2, Reply: "250-r\n250 8BITMIME"},
	}})
	want{"2", 250, "dot", ""}.check(t, newRelay(t, settings(server, withTLS(config.StartTLS)), patient()).Deliver(t.Context(), one())[0])
	never(t, server, "SIZE=")
	if got, want := server.Commands()[:3], []string{"EHLO client.test", "STARTTLS", "EHLO client.test"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A ca_file that is not there, or holds nothing, defers; once mended, mail goes.
func TestUnusableCAFileDefers(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit})
	c := settings(server, withTLS(config.Implicit))
	good := c.CAFile
	c.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	r := newRelay(t, c, patient())
	want{"4.7.5", 0, "connect", "ca_file.*no such file"}.check(t, r.Deliver(t.Context(), one())[0])
	os.WriteFile(c.CAFile, []byte("nothing"), 0o600)
	want{"4.7.5", 0, "connect", "holds no certificate"}.check(t, r.Deliver(t.Context(), one())[0])
	pem, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(c.CAFile, pem, 0o600)
	want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
}

// Without a dot in the host name the address stands in; localhost never does.
func TestEHLOName(t *testing.T) {
	for name, wire := range map[string]string{
		"client.test": "client.test", "client.test.": "client.test", "box": "[127.0.0.1]", "": "[127.0.0.1]",
		"localhost": "[127.0.0.1]", "a.test\r\nRSET": "[127.0.0.1]", "192.0.2.1": "[127.0.0.1]",
	} {
		server := relaytest.New(t, relaytest.Options{TLS: relaytest.StartTLS})
		r, err := New(settings(server, withTLS(config.StartTLS)), patient(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
		r.Close()
		for _, line := range server.Commands() {
			if rest, ok := strings.CutPrefix(line, "EHLO "); ok && rest != wire {
				t.Errorf("hostname %q: EHLO %s, want %s", name, rest, wire)
			}
		}
	}
}

// Credentials go by a mechanism that is offered, or nothing goes at all.
func TestAUTH(t *testing.T) {
	users := map[string]string{"u": password}
	offer := func(lines ...string) []relaytest.Rule {
		return []relaytest.Rule{{At: "EHLO", Reply: "250-r\n250-" + strings.Join(lines, "\n250-") + "\n250 OK"}}
	}
	auth := func(method config.AuthMethod) func(*config.Relay) {
		return func(c *config.Relay) { withLogin(c); c.Auth = method }
	}
	for _, tt := range []struct {
		name   string
		change func(*config.Relay)
		rules  []relaytest.Rule
		want   want
		said   string // "" is no AUTH at all
	}{
		{"PLAIN first", withLogin, nil, want{"2", 250, "dot", ""}, "^AUTH PLAIN AHUAWnE3LXNlY3JldA==$"},
		{"LOGIN by order", auth(config.AuthLogin), nil, want{"2", 250, "dot", ""}, "^AUTH LOGIN$"},
		{"LOGIN alone", withLogin, offer("auth login"), want{"2", 250, "dot", ""}, "^AUTH LOGIN$"},
		{"old form", withLogin, offer("AUTH=LOGIN"), want{"2", 250, "dot", ""}, "^AUTH LOGIN$"},
		{"both forms", withLogin, offer("AUTH=LOGIN", "AUTH DIGEST-MD5 PLAIN"), want{"2", 250, "dot", ""}, "^AUTH PLAIN "},
		{"PLAIN wanted and not offered", auth(config.AuthPlain), offer("AUTH LOGIN"), want{"4.7.9", 0, "AUTH", "PLAIN.*LOGIN"}, ""},
		{"no AUTH offered", withLogin, offer("SIZE"), want{"4.7.9", 0, "AUTH", "no usable AUTH"}, ""},
		{"only what we do not speak", withLogin, offer("AUTH DIGEST-MD5"), want{"4.7.9", 0, "AUTH", "DIGEST-MD5"}, ""},
		{"wrong password", func(c *config.Relay) { c.Username, c.Password = "u", "Zq7-wrong" }, nil, want{"4.7.8", 535, "AUTH", "wrong user name"}, "^AUTH PLAIN "},
		{"retired", withLogin, []relaytest.Rule{{At: "AUTH", Reply: "550 5.7.30 not supported"}}, want{"4.7.30", 550, "AUTH", ""}, "^AUTH PLAIN "},
		{"throttled", withLogin, []relaytest.Rule{{At: "AUTH", Reply: "454 4.7.0 later"}}, want{"4.7.0", 454, "AUTH", ""}, "^AUTH PLAIN "},
		{"next mechanism", withLogin, []relaytest.Rule{{At: "AUTH", N: 1, Reply: "504 5.5.4 mechanism"}}, want{"2", 250, "dot", ""}, "^AUTH LOGIN$"},
		{"closed", withLogin, []relaytest.Rule{{At: "AUTH", Do: relaytest.Close}}, want{"4.4.2", 0, "AUTH", ""}, "^AUTH PLAIN "},
		{"challenged for ever", auth(config.AuthLogin), []relaytest.Rule{{At: "AUTH", Reply: "334 again"}}, want{"4.", 500, "AUTH", ""}, "^AUTH LOGIN$"},
		{"password missing", func(c *config.Relay) { c.Username = "u" }, nil, want{"4.7.8", 0, "AUTH", "missing"}, ""},
		{"password file missing", func(c *config.Relay) { c.Username, c.PasswordFile = "u", "/nonexistent/password" }, nil, want{"4.7.8", 0, "AUTH", "no such file"}, ""},
		{"none but set", auth(config.AuthNone), nil, want{"4.7.8", 0, "AUTH", "none"}, ""},
		{"no credentials", func(*config.Relay) {}, nil, want{"4.7.0", 530, "MAIL", ""}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, Users: users, Rules: tt.rules})
			reply := newRelay(t, settings(server, withTLS(config.Implicit), tt.change), patient()).Deliver(t.Context(), one())[0]
			tt.want.check(t, reply)
			if tt.said == "" {
				never(t, server, "^AUTH")
			} else {
				said(t, server, tt.said)
			}
			if reply.Class() != spool.Success && reply.Command == "AUTH" {
				never(t, server, "^MAIL")
			}
		})
	}
}

// A long initial response goes in a line of its own, since command lines are short.
func TestLongCredentials(t *testing.T) {
	long := strings.Repeat("p", 600)
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, Users: map[string]string{"u": long}})
	c := settings(server, withTLS(config.Implicit), func(c *config.Relay) { c.Username, c.Password = "u", config.Secret(long) })
	want{"2", 250, "dot", ""}.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
	said(t, server, "^AUTH PLAIN$")
}

// No credentials in plaintext, but on this machine.
func TestCredentialsNeedTLS(t *testing.T) {
	server := relaytest.New(t, relaytest.Options{Users: map[string]string{"u": password}})
	r := newRelay(t, settings(server, withLogin), patient())
	want{"2", 250, "dot", ""}.check(t, r.Deliver(t.Context(), one())[0])
	for addr, local := range map[string]bool{"127.0.0.1:25": true, "[::1]:25": true, "[::ffff:127.0.0.1]:25": true, "192.0.2.1:25": false, "[2001:db8::1]:25": false} {
		if got := loopback(place(addr)); got != local {
			t.Errorf("loopback(%s) = %v, want %v", addr, got, local)
		}
	}
}

// wiretap is a connection to elsewhere that answers nothing and records.
type wiretap struct {
	speech
	sent *strings.Builder
}

func (wiretap) RemoteAddr() net.Addr          { return place("192.0.2.1:587") }
func (w wiretap) Write(p []byte) (int, error) { return w.sent.Write(p) }

func TestNoCredentialsInPlaintext(t *testing.T) {
	conn := wiretap{speech{strings.NewReader("235 fine\r\n")}, &strings.Builder{}}
	s := &session{w: newWire(conn, conn), ext: extensions{"AUTH": "PLAIN LOGIN"}, pool: newPool(&peer{time: patient()}, 1, 1, config.Rate{})}
	refused := s.authenticate(config.AuthAuto, &login{username: "u", password: password})
	if refused == nil || conn.sent.Len() != 0 {
		t.Fatalf("got %v after sending %q, want a refusal and nothing sent", refused, conn.sent)
	}
	want{"4.7.11", 0, "AUTH", "under TLS only"}.check(t, refused.Reply)
}

type place string

func (place) Network() string  { return "tcp" }
func (p place) String() string { return string(p) }

// A server that quotes what it was sent does not get the password into a Reply.
func TestNoSecretInReplies(t *testing.T) {
	whole := base64.StdEncoding.EncodeToString([]byte("\x00u\x00" + password))
	half := base64.StdEncoding.EncodeToString([]byte(password))
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, Users: map[string]string{"u": "other"}, Rules: []relaytest.Rule{
		{At: "AUTH", Reply: "535-5.7.8 " + whole + "\n535 5.7.8 what is " + half + " or " + password},
	}})
	reply := newRelay(t, settings(server, withTLS(config.Implicit), withLogin), patient()).Deliver(t.Context(), one())[0]
	if regexp.MustCompile(regexp.QuoteMeta(whole) + "|" + regexp.QuoteMeta(half) + "|" + password).MatchString(reply.String()) {
		t.Errorf("the password is in %+v", reply)
	}
	want{"4.7.8", 535, "AUTH", "what is … or …"}.check(t, reply)
}

// What MAIL and RCPT say depends on the offer and on the message.
func TestParameters(t *testing.T) {
	for _, tt := range []struct {
		name   string
		offer  []string
		change func(*spool.Message)
		want   want
		mail   string // regular expression, whole line
		rcpt   string
	}{
		{"nothing offered", []string{}, func(*spool.Message) {}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test>`, `RCPT TO:<a@x\.test>`},
		{"7 bit", []string{"8BITMIME"}, func(*spool.Message) {}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test>`, ""},
		{"8 bit", []string{"8bitmime"}, func(m *spool.Message) { m.EightBit = true }, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test> BODY=8BITMIME`, ""},
		{"8 bit, not offered", []string{}, func(m *spool.Message) { m.EightBit = true }, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test>`, ""},
		{"size", []string{"Size 100000"}, func(*spool.Message) {}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test> SIZE=22`, ""},
		{"size without limit", []string{"SIZE"}, func(*spool.Message) {}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test> SIZE=22`, ""},
		{"size 0", []string{"SIZE 0"}, func(*spool.Message) {}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test> SIZE=22`, ""},
		{"size of words", []string{"SIZE lots"}, func(*spool.Message) {}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test>`, ""},
		{"too large", []string{"SIZE 21"}, func(*spool.Message) {}, want{"5.3.4", 0, "MAIL", "22 octets"}, "", ""},
		{"utf8", []string{"SMTPUTF8"}, func(m *spool.Message) { m.UTF8, m.EightBit = true, true }, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test> SMTPUTF8`, ""},
		{"utf8 by address", []string{"SMTPUTF8"}, func(m *spool.Message) { m.Recipients[0].Address.Local = "ü" }, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test> SMTPUTF8`, `RCPT TO:<ü@x\.test>`},
		{"utf8 of no consequence, not offered", []string{}, func(m *spool.Message) { m.UTF8 = true }, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test>`, ""},
		{"utf8 by sender, not offered", []string{}, func(m *spool.Message) { m.Sender.Local = "ü" }, want{"5.6.7", 0, "MAIL", "sender"}, "", ""},
		{"domain in A-labels", []string{}, func(m *spool.Message) {
			m.UTF8, m.Sender.Domain, m.Recipients[0].Address.Domain = true, "straße.test", "Bücher.test"
		}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@xn--strae-oqa\.test>`, `RCPT TO:<a@xn--bcher-kva\.test>`},
		{"utf8 by address, not offered", []string{}, func(m *spool.Message) { m.Recipients[0].Address.Local = "ü" }, want{"5.6.7", 0, "RCPT", ""}, "", ""},
		{"dsn", []string{"DSN"}, func(m *spool.Message) {
			m.Return, m.EnvelopeID = "HDRS", "a+b"
			m.Recipients[0].Notify, m.Recipients[0].Original = []string{"SUCCESS", "FAILURE"}, "rfc822;o@x.test"
		}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test> RET=HDRS ENVID=a\+2Bb`, `RCPT TO:<a@x\.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o@x\.test`},
		{"dsn, not offered", []string{}, func(m *spool.Message) {
			m.Return, m.EnvelopeID = "HDRS", "ab"
			m.Recipients[0].Notify = []string{"NEVER"}
		}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test>`, `RCPT TO:<a@x\.test>`},
		{"dsn, garbage", []string{"DSN"}, func(m *spool.Message) {
			m.Return, m.EnvelopeID = "ALL", "a\r\nb"
			m.Recipients[0].Notify, m.Recipients[0].Original = []string{"SOMETIMES", "NEVER", "DELAY"}, "rfc822;o\x01"
		}, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test>`, `RCPT TO:<a@x\.test> NOTIFY=NEVER`},
		{"TLS required, none here", []string{"REQUIRETLS"}, func(m *spool.Message) { m.RequireTLS = true }, want{"5.7.30", 0, "MAIL", "proves"}, "", ""},
		{"TLS required, a report", []string{}, func(m *spool.Message) { m.RequireTLS, m.Sender = true, address.Address{} }, want{"2", 250, "dot", ""}, `MAIL FROM:<>`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := relaytest.New(t, relaytest.Options{Extensions: tt.offer})
			b := one()
			tt.change(b.Message)
			tt.want.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), b)[0])
			if tt.mail == "" {
				never(t, server, "^MAIL")
			} else {
				said(t, server, "^"+tt.mail+"$")
			}
			if tt.rcpt != "" {
				said(t, server, "^"+tt.rcpt+"$")
			}
		})
	}
}

// Mail that requires TLS goes over a session that proves who the host is, to one that
// requires it in turn (RFC 8689 §4.2.1), and to the next host when this one does not.
func TestRequiredTLS(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tls    relaytest.TLS
		cert   relaytest.Cert
		offer  []string
		policy config.TLSPolicy
		null   bool
		want   want
		mail   string
	}{
		{"proven", relaytest.StartTLS, relaytest.Valid, []string{"REQUIRETLS"}, config.StartTLS, false, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test> REQUIRETLS`},
		{"proven though nobody asked", relaytest.StartTLS, relaytest.Valid, []string{"requiretls"}, config.Opportunistic, false, want{"2", 250, "dot", ""}, `MAIL FROM:<s@sender\.test> REQUIRETLS`},
		{"a report", relaytest.Implicit, relaytest.Valid, []string{"REQUIRETLS"}, config.Implicit, true, want{"2", 250, "dot", ""}, `MAIL FROM:<> REQUIRETLS`},
		{"not offered", relaytest.Implicit, relaytest.Valid, []string{}, config.Implicit, false, want{"5.7.30", 0, "MAIL", "REQUIRETLS"}, ""},
		{"somebody's certificate", relaytest.StartTLS, relaytest.SelfSigned, []string{"REQUIRETLS"}, config.Opportunistic, false, want{"5.7.30", 0, "MAIL", "proves"}, ""},
		{"no TLS", relaytest.Plain, relaytest.Valid, []string{"REQUIRETLS"}, config.Opportunistic, false, want{"5.7.30", 0, "MAIL", "proves"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := relaytest.New(t, relaytest.Options{TLS: tt.tls, Cert: tt.cert, Extensions: tt.offer})
			r := newRelay(t, settings(server, withTLS(tt.policy)), patient())
			b := one()
			b.Message.RequireTLS = true
			if tt.null {
				b.Message.Sender = address.Address{}
			}
			tt.want.check(t, r.Deliver(t.Context(), b)[0])
			if tt.mail == "" {
				never(t, server, "^MAIL")
			} else {
				said(t, server, "^"+tt.mail+"$")
			}
			tt.want = want{"2", 250, "dot", ""}
			tt.want.check(t, r.Deliver(t.Context(), one())[0]) // what requires nothing is as it was
		})
	}
}

// A mail exchanger that has our name gets nothing, whatever its DNS name is. One that
// the operator chose may have it, and a name without a dot is nobody's.
func TestExchangerWithOurNameIsALoop(t *testing.T) {
	for _, tt := range []struct {
		ours, reply, older string
		notUs              bool
		want               want
	}{
		{"Client.test", "250-client.TEST hello\n250 SIZE", "", true, want{"4.4.6", 0, "EHLO", "hostname of its own"}},
		{"client.test", "502 what", "250 client.test", true, want{"4.4.6", 0, "HELO", "client.test"}},
		{"client.test", "250 client.test hello", "", false, want{"2", 250, "dot", ""}},
		{"client.test", "250 mail.client.test", "", true, want{"2", 250, "dot", ""}},
		{"client.test", "250 ", "", true, want{"2", 250, "dot", ""}},
		{"localhost", "250 localhost", "", true, want{"2", 250, "dot", ""}},
	} {
		rules := []relaytest.Rule{{At: "EHLO", Reply: tt.reply}}
		if tt.older != "" {
			rules = append(rules, relaytest.Rule{At: "HELO", Reply: tt.older})
		}
		server := relaytest.New(t, relaytest.Options{Rules: rules})
		p := newPool(&peer{network: "tcp", address: server.Addr(), host: "mx.test", policy: config.Opportunistic, hello: tt.ours, notUs: tt.notUs, time: patient()},
			1, 100, config.Rate{})
		t.Cleanup(p.close)
		tt.want.check(t, send(t, p, one())[0])
		if tt.want.status == "4.4.6" {
			never(t, server, "^(STARTTLS|MAIL)")
		}
	}
}
