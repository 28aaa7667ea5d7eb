package relay

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/spool"
)

// Of what is offered the strongest is taken, a declined one is followed by the next,
// and what goes wrong is the operator's to mend: it is deferred, without MAIL.
func TestAUTHMechanisms(t *testing.T) {
	const all = "AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER"
	good := want{"2", 250, "dot", ""}
	forged := want{"4.7.8", 0, "AUTH", "did not prove"}
	reply := func(n int, text string) []relaytest.Rule {
		return []relaytest.Rule{{At: "AUTHRESP", N: n, Reply: text}}
	}
	for _, tt := range []struct {
		name, offer string
		method      config.AuthMethod
		password    config.Secret
		rules       []relaytest.Rule
		want        want
		said        string // the AUTH commands, with a space behind each
	}{
		{"SCRAM first", all, config.AuthAuto, password, nil, good, "SCRAM-SHA-256 "},
		{"CRAM before PLAIN", "AUTH PLAIN LOGIN CRAM-MD5", config.AuthAuto, password, nil, good, "CRAM-MD5 "},
		{"PLAIN before LOGIN", "AUTH LOGIN PLAIN XOAUTH2", config.AuthAuto, password, nil, good, "PLAIN "},
		{"a password is no token", "AUTH XOAUTH2 OAUTHBEARER", config.AuthAuto, password, nil, want{"4.7.9", 0, "AUTH", "no usable"}, ""},
		{"scram-sha-256", all, config.AuthSCRAM, password, nil, good, "SCRAM-SHA-256 "},
		{"cram-md5", all, config.AuthCRAMMD5, password, nil, good, "CRAM-MD5 "},
		{"xoauth2", all, config.AuthXOAUTH2, password, nil, good, "XOAUTH2 "},
		{"oauthbearer", all, config.AuthOAuthBearer, password, nil, good, "OAUTHBEARER "},
		{"not offered", "AUTH PLAIN", config.AuthSCRAM, password, nil, want{"4.7.9", 0, "AUTH", "SCRAM-SHA-256.*PLAIN"}, ""},
		{"wrong by SCRAM", all, config.AuthAuto, "Zq7-wrong", nil, want{"4.7.8", 535, "AUTH", ""}, "SCRAM-SHA-256 "},
		{"wrong by CRAM", all, config.AuthCRAMMD5, "Zq7-wrong", nil, want{"4.7.8", 535, "AUTH", ""}, "CRAM-MD5 "},
		{"expired token", all, config.AuthXOAUTH2, "Zq7-wrong", nil, want{"4.7.8", 535, "AUTH", ""}, "XOAUTH2 "},
		{"expired bearer", all, config.AuthOAuthBearer, "Zq7-wrong", nil, want{"4.7.8", 535, "AUTH", ""}, "OAUTHBEARER "},
		{"all declined", all, config.AuthAuto, password, []relaytest.Rule{{At: "AUTH", Reply: "534 5.7.9 weak"}}, want{"4.7.9", 534, "AUTH", ""}, "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN "},
		{"encryption wanted", all, config.AuthAuto, password, []relaytest.Rule{{At: "AUTH", N: 1, Reply: "538 5.7.11 no"}}, good, "SCRAM-SHA-256 CRAM-MD5 "},
		{"throttled", all, config.AuthAuto, password, []relaytest.Rule{{At: "AUTH", Reply: "454 4.7.0 later"}}, want{"4.7.0", 454, "AUTH", ""}, "SCRAM-SHA-256 "},
		{"throttled within", all, config.AuthAuto, password, reply(1, "454 4.7.0 later"), want{"4.7.0", 454, "AUTH", ""}, "SCRAM-SHA-256 "},
		{"closed within", all, config.AuthAuto, password, []relaytest.Rule{{At: "AUTHRESP", Do: relaytest.Close}}, want{"4.4.2", 0, "AUTH", ""}, "SCRAM-SHA-256 "},
		{"wrong signature", all, config.AuthAuto, password, reply(2, "334 "+encode([]byte("v=AAAA"))), forged, "SCRAM-SHA-256 "},
		{"an error for a signature", all, config.AuthAuto, password, reply(2, "334 "+encode([]byte("e=invalid-proof"))), forged, "SCRAM-SHA-256 "},
		{"no signature", all, config.AuthAuto, password, reply(2, "235 2.7.0 ok"), forged, "SCRAM-SHA-256 "},
		{"no dialogue", all, config.AuthAuto, password, []relaytest.Rule{{At: "AUTH", Reply: "235 2.7.0 ok"}}, forged, "SCRAM-SHA-256 "},
		{"somebody else's nonce", all, config.AuthAuto, password, reply(1, "334 "+encode([]byte("r=other,s=AAAA,i=4096"))), forged, "SCRAM-SHA-256 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rules := append(tt.rules, relaytest.Rule{At: "EHLO", Reply: "250-r\n250 " + tt.offer})
			server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, Users: map[string]string{"u": password}, Rules: rules})
			c := settings(server, withTLS(config.Implicit), func(c *config.Relay) { c.Username, c.Password, c.Auth = "u", tt.password, tt.method })
			r := newRelay(t, c, patient()).Deliver(t.Context(), one())[0]
			tt.want.check(t, r)
			if r.Class() != spool.Success {
				never(t, server, "^MAIL")
			}
			if got := authCommands(server); got != tt.said {
				t.Errorf("said AUTH %q, want %q", got, tt.said)
			}
		})
	}
}

