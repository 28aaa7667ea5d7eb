package dnstest

import (
	"crypto"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// signedTTL is what answers of a signed zone are kept by others, in seconds.
const signedTTL = 3600

// Signer signs zones (RFC 4035 §2).
type Signer struct {
	t   testing.TB
	key *dns.DNSKEY
	own crypto.Signer
}

// NewSigner makes a key for the zone at apex, a name with a dot at its end.
func NewSigner(t testing.TB, apex string) *Signer {
	t.Helper()
	key := &dns.DNSKEY{Hdr: header(apex, dns.TypeDNSKEY), Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	own, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{t, key, own.(crypto.Signer)}
}

// Anchor is the record that a resolver trusts the zone by.
func (s *Signer) Anchor() string { return s.key.ToDS(dns.SHA256).String() }

// Sign makes the text of a zone file of records, with all that says what there is and
// is not. The signatures of the broken ones, "name. TYPE", do not fit.
func (s *Signer) Sign(rows []string, broken ...string) string {
	s.t.Helper()
	apex := s.key.Hdr.Name
	rows = append([]string{apex + " 0 SOA ns." + apex + " root." + apex + " 1 3600 600 86400 0", apex + " 0 NS ns." + apex, "ns." + apex + " 0 A 127.0.0.1"}, rows...)
	sets := map[string]map[uint16][]dns.RR{apex: {dns.TypeDNSKEY: {s.key}}}
	for _, row := range rows {
		rr, err := dns.NewRR(row)
		if err != nil {
			s.t.Fatal(err)
		}
		name := dns.CanonicalName(rr.Header().Name)
		if sets[name] == nil {
			sets[name] = make(map[uint16][]dns.RR)
		}
		sets[name][rr.Header().Rrtype] = append(sets[name][rr.Header().Rrtype], rr)
	}
	names := slices.SortedFunc(maps.Keys(sets), canonical)
	for i, name := range names {
		types := append(slices.Collect(maps.Keys(sets[name])), dns.TypeNSEC, dns.TypeRRSIG)
		slices.Sort(types)
		sets[name][dns.TypeNSEC] = []dns.RR{&dns.NSEC{Hdr: header(name, dns.TypeNSEC), NextDomain: names[(i+1)%len(names)], TypeBitMap: types}}
	}
	var zone strings.Builder
	for _, name := range names {
		for _, kind := range slices.Sorted(maps.Keys(sets[name])) {
			set := sets[name][kind]
			for _, rr := range append(set, s.signature(set, slices.Contains(broken, name+" "+dns.TypeToString[kind]))) {
				zone.WriteString(rr.String() + "\n")
			}
		}
	}
	return zone.String()
}

// signature is that of the records of one name and type.
func (s *Signer) signature(set []dns.RR, broken bool) dns.RR {
	sig := &dns.RRSIG{Hdr: header(set[0].Header().Name, dns.TypeRRSIG), KeyTag: s.key.KeyTag(), SignerName: s.key.Hdr.Name, Algorithm: s.key.Algorithm,
		Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(24 * time.Hour).Unix())}
	sig.Hdr.Ttl = set[0].Header().Ttl
	if err := sig.Sign(s.own, set); err != nil {
		s.t.Fatal(err)
	}
	if broken {
		sig.Expiration += 60 // which was signed too
	}
	return sig
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: signedTTL}
}

// canonical is the order of names of RFC 4034 §6.1.
func canonical(a, b string) int {
	x, y := dns.SplitDomainName(a), dns.SplitDomainName(b)
	slices.Reverse(x)
	slices.Reverse(y)
	return slices.Compare(x, y)
}
