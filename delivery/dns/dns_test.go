package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postino/delivery/dns/dnstest"
)

// patience is how long a test waits for an answer that has to come, so that a broken
// program ends it instead of hanging it. No stall of the machine comes near it.
const patience = 2 * time.Minute

func resolver(t *testing.T, servers ...*dnstest.Server) *Resolver {
	t.Helper()
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr)
	}
	r, err := New(addrs...)
	if err != nil {
		t.Fatal(err)
	}
	r.timeout = patience
	return r
}

// An answer that there is nothing is told from no answer, for every type.
func TestNothingIsToldFromNoAnswer(t *testing.T) {
	t.Parallel()
	s := dnstest.Serve(t, dnstest.Zone{
		"empty.test. TXT":      {"empty.test. 60 TXT x"},
		"servfail.test. MX":    {"SERVFAIL"},
		"refused.test. MX":     {"REFUSED"},
		"formerr.test. MX":     {"FORMERR"},
		"notimp.test. MX":      {"NOTIMP"},
		"silent.test. MX":      {"silent"},
		"lie.test. MX":         {"other", "lie.test. 60 MX 1 mx.test."},
		"loop.test. MX":        {"loop.test. 60 CNAME loop.test."},
		"ring.test. MX":        {"ring.test. 60 CNAME bell.test."},
		"bell.test. MX":        {"bell.test. 60 CNAME ring.test."},
		"dangling.test. MX":    {"dangling.test. 60 CNAME gone.test."},
		"strangers.test. MX":   {"victim.test. 60 MX 1 evil.test."},
		"elsewhere.test. MX":   {"elsewhere.test. 60 CNAME empty.test."},
		"malformed..test. MX":  {"SERVFAIL"},
		"deep.empty.test. TXT": {"x.test. 60 TXT y"},
	})
	for domain, want := range map[string]error{
		"gone.test": ErrNoName, "": ErrNoName, "malformed..test": ErrNoName, strings.Repeat("x", 64) + ".test": ErrNoName,
		"empty.test": ErrNoData, "strangers.test": ErrNoData, "elsewhere.test": ErrNoData,
		"dangling.test": ErrNoName,
		"servfail.test": ErrTemporary, "refused.test": ErrTemporary, "formerr.test": ErrTemporary, "notimp.test": ErrTemporary,
		"silent.test": ErrTemporary, "lie.test": ErrTemporary, "loop.test": ErrTemporary, "ring.test": ErrTemporary,
	} {
		r := resolver(t, s)
		if domain == "silent.test" {
			r.timeout = 200 * time.Millisecond
		}
		a, err := r.MX(context.Background(), domain)
		if !errors.Is(err, want) || len(a.Records) != 0 {
			t.Errorf("MX of %q: %v, %v, want %v", domain, a.Records, err, want)
		}
	}
	for _, r := range []*Resolver{resolver(t), resolver(t, &dnstest.Server{Addr: "127.0.0.1:1"})} {
		if _, err := r.MX(context.Background(), "x.test"); !errors.Is(err, ErrTemporary) {
			t.Errorf("without a resolver that answers: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := resolver(t, s).MX(ctx, "empty.test"); !errors.Is(err, ErrTemporary) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What is there is found whatever way it is given, and in the order to use it.
func TestExchangersAreFound(t *testing.T) {
	t.Parallel()
	s := dnstest.Serve(t, dnstest.Zone{
		"plain.test. MX":  {"plain.test. 60 MX 20 B.test.", "plain.test. 30 MX 10 a.test.", "plain.test. 60 MX 20 c.test."},
		"null.test. MX":   {"null.test. 60 MX 0 ."},
		"cut.test. MX":    {"cut", "cut.test. 60 MX 10 a.test."},
		"noedns.test. MX": {"noedns", "noedns.test. 60 MX 10 a.test."},
		"alias.test. MX":  {"alias.test. 60 CNAME plain.test."},
		"whole.test. MX":  {"whole.test. 60 CNAME Plain.test.", "plain.test. 60 MX 10 a.test."},
	})
	plain := []MX{{10, "a.test"}, {20, "b.test"}, {20, "c.test"}}
	for domain, want := range map[string]Answer[MX]{
		"plain.test":  {Records: plain, Name: "plain.test", TTL: 30 * time.Second},
		"PLAIN.test.": {Records: plain, Name: "plain.test", TTL: 30 * time.Second},
		"null.test":   {Records: []MX{{0, ""}}, Name: "null.test", TTL: time.Minute},
		"cut.test":    {Records: plain[:1], Name: "cut.test", TTL: time.Minute},
		"noedns.test": {Records: plain[:1], Name: "noedns.test", TTL: time.Minute},
		"alias.test":  {Records: plain, Name: "plain.test", TTL: 30 * time.Second},
		"whole.test":  {Records: plain[:1], Name: "plain.test", TTL: time.Minute},
	} {
		if got, err := resolver(t, s).MX(context.Background(), domain); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("MX of %s: %+v, %v, want %+v", domain, got, err, want)
		}
	}
	// The second server is asked where the first has no answer.
	bad := dnstest.Serve(t, dnstest.Zone{"plain.test. MX": {"SERVFAIL"}})
	if got, err := resolver(t, bad, s).MX(context.Background(), "plain.test"); err != nil || len(got.Records) != 3 {
		t.Errorf("with a broken first server: %+v, %v", got, err)
	}
}

// A thousand exchangers are no reason to fail.
func TestAThousandExchangers(t *testing.T) {
	t.Parallel()
	rows := []string{"cut"}
	for i := range 1000 {
		rows = append(rows, fmt.Sprintf("x.test. 60 MX %d mx%d.test.", 1000-i, i))
	}
	got, err := resolver(t, dnstest.Serve(t, dnstest.Zone{"x.test. MX": rows})).MX(context.Background(), "x.test")
	if err != nil || len(got.Records) != 1000 || got.Records[0].Host != "mx999.test" {
		t.Errorf("%d records, %v", len(got.Records), err)
	}
}

// One family is enough, and only a family without an answer makes it temporary that
// there is no address.
func TestOneFamilyOfAddressesIsEnough(t *testing.T) {
	t.Parallel()
	s := dnstest.Serve(t, dnstest.Zone{
		"both.test. A": {"both.test. 60 A 192.0.2.1"}, "both.test. AAAA": {"both.test. 60 AAAA 2001:db8::1"},
		"four.test. A": {"four.test. 60 A 192.0.2.1"}, "four.test. AAAA": {"SERVFAIL"},
		"six.test. A": {"SERVFAIL"}, "six.test. AAAA": {"six.test. 60 AAAA 2001:db8::1"},
		"half.test. A": {"SERVFAIL"}, "half.test. AAAA": {},
		"flah.test. AAAA": {"SERVFAIL"}, "flah.test. A": {},
		"none.test. TXT": {},
	})
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		host   string
		family Family
		want   []netip.Addr
		err    error
	}{
		{"both.test", Any, []netip.Addr{six, four}, nil},
		{"both.test", IPv4, []netip.Addr{four}, nil},
		{"both.test", IPv6, []netip.Addr{six}, nil},
		{"four.test", Any, []netip.Addr{four}, nil},
		{"four.test", IPv6, nil, ErrTemporary},
		{"six.test", Any, []netip.Addr{six}, nil},
		{"half.test", Any, nil, ErrTemporary},
		{"flah.test", Any, nil, ErrTemporary},
		{"flah.test", IPv4, nil, ErrNoData},
		{"none.test", Any, nil, ErrNoData},
		{"gone.test", Any, nil, ErrNoName},
	} {
		got, err := resolver(t, s).Addrs(context.Background(), tt.host, tt.family)
		if !errors.Is(err, tt.err) || !reflect.DeepEqual(got.Records, tt.want) {
			t.Errorf("%s, family %d: %v, %v, want %v, %v", tt.host, tt.family, got.Records, err, tt.want, tt.err)
		}
	}
}

// The word of a resolver that an answer was validated is taken from the loopback,
// and of all parts of it.
func TestOnlyTrustedResolversAuthenticate(t *testing.T) {
	t.Parallel()
	s := dnstest.Serve(t, dnstest.Zone{
		"_25._tcp.mx.test. TLSA": {"_25._tcp.mx.test. 60 TLSA 3 1 1 00" + strings.Repeat("AB", 31)},
		"sts.test. TXT":          {`sts.test. 60 TXT "v=STS" "v1"`},
	})
	s.Validate()
	r := resolver(t, s)
	a, err := r.TLSA(context.Background(), "_25._tcp.mx.test")
	if want := []TLSA{{3, 1, 1, "00" + strings.Repeat("ab", 31)}}; err != nil || !a.Authentic || !reflect.DeepEqual(a.Records, want) {
		t.Errorf("%+v, %v, want %v, authentic", a, err, want)
	}
	if a, err := r.TXT(context.Background(), "sts.test"); err != nil || len(a.Records) != 1 || a.Records[0] != "v=STSv1" {
		t.Errorf("TXT: %+v, %v", a, err)
	}
	r = resolver(t, s)
	r.trust = false
	if a, err := r.TLSA(context.Background(), "_25._tcp.mx.test"); err != nil || a.Authentic {
		t.Errorf("of a resolver that is not trusted: %+v, %v", a, err)
	}
	if r, err := New("192.0.2.1", "127.0.0.1"); err != nil || r.trust {
		t.Errorf("a resolver far away is trusted: %v", err)
	}
	if r, err := New("127.0.0.1:5353", "[::1]:53"); err != nil || !r.trust {
		t.Errorf("a resolver on the loopback is not trusted: %v", err)
	}
}

// An answer is kept as long as it says, and one that is none not at all.
func TestAnswersAreKept(t *testing.T) {
	t.Parallel()
	s := dnstest.Serve(t, dnstest.Zone{"x.test. MX": {"x.test. 3600 MX 1 a.test."}, "zero.test. MX": {"zero.test. 0 MX 1 a.test."}, "bad.test. MX": {"SERVFAIL"}})
	r := resolver(t, s)
	for domain, want := range map[string]int{"x.test": 1, "gone.test": 1, "zero.test": 2, "bad.test": 2 * tries} {
		before := len(s.Asked())
		for range 2 {
			_, _ = r.MX(context.Background(), domain) // what it says is not the point
		}
		if got := len(s.Asked()) - before; got != want {
			t.Errorf("%s asked for %d times, want %d", domain, got, want)
		}
	}
	now := time.Now()
	var c cache
	for i := range maxKept + 1 {
		c.put(question{name: fmt.Sprint(i)}, reply{Msg: new(dns.Msg)}, now)
	}
	if len(c.answers) > maxKept {
		t.Errorf("%d answers kept, want %d at most", len(c.answers), maxKept)
	}
	if _, ok := c.get(question{name: fmt.Sprint(maxKept)}, now.Add(nothingTTL)); ok {
		t.Error("an answer is kept longer than it says")
	}
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text    string
		servers []string
		trust   bool
	}{
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.org\noptions ndots:5\n", []string{"192.0.2.1:53", "[2001:db8::1]:53"}, false},
		{"nameserver 192.0.2.1\noptions edns0 trust-ad\n", []string{"192.0.2.1:53"}, true},
		{"nameserver 127.0.0.53\n", []string{"127.0.0.53:53"}, true},
		{"# nothing\n", []string{"127.0.0.1:53"}, true},
		{"nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n", []string{"1.1.1.1:53", "1.1.1.2:53", "1.1.1.3:53"}, false},
	} {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := fromFile(path)
		if err != nil || !reflect.DeepEqual(r.servers, tt.servers) || r.trust != tt.trust {
			t.Errorf("%q: %+v, %v, want %v, trust %v", tt.text, r, err, tt.servers, tt.trust)
		}
	}
	for _, bad := range []string{"localhost", "127.0.0.1:x", "127.0.0.1:0", "::1:70000", ""} {
		if r, err := New(bad); err == nil {
			t.Errorf("%q is taken as %v", bad, r.servers)
		}
	}
}

// A resolver of the system's goes by resolv.conf as it is now: a machine that comes into
// another network asks there, without a restart.
func TestChangedResolvConfIsHeeded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	r, err := fromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ text, want string }{
		{"nameserver 192.0.2.1\n", "192.0.2.1:53"}, {"nameserver 192.0.2.99\n", "192.0.2.99:53"}, {"nameserver what\n", "192.0.2.99:53"}, {"nameserver 127.0.0.1\n", "127.0.0.1:53"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.cache.put(question{name: "x.test."}, reply{Msg: &dns.Msg{Answer: []dns.RR{&dns.A{Hdr: dns.RR_Header{Ttl: 3600}}}}}, time.Now())
		r.looked = time.Now().Add(lookAgain) // or it may be time already
		before, _ := r.ways()
		if _, kept := r.cache.get(question{name: "x.test."}, time.Now()); !kept {
			t.Errorf("%q: looked at again at once", tt.text)
		}
		r.looked = time.Now().Add(-lookAgain)
		servers, _ := r.ways()
		if len(servers) != 1 || servers[0] != tt.want {
			t.Errorf("%q: %q, want %s", tt.text, servers, tt.want)
		}
		if _, kept := r.cache.get(question{name: "x.test."}, time.Now()); kept != (before[0] == tt.want) {
			t.Errorf("%q: answers kept: %v", tt.text, kept)
		}
	}
}