// Where the server has SCRAM-SHA-256-PLUS the login is bound to the connection, by what
// its version of TLS has; who takes the offer away on the way gets no login.
func TestSCRAMIsBoundToTheConnection(t *testing.T) {
	good, bad := want{"2", 250, "dot", ""}, want{"4.7.8", 535, "AUTH", ""}
	plus := "AUTH SCRAM-SHA-256 SCRAM-SHA-256-PLUS PLAIN"
	for _, tt := range []struct {
		name, offer string
		version     uint16
		plus        bool
		want        want
		said        string
	}{
		{"TLS 1.3", plus, tls.VersionTLS13, true, good, "p=tls-exporter"},
		{"TLS 1.2", plus, tls.VersionTLS12, true, good, "p=tls-unique"},
		{"not offered", "AUTH SCRAM-SHA-256", tls.VersionTLS13, false, good, "y"},
		{"taken away", "AUTH SCRAM-SHA-256", tls.VersionTLS13, true, bad, "y"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, MaxTLS: tt.version, Plus: tt.plus,
				Users: map[string]string{"u": password}, Extensions: []string{tt.offer}})
			c := settings(server, withTLS(config.Implicit), withLogin, func(c *config.Relay) { c.Auth = config.AuthSCRAM })
			tt.want.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
			for _, line := range server.Commands() {
				if words := strings.Fields(line); strings.HasPrefix(line, "AUTH ") {
					initial, _ := base64.StdEncoding.DecodeString(words[len(words)-1])
					if flag, _, _ := strings.Cut(string(initial), ","); flag != tt.said || (flag[0] == 'p') != (words[1] == scramPlus) {
						t.Errorf("said %s %s, want %s", words[1], initial, tt.said)
					}
				}
			}
		})
	}
	// The certificate is what is left of TLS 1.2 without RFC 7627.
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, Users: map[string]string{"u": password}, Extensions: []string{plus}})
	conn, err := tls.Dial("tcp", server.Addr(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	state := conn.ConnectionState()
	state.Version = tls.VersionTLS12
	if b := bindingOf(state); b.kind != "tls-server-end-point" || len(b.data) != sha256.Size {
		t.Errorf("bound by %+v", b)
	}
}

// authCommands are the mechanisms asked for, with a space behind each.
func authCommands(server *relaytest.Server) string {
	var said strings.Builder
	for _, line := range server.Commands() {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "AUTH" {
			said.WriteString(words[1] + " ")
		}
	}
	return said.String()
}

// The dialogues are those printed in the standards.
func TestMechanismsSayWhatTheirStandardsSay(t *testing.T) {
	scram := &scramClient{name: scramSHA256, login: login{username: "user", password: "pencil"}, nonce: "rOprNGfwEbeRWgbNEkqO"} // RFC 7677 §3
	_, initial, _ := scram.Start()
	final, err := scram.Next([]byte("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"))
	if err != nil || string(initial) != "n,,n=user,r=rOprNGfwEbeRWgbNEkqO" ||
		string(final) != "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=" {
		t.Errorf("SCRAM: %s, %s, %v", initial, final, err)
	}
	if _, err := scram.Next([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err != nil || unproved(scram) {
		t.Errorf("SCRAM signature: %v", err)
	}
	wrong := &scramClient{nonce: "n"}
	for at, challenge := range []string{"r=nm,s=AAAA,i=1", "e=invalid-proof", "e=invalid-proof"} {
		if _, err := wrong.Next([]byte(challenge)); (err != nil) != (at == 2) || !unproved(wrong) {
			t.Errorf("SCRAM, challenge %d: %v; want an end after the error", at, err)
		}
	}
	cram := &cramClient{login: login{username: "tim", password: "tanstaaftanstaaf"}} // RFC 2195 §2
	if got, err := cram.Next([]byte("<1896.697170952@postoffice.reston.mci.net>")); err != nil || string(got) != "tim b913a602c7eda7a495b4e6e7334d3890" {
		t.Errorf("CRAM-MD5: %s, %v", got, err)
	}
	l := login{username: "user@example.com", password: "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="} // RFC 7628 §4.1
	_, initial, _ = l.mechanism("OAUTHBEARER", "server.example.com:143", binding{}).Start()
	if string(initial) != "n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01" {
		t.Errorf("OAUTHBEARER: %q", initial)
	}
}

// Whatever a server quotes of a dialogue, no answer of ours gets into a Reply.
func TestNoAnswerInReplies(t *testing.T) {
	l := login{username: "u", password: password}
	_, token, _ := l.mechanism(xoauth2, "", binding{}).Start()
	secret := encode(token)
	server := relaytest.New(t, relaytest.Options{TLS: relaytest.Implicit, Users: map[string]string{"u": password}, Rules: []relaytest.Rule{
		{At: "EHLO", Reply: "250-r\n250 AUTH XOAUTH2"},
		{At: "AUTH", Reply: "535 5.7.8 what is " + secret + " of " + password},
	}})
	c := settings(server, withTLS(config.Implicit), withLogin, func(c *config.Relay) { c.Auth = config.AuthXOAUTH2 })
	reply := newRelay(t, c, patient()).Deliver(t.Context(), one())[0]
	want{"4.7.8", 535, "AUTH", "what is … of …"}.check(t, reply)
	said := []string{password, encode([]byte(password)), "dSBmNw=="}
	if got := redact([]string{"what is dSBmNw== and " + password}, said); !slices.Equal(got, []string{"what is … and …"}) {
		t.Errorf("redacted to %q", got)
	}
}

// A challenge of SCRAM is read whole or not at all, and never asks for endless work.
func FuzzParseChallenge(f *testing.F) {
	f.Add("r=a,s=AAAA,i=4096")
	f.Add("r=a,s=AAAA,i=99999999999")
	f.Add("m=x,r=a,s=AAAA,i=1")
	f.Fuzz(func(t *testing.T, s string) {
		nonce, salt, n, err := parseChallenge(s)
		if err == nil && (n < 1 || n > maxIterations || len(salt) == 0 || !strings.HasPrefix(s, "r="+nonce+",s=")) {
			t.Errorf("%q: nonce %q, salt %q, %d iterations", s, nonce, salt, n)
		}
	})
}
