package relay

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postino/config"
	"postino/delivery/dns/dnstest"
	"postino/delivery/relay/relaytest"
	"postino/delivery/tlspolicy"
	"postino/spool"
	"postino/spool/address"
)

// tlsaName is where the TLSA records of mx1.test are.
func (x *exchange) tlsaName() string { return fmt.Sprintf("_%d._tcp.mx1.test.", x.config.Port) }

// keyOf is a record of usage 3 1 1 for a server.
func (x *exchange) keyOf(s *relaytest.Server) string {
	pin := s.Pin()
	return x.tlsaName() + " 0 TLSA 3 1 1 " + hex.EncodeToString(pin[:])
}

// one has x.test have no exchanger but mx1.test, and adds rows to the zone.
func (x *exchange) one(rows dnstest.Zone) {
	zone := dnstest.Zone{"x.test. MX": {"x.test. 0 MX 10 mx1.test."}, "mx1.test. A": {"mx1.test. 0 A 127.12.0.1"}}
	for name, row := range rows {
		zone[name] = row
	}
	x.dns.Set(zone)
}

// Records that were validated decide to whom mail is sent, and nothing is sent when
// they cannot be met or cannot be had.
func TestDANE(t *testing.T) {
	t.Parallel()
	wrong := "3 1 1 " + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		name   string
		server relaytest.Options
		tlsa   []string // "" is the key of the server
		zone   dnstest.Zone
		want   string // status, and how it was protected
		text   string
	}{
		{"the right key", relaytest.Options{TLS: relaytest.StartTLS, Cert: relaytest.Expired}, []string{""}, nil, "2.0.0 TLS1.3 dane", ""},
		{"another key", relaytest.Options{TLS: relaytest.StartTLS}, []string{wrong}, nil, "4.7.5 ", "DANE demands"},
		{"a roll-over", relaytest.Options{TLS: relaytest.StartTLS}, []string{wrong, ""}, nil, "2.0.0 TLS1.3 dane", ""},
		{"STARTTLS taken away", relaytest.Options{}, []string{""}, nil, "4.7.4 ", "DANE demands TLS of mx1.test"},
		{"STARTTLS declined", relaytest.Options{TLS: relaytest.StartTLS, Rules: []relaytest.Rule{{At: "STARTTLS", Reply: "454 4.7.0 no"}}}, []string{""}, nil, "4.7.0 ", ""},
		{"nothing of use", relaytest.Options{TLS: relaytest.StartTLS}, []string{"1 1 1 " + strings.Repeat("ab", 32)}, nil, "2.0.0 TLS1.3 unverified", ""},
		{"nothing of use, and no TLS", relaytest.Options{}, []string{"1 1 1 " + strings.Repeat("ab", 32)}, nil, "4.7.4 ", "DANE demands TLS"},
		{"none", relaytest.Options{TLS: relaytest.StartTLS}, nil, nil, "2.0.0 TLS1.3 unverified", ""},
		{"not to be found out", relaytest.Options{TLS: relaytest.StartTLS}, []string{"SERVFAIL"}, nil, "4.7.5 ", "cannot be found out"},
		{"not validated", relaytest.Options{TLS: relaytest.StartTLS}, []string{wrong, "insecure"}, nil, "2.0.0 TLS1.3 unverified", ""},
		{"exchangers not validated", relaytest.Options{TLS: relaytest.StartTLS}, []string{wrong}, dnstest.Zone{"x.test. MX": {"insecure", "x.test. 0 MX 10 mx1.test."}}, "2.0.0 TLS1.3 unverified", ""},
		{"addresses not validated, and records not to be had", relaytest.Options{TLS: relaytest.StartTLS}, []string{"SERVFAIL"}, dnstest.Zone{"mx1.test. A": {"insecure", "mx1.test. 0 A 127.12.0.1"}}, "2.0.0 TLS1.3 unverified", ""},
		{"by an alias to what is not validated", relaytest.Options{TLS: relaytest.StartTLS}, []string{wrong}, dnstest.Zone{"x.test. MX": {"x.test. 0 MX 1 mx1.test."},
			"mx1.test. A": {"mx1.test. 0 CNAME far.test."}, "mx1.test. CNAME": {"mx1.test. 0 CNAME far.test."}, "far.test. A": {"insecure", "far.test. 0 A 127.12.0.1"}}, "4.7.5 ", "DANE demands"},
		{"by an alias that is not validated either", relaytest.Options{TLS: relaytest.StartTLS}, []string{wrong}, dnstest.Zone{"x.test. MX": {"x.test. 0 MX 1 mx1.test."},
			"mx1.test. A": {"insecure", "mx1.test. 0 CNAME far.test."}, "mx1.test. CNAME": {"insecure", "mx1.test. 0 CNAME far.test."}, "far.test. A": {"far.test. 0 A 127.12.0.1"}}, "2.0.0 TLS1.3 unverified", ""},
		{"by an alias", relaytest.Options{TLS: relaytest.StartTLS}, []string{""}, dnstest.Zone{"x.test. MX": {"x.test. 0 MX 1 alias.test."}, "alias.test. A": {"alias.test. 0 CNAME mx1.test."}}, "2.0.0 TLS1.3 dane", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := newExchange(t, tt.server)
			x.dns.Validate()
			zone := dnstest.Zone{}
			for _, record := range tt.tlsa {
				switch {
				case record == "":
					record = x.keyOf(x.mx[0])
				case strings.Contains(record, " "):
					record = x.tlsaName() + " 0 TLSA " + record
				}
				zone[x.tlsaName()+" TLSA"] = append(zone[x.tlsaName()+" TLSA"], record)
			}
			for name, rows := range tt.zone {
				zone[name] = rows
			}
			x.one(zone)
			got := x.send("a@x.test")[0]
			if is := got.Status + " " + got.TLS; is != tt.want || !strings.Contains(got.Text, tt.text) {
				t.Errorf("%+v, want %s %s", got, tt.want, tt.text)
			}
			if n := len(x.mx[0].Messages()); (n == 1) != (got.Class() == spool.Success) {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
}

// Records of an authority prove whom it issued a certificate to, by the certificate that
// is sent or by the one, or the key, that the record holds; and the name counts.
func TestDANEByAnAuthority(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		selector, matching int
		cert               relaytest.Cert
		want               string
	}{
		{0, 0, relaytest.Chained, "2.0.0 TLS1.3 dane"}, {1, 0, relaytest.Chained, "2.0.0 TLS1.3 dane"},
		{0, 1, relaytest.Chained, "2.0.0 TLS1.3 dane"}, {1, 2, relaytest.Chained, "2.0.0 TLS1.3 dane"},
		{0, 0, relaytest.Valid, "2.0.0 TLS1.3 dane"}, {1, 0, relaytest.Valid, "2.0.0 TLS1.3 dane"},
		{0, 1, relaytest.Valid, "4.7.5 "}, {1, 2, relaytest.Valid, "4.7.5 "},
		{1, 0, relaytest.SelfSigned, "4.7.5 "}, {0, 0, relaytest.SelfSigned, "4.7.5 "},
		{1, 0, relaytest.WrongName, "4.7.5 "}, {0, 0, relaytest.WrongName, "4.7.5 "},
		{1, 0, relaytest.Expired, "4.7.5 "}, {0, 0, relaytest.Expired, "4.7.5 "},
	} {
		t.Run(fmt.Sprintf("2 %d %d, certificate %d", tt.selector, tt.matching, tt.cert), func(t *testing.T) {
			t.Parallel()
			x := newExchange(t, relaytest.Options{TLS: relaytest.StartTLS, Cert: tt.cert})
			x.dns.Validate()
			text, err := os.ReadFile(x.mx[0].CAFile())
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(text)
			ca, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			data := ca.Raw
			if tt.selector == 1 {
				data = ca.RawSubjectPublicKeyInfo
			}
			switch tt.matching {
			case 1:
				sum := sha256.Sum256(data)
				data = sum[:]
			case 2:
				sum := sha512.Sum512(data)
				data = sum[:]
			}
			x.one(dnstest.Zone{x.tlsaName() + " TLSA": {fmt.Sprintf("%s 0 TLSA 2 %d %d %x", x.tlsaName(), tt.selector, tt.matching, data)}})
			got := x.send("a@x.test")[0]
			if is := got.Status + " " + got.TLS; is != tt.want {
				t.Errorf("%+v, want %s", got, tt.want)
			}
		})
	}
}

// A resolver that is not asked in confidence, or does not validate, proves nothing.
func TestDANENeedsAValidatingResolver(t *testing.T) {
	t.Parallel()
	x := newExchange(t, relaytest.Options{TLS: relaytest.StartTLS})
	x.one(dnstest.Zone{x.tlsaName() + " TLSA": {x.tlsaName() + " 0 TLSA 3 1 1 " + strings.Repeat("ab", 32)}})
	if got := x.send("a@x.test")[0]; got.Class() != spool.Success || strings.Contains(strings.Join(x.dns.Asked(), " "), "TLSA") {
		t.Errorf("%+v; asked %q", got, x.dns.Asked())
	}
}

// The next exchanger is asked where one does not prove to be what it should, and never
// is one tried in plaintext.
func TestWhereOneFailsThePolicyAnotherIsTried(t *testing.T) {
	t.Parallel()
	x := newExchange(t, relaytest.Options{TLS: relaytest.StartTLS}, relaytest.Options{TLS: relaytest.StartTLS})
	x.dns.Validate()
	x.one(dnstest.Zone{"x.test. MX": {"x.test. 0 MX 10 mx1.test.", "x.test. 0 MX 20 mx2.test."}, "mx2.test. A": x.zone["mx2.test. A"],
		x.tlsaName() + " TLSA": {"SERVFAIL"}})
	if got := x.send("a@x.test")[0]; got.Class() != spool.Success || x.mx[0].Connections() != 0 {
		t.Errorf("%+v, %d connections to the first", got, x.mx[0].Connections())
	}
}

// That a server's TLS is broken is remembered for those who may do without, and for
// nobody else; and what one domain demands does no harm to another.
func TestDemandsAreOfTheirDomainAlone(t *testing.T) {
	t.Parallel()
	x := newExchange(t, relaytest.Options{TLS: relaytest.StartTLS})
	x.dns.Validate()
	zone := dnstest.Zone{"y.test. MX": {"insecure", "y.test. 0 MX 10 mx1.test."}, x.tlsaName() + " TLSA": {x.tlsaName() + " 0 TLSA 3 1 1 " + strings.Repeat("ab", 32)}}
	x.one(zone)
	for range 2 * failuresToOpen {
		if got := x.send("a@x.test")[0]; got.Status != "4.7.5" || strings.Contains(got.Text, "not tried again") {
			t.Errorf("x.test: %+v", got)
		}
	}
	if got := x.send("a@y.test")[0]; got.Class() != spool.Success || got.TLS != "TLS1.3 unverified" {
		t.Errorf("y.test: %+v", got)
	}
	x.mx[0].SetRules(relaytest.Rule{At: "tls", Do: relaytest.Close})
	x.MX.Close()
	x.open(t, x.config)
	x.send("a@y.test")
	if got := x.send("a@y.test")[0]; got.Class() != spool.Success || got.TLS != "" {
		t.Errorf("y.test, TLS broken: %+v", got)
	}
	if got := x.send("a@x.test")[0]; got.Class() != spool.Temporary {
		t.Errorf("x.test, TLS broken: %+v", got)
	}
}

// Domains that demand the same of one exchanger share its sessions.
func TestDomainsShareSessions(t *testing.T) {
	t.Parallel()
	x := newExchange(t, relaytest.Options{TLS: relaytest.StartTLS})
	x.dns.Validate()
	x.one(dnstest.Zone{"y.test. MX": {"y.test. 0 MX 10 mx1.test."}, "z.test. MX": {"z.test. 0 MX 10 mx1.test."}, x.tlsaName() + " TLSA": {x.keyOf(x.mx[0])}})
	for _, to := range []string{"a@x.test", "a@y.test", "a@z.test"} {
		if got := x.send(to)[0]; got.TLS != "TLS1.3 dane" {
			t.Errorf("%+v", got)
		}
	}
	for _, h := range x.hosts {
		if n := len(h.lines); n != 1 { // how long one of its sessions is kept is another matter
			t.Errorf("%d kinds of sessions, want 1", n)
		}
	}
}

// kept is a store of policies that has one for x.test.
func kept(t *testing.T, policy string) *tlspolicy.Store {
	t.Helper()
	dir, s := t.TempDir(), new(tlspolicy.Store)
	record := fmt.Sprintf(`{"domain":"x.test","id":"1","fetched":%q,"policy":%q}`, time.Now().UTC().Format(time.RFC3339), policy+"\nversion: STSv1\nmax_age: 86400")
	if err := os.WriteFile(filepath.Join(dir, "x.test"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Open(dir); err != nil {
		t.Fatal(err)
	}
	return s
}

// A policy that is enforced keeps mail from exchangers that it does not name, and from
// those that do not prove their name; one that is not does neither.
func TestMTASTS(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, policy, want, text string }{
		{"not an exchanger of the policy", "mode: enforce\nmx: mx.elsewhere.test", "4.7.5 ", "the MTA-STS policy of x.test"},
		{"not proven", "mode: enforce\nmx: *.test", "4.7.5 ", "MTA-STS demands"},
		{"testing", "mode: testing\nmx: mx.elsewhere.test", "2.0.0 TLS1.3 unverified", ""},
		{"none", "mode: none", "2.0.0 TLS1.3 unverified", ""},
		{"proven by DANE", "mode: enforce\nmx: mx.elsewhere.test", "2.0.0 TLS1.3 dane", ""},
		{"not named, mx.tls none", "mode: enforce\nmx: mx.elsewhere.test", "2.0.0 ", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := newExchange(t, relaytest.Options{TLS: relaytest.StartTLS})
			x.policies = kept(t, tt.policy)
			x.one(nil)
			if strings.HasPrefix(tt.name, "proven") {
				x.dns.Validate()
				x.one(dnstest.Zone{x.tlsaName() + " TLSA": {x.keyOf(x.mx[0])}})
			}
			if strings.HasSuffix(tt.name, "none") && tt.policy != "mode: none" {
				x.config.TLS = config.MXNoTLS
			}
			got := x.send("a@x.test")[0]
			if is := got.Status + " " + got.TLS; is != tt.want || !strings.Contains(got.Text, tt.text) {
				t.Errorf("%+v, want %s %s", got, tt.want, tt.text)
			}
		})
	}
	// Of one in testing somebody is told, now and then.
	x := newExchange(t, relaytest.Options{TLS: relaytest.StartTLS})
	for policy, want := range map[string]string{"mx: mx.elsewhere.test": "does not name mx1.test", "mx: *.test": "mx1.test has not proved its name: TLS1.3 unverified"} {
		x.policies = kept(t, "mode: testing\n"+policy)
		var told []string
		x.policies.Warn = func(_ string, err error) { told = append(told, err.Error()) }
		x.send("a@x.test")
		x.send("a@x.test")
		if len(told) != 1 || !strings.Contains(told[0], want) {
			t.Errorf("%s: told %q, want %q", policy, told, want)
		}
	}
	x = newExchange(t, relaytest.Options{})
	x.policies = kept(t, "mode: enforce\nmx: mx1.test")
	if got := x.send("a@x.test")[0]; got.Status != "4.7.4" || !strings.Contains(got.Text, "MTA-STS demands TLS of mx1.test") {
		t.Errorf("STARTTLS taken away: %+v", got)
	}
}

// A message that requires TLS goes to exchangers that DNSSEC or MTA-STS vouches for, and
// that prove their name; one that says that TLS may be missing goes in spite of what
// the domain demands, but not of what we do (RFC 8689).
func TestMessagesHaveAWord(t *testing.T) {
	t.Parallel()
	required, optional := func(m *spool.Message) { m.RequireTLS = true }, func(m *spool.Message) { m.TLSOptional = true }
	report := func(m *spool.Message) { m.RequireTLS, m.Sender = true, address.Address{} }
	strict := relaytest.Options{TLS: relaytest.StartTLS, Extensions: []string{"REQUIRETLS"}}
	wrong := "3 1 1 " + strings.Repeat("ab", 32)
	for _, tt := range []struct {
		name   string
		server relaytest.Options
		says   func(*spool.Message)
		tlsa   string // "good" is the server's
		secure bool   // the zone is
		policy string
		tls    config.MXPolicy
		want   string
		text   string
	}{
		{"required, by DANE", strict, required, "good", true, "mode: none", config.MXAuto, "2.0.0 TLS1.3 dane", ""},
		{"required, not offered", relaytest.Options{TLS: relaytest.StartTLS}, required, "good", true, "mode: none", config.MXAuto, "5.7.30 TLS1.3 dane", "REQUIRETLS"},
		{"required, nobody vouches", strict, required, "", false, "mode: none", config.MXAuto, "5.7.30 ", "neither DNSSEC nor MTA-STS"},
		{"required, not proven", strict, required, "", true, "mode: none", config.MXAuto, "4.7.5 ", "REQUIRETLS demands"},
		{"required, of a policy in testing, not proven", strict, required, "", false, "mode: testing\nmx: mx1.test", config.MXAuto, "4.7.5 ", "REQUIRETLS demands"},
		{"required, records of no use", strict, required, "1" + wrong[1:], true, "mode: none", config.MXAuto, "4.7.5 ", "REQUIRETLS demands"},
		{"required, no TLS", relaytest.Options{}, required, "", true, "mode: none", config.MXAuto, "4.7.4 ", "REQUIRETLS demands TLS"},
		{"required, no TLS by us", strict, required, "", true, "mode: none", config.MXNoTLS, "5.7.30 ", ""},
		{"a report about it", strict, report, "", false, "mode: none", config.MXAuto, "2.0.0 TLS1.3 unverified", ""},
		{"optional, another key", strict, optional, wrong, true, "mode: none", config.MXAuto, "2.0.0 TLS1.3 unverified", ""},
		{"optional, no TLS", relaytest.Options{}, optional, wrong, true, "mode: enforce\nmx: mx1.test", config.MXAuto, "2.0.0 ", ""},
		{"optional, not of the policy", strict, optional, "", false, "mode: enforce\nmx: mx.test", config.MXAuto, "2.0.0 TLS1.3 unverified", ""},
		{"optional, but not to us", strict, optional, "", false, "mode: none", config.MXVerify, "4.7.5 ", "mx.tls demands"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := newExchange(t, tt.server)
			x.policies, x.config.TLS = kept(t, tt.policy), tt.tls
			rows := dnstest.Zone{}
			if tt.tlsa == "good" {
				rows[x.tlsaName()+" TLSA"] = []string{x.keyOf(x.mx[0])}
			} else if tt.tlsa != "" {
				rows[x.tlsaName()+" TLSA"] = []string{x.tlsaName() + " 0 TLSA " + tt.tlsa}
			}
			if tt.secure {
				x.dns.Validate()
			}
			x.one(rows)
			b := batch(hello, "a@x.test")
			tt.says(b.Message)
			got := x.Deliver(t.Context(), b)[0]
			if is := got.Status + " " + got.TLS; is != tt.want || !strings.Contains(got.Text, tt.text) {
				t.Errorf("%+v, want %s %s", got, tt.want, tt.text)
			}
		})
	}
}
