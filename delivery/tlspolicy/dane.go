package tlspolicy

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postino/delivery/dns"
)

// The fields of a TLSA record (RFC 7218). PKIX-TA and PKIX-EE have no use for mail
// (RFC 7672 §3.1.3).
const (
	usageTA, usageEE      = 2, 3
	selectCert, selectKey = 0, 1

	matchFull, matchSHA256, matchSHA512 = 0, 1, 2

	// maxRecords is how many records of a host are looked at. A roll-over needs four.
	maxRecords = 64
)

// ErrNotAuthentic says that a server is not the one that TLSA records are about.
var ErrNotAuthentic = errors.New("not what its TLSA records say")

// Usable are those records that a server can be known by (RFC 7672 §3.1), without those
// of a digest where there are some of a stronger one beside them (RFC 7671 §9): that one
// may be what an attacker can forge. Where there are records and none is usable, TLS is
// demanded all the same, but nothing verified (RFC 7672 §2.2).
func Usable(records []dns.TLSA) []dns.TLSA {
	var list []dns.TLSA
	strongest := make(map[[2]uint8]uint8)
	for _, r := range records[:min(len(records), maxRecords)] {
		if usable(r) {
			list = append(list, r)
			of := [2]uint8{r.Usage, r.Selector}
			strongest[of] = max(strongest[of], r.MatchingType) // SHA2-512 has the greater number
		}
	}
	return slices.DeleteFunc(list, func(r dns.TLSA) bool {
		return r.MatchingType != matchFull && r.MatchingType < strongest[[2]uint8{r.Usage, r.Selector}]
	})
}

func usable(r dns.TLSA) bool {
	data, err := hex.DecodeString(r.Data)
	if err != nil || r.Usage != usageTA && r.Usage != usageEE || r.Selector > selectKey {
		return false
	}
	switch r.MatchingType {
	case matchSHA256:
		return len(data) == sha256.Size
	case matchSHA512:
		return len(data) == sha512.Size
	case matchFull:
		if r.Selector == selectCert {
			_, err = x509.ParseCertificate(data)
		} else {
			_, err = x509.ParsePKIXPublicKey(data)
		}
		return err == nil
	}
	return false
}

// Verify checks a server against usable records. Names are those that its certificate
// may have where the records name an authority; where they name the server's own
// certificate or key, neither its names nor its dates matter (RFC 7672 §3.1.1).
func Verify(records []dns.TLSA, names []string, chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: it shows no certificate", ErrNotAuthentic)
	}
	problem := fmt.Errorf("%w: none of %d matches", ErrNotAuthentic, len(records))
	for _, r := range records {
		if r.Usage == usageEE {
			if matches(r, chain[0]) {
				return nil
			}
			continue
		}
		anchors, found := anchored(r, chain)
		if !found {
			continue
		}
		if err := verifyChain(anchors, names, chain, now); err != nil {
			problem = fmt.Errorf("%w: %w", ErrNotAuthentic, err)
			continue
		}
		return nil
	}
	return problem
}

// Named reports whether names matter to any of these records, which they do where one
// names an authority (RFC 7672 §3.2.2).
func Named(records []dns.TLSA) bool {
	return slices.ContainsFunc(records, func(r dns.TLSA) bool { return r.Usage == usageTA })
}

// matches reports whether a record is of a certificate (RFC 6698 §2.1).
func matches(r dns.TLSA, c *x509.Certificate) bool {
	want, err := hex.DecodeString(r.Data)
	got := c.Raw
	if r.Selector == selectKey {
		got = c.RawSubjectPublicKeyInfo
	}
	switch r.MatchingType {
	case matchSHA256:
		sum := sha256.Sum256(got)
		got = sum[:]
	case matchSHA512:
		sum := sha512.Sum512(got)
		got = sum[:]
	}
	return err == nil && bytes.Equal(want, got)
}

// anchored are the certificates that a record of usage DANE-TA makes trust anchors:
// those of the chain that match. Where the authority's is not sent, a record that holds
// it, or its key, still says who may have issued the others (RFC 7671 §5.2).
func anchored(r dns.TLSA, chain []*x509.Certificate) (anchors *x509.CertPool, found bool) {
	anchors = x509.NewCertPool()
	add := func(c *x509.Certificate) {
		anchors.AddCert(c)
		found = true
	}
	for _, c := range chain {
		if matches(r, c) {
			add(c)
		}
	}
	if found || r.MatchingType != matchFull {
		return anchors, found
	}
	data, _ := hex.DecodeString(r.Data) // Usable has done so
	if r.Selector == selectCert {
		if c, err := x509.ParseCertificate(data); err == nil {
			add(c)
		}
		return anchors, found
	}
	key, err := x509.ParsePKIXPublicKey(data)
	if err != nil {
		return anchors, false
	}
	authority := &x509.Certificate{PublicKey: key}
	for _, c := range chain {
		if authority.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			add(c)
		}
	}
	return anchors, found
}

// verifyChain checks that a certificate is the anchors' and has one of the names.
func verifyChain(anchors *x509.CertPool, names []string, chain []*x509.Certificate, now time.Time) error {
	others := x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: anchors, Intermediates: others, CurrentTime: now}); err != nil {
		return err
	}
	problem := errors.New("there is no name that it may have")
	for _, name := range names {
		if problem = chain[0].VerifyHostname(name); problem == nil {
			return nil
		}
	}
	return problem
}

// VerifyConnection is Verify of a connection, as crypto/tls wants it.
func VerifyConnection(records []dns.TLSA, names []string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		return Verify(records, names, state.PeerCertificates, time.Now())
	}
}

// Name is where the TLSA records of a host's port are: _25._tcp.mx.example.org
// (RFC 7672 §2.2.3).
func Name(port int, host string) string {
	return fmt.Sprintf("_%d._tcp.%s", port, strings.TrimSuffix(host, "."))
}
