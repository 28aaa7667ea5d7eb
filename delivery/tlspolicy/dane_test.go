package tlspolicy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"postino/delivery/dns"
)

// issued is a certificate and its key.
type issued struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// issue makes a certificate, signed by an issuer or, where that is nil, by itself.
func issue(t *testing.T, by *issued, name string, ends time.Time) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: ends.Add(-365 * 24 * time.Hour), NotAfter: ends, BasicConstraintsValid: true, IsCA: strings.HasSuffix(name, "authority"),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if by == nil {
		by = &issued{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.Certificate, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{c, key}
}

// tlsa is the record of a certificate.
func tlsa(c *x509.Certificate, usage, selector, matching uint8) dns.TLSA {
	data := c.Raw
	if selector == selectKey {
		data = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case matchSHA256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case matchSHA512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return dns.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Data: hex.EncodeToString(data)}
}

// Every kind of record that is of use for mail knows its server, and no other.
func TestRecordsKnowTheirServer(t *testing.T) {
	t.Parallel()
	later := time.Now().Add(24 * time.Hour)
	root := issue(t, nil, "root authority", later)
	middle := issue(t, root, "middle authority", later)
	mx, other := issue(t, middle, "mx.test", later), issue(t, middle, "mx.test", later)
	strange := issue(t, issue(t, nil, "strange authority", later), "mx.test", later)
	chain := []*x509.Certificate{mx.Certificate, middle.Certificate}
	for selector := range uint8(2) {
		for matching := range uint8(3) {
			for _, tt := range []struct {
				usage uint8
				of    *issued
			}{{usageEE, mx}, {usageTA, middle}} {
				r := Usable([]dns.TLSA{tlsa(tt.of.Certificate, tt.usage, selector, matching)})
				if len(r) != 1 {
					t.Fatalf("%d %d %d is of no use", tt.usage, selector, matching)
				}
				if err := Verify(r, []string{"mx.test"}, chain, time.Now()); err != nil {
					t.Errorf("%d %d %d: %v", tt.usage, selector, matching, err)
				}
				for _, wrong := range [][]*x509.Certificate{{strange.Certificate}, {strange.Certificate, middle.Certificate}, {strange.Certificate, mx.Certificate}, nil} {
					if err := Verify(r, []string{"mx.test"}, wrong, time.Now()); !errors.Is(err, ErrNotAuthentic) {
						t.Errorf("%d %d %d takes another server: %v", tt.usage, selector, matching, err)
					}
				}
				if err := Verify(r, []string{"mx.test"}, []*x509.Certificate{other.Certificate, middle.Certificate}, time.Now()); (err == nil) != (tt.usage == usageTA) {
					t.Errorf("%d %d %d, another certificate of the authority: %v", tt.usage, selector, matching, err)
				}
			}
		}
	}
	// The authority's certificate need not be sent when the record holds it, or its key.
	for selector := range uint8(2) {
		for matching := range uint8(3) {
			for _, tt := range []struct {
				of   *issued
				sent []*x509.Certificate
				ok   bool
			}{{middle, chain[:1], true}, {root, chain, true}, {root, chain[:1], false}, {middle, []*x509.Certificate{strange.Certificate}, false}} {
				held := Usable([]dns.TLSA{tlsa(tt.of.Certificate, usageTA, selector, matching)})
				want := tt.ok && matching == matchFull
				if err := Verify(held, []string{"mx.test"}, tt.sent, time.Now()); (err == nil) != want {
					t.Errorf("2 %d %d of %s, %d sent: %v, want accepted: %v", selector, matching, tt.of.Subject, len(tt.sent), err, want)
				}
				if err := Verify(held, []string{"other.test"}, tt.sent, time.Now()); err == nil {
					t.Errorf("2 %d %d of %s: another name is accepted", selector, matching, tt.of.Subject)
				}
			}
		}
	}
}

// Of records with the same usage and selector those of the strongest digest count, and
// those that hold all of it (RFC 7671 §9).
func TestStrongestDigestCounts(t *testing.T) {
	t.Parallel()
	later := time.Now().Add(time.Hour)
	old, mx := issue(t, nil, "mx.test", later), issue(t, nil, "mx.test", later)
	of := func(c *issued, selector, matching uint8) dns.TLSA {
		return tlsa(c.Certificate, usageEE, selector, matching)
	}
	broken := of(mx, selectKey, matchSHA512)
	broken.Data = broken.Data[2:]
	for _, tt := range []struct {
		name    string
		records []dns.TLSA
		ok      bool
	}{
		{"the weaker one alone", []dns.TLSA{of(mx, selectKey, matchSHA256)}, true},
		{"the stronger one is another's", []dns.TLSA{of(mx, selectKey, matchSHA256), of(old, selectKey, matchSHA512)}, false},
		{"in any order", []dns.TLSA{of(old, selectKey, matchSHA512), of(mx, selectKey, matchSHA256)}, false},
		{"both are of both", []dns.TLSA{of(mx, selectKey, matchSHA256), of(old, selectKey, matchSHA256), of(old, selectKey, matchSHA512), of(mx, selectKey, matchSHA512)}, true},
		{"of another selector", []dns.TLSA{of(mx, selectKey, matchSHA256), of(old, selectCert, matchSHA512)}, true},
		{"all of it", []dns.TLSA{of(mx, selectKey, matchFull), of(old, selectKey, matchSHA512)}, true},
		{"a useless one is none", []dns.TLSA{of(mx, selectKey, matchSHA256), broken}, true},
		{"of another usage", []dns.TLSA{of(mx, selectKey, matchSHA256), tlsa(old.Certificate, usageTA, selectKey, matchSHA512)}, true},
	} {
		err := Verify(Usable(tt.records), []string{"mx.test"}, []*x509.Certificate{mx.Certificate}, time.Now())
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// Of a server's own certificate neither names nor dates matter, of an authority's both
// do (RFC 7672 §3.1).
func TestNamesAndDatesMatterUnderAnAuthorityAlone(t *testing.T) {
	t.Parallel()
	now := time.Now()
	root := issue(t, nil, "root authority", now.Add(time.Hour))
	for _, tt := range []struct {
		usage uint8
		names []string
		ends  time.Time
		ok    bool
	}{
		{usageEE, []string{"elsewhere.test"}, now.Add(-time.Hour), true},
		{usageTA, []string{"mx.test"}, now.Add(time.Hour), true},
		{usageTA, []string{"elsewhere.test", "mx.test"}, now.Add(time.Hour), true},
		{usageTA, []string{"elsewhere.test"}, now.Add(time.Hour), false},
		{usageTA, nil, now.Add(time.Hour), false},
		{usageTA, []string{"mx.test"}, now.Add(-time.Hour), false},
	} {
		mx := issue(t, root, "mx.test", tt.ends)
		of := mx
		if tt.usage == usageTA {
			of = root
		}
		r := []dns.TLSA{tlsa(of.Certificate, tt.usage, selectKey, matchSHA256)}
		if err := Verify(r, tt.names, []*x509.Certificate{mx.Certificate, root.Certificate}, now); (err == nil) != tt.ok {
			t.Errorf("usage %d, names %q, ends in %v: %v, want accepted: %v", tt.usage, tt.names, tt.ends.Sub(now), err, tt.ok)
		}
	}
}

// While keys or authorities change there are records of the old one and the new one.
func TestRollOver(t *testing.T) {
	t.Parallel()
	later := time.Now().Add(time.Hour)
	root := issue(t, nil, "root authority", later)
	before, after := issue(t, root, "mx.test", later), issue(t, nil, "mx.test", later)
	records := []dns.TLSA{tlsa(before.Certificate, usageEE, selectKey, matchSHA256), tlsa(after.Certificate, usageEE, selectKey, matchSHA512),
		tlsa(root.Certificate, usageTA, selectCert, matchSHA256)}
	for _, c := range []*issued{before, after, issue(t, root, "mx.test", later)} {
		if err := Verify(records, []string{"mx.test"}, []*x509.Certificate{c.Certificate, root.Certificate}, time.Now()); err != nil {
			t.Error(err)
		}
	}
}

// Records of another purpose, or damaged, are of no use, and do no harm to the others.
func TestUselessRecords(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("ab", 32)
	good := dns.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Data: digest}
	bad := []dns.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: "xy"}, {Usage: 3, Selector: 1, MatchingType: 1}, {Usage: 2, Selector: 1}}
	for _, fields := range [][3]uint8{{0, 1, 1}, {1, 1, 1}, {4, 1, 1}, {255, 1, 1}, {3, 2, 1}, {3, 1, 3}, {3, 1, 2}, {3, 0, 0}, {2, 1, 0}} {
		bad = append(bad, dns.TLSA{Usage: fields[0], Selector: fields[1], MatchingType: fields[2], Data: digest})
	}
	bad = append(bad, dns.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Data: digest[2:]})
	if got := Usable(append(bad, good)); len(got) != 1 || got[0] != good {
		t.Errorf("%v", got)
	}
}
