package spf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"postino/delivery/dns"
	"postino/delivery/dns/dnstest"
)

func txt(name, text string) (string, []string) {
	return name + ". TXT", []string{fmt.Sprintf("%s. 60 TXT %q", name, text)}
}

func TestTreeOfARecordIsRead(t *testing.T) {
	zone := dnstest.Zone{}
	for name, text := range map[string]string{
		"a.test":     "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 include:b.test a mx/24 -ip4:198.51.100.1 ~all ip4:203.0.113.1",
		"b.test":     "V=SPF1 include:c.test exp=x.test ?all",
		"c.test":     "v=spf1 ip4:203.0.113.7 -all",
		"r.test":     "v=spf1 redirect=a.test",
		"macro.test": "v=spf1 exists:%{i}.x.test include:%{d}.y.test a:%{h} -all",
		"loop.test":  "v=spf1 include:loop.test -all",
		"hole.test":  "v=spf1 include:gone.test -all",
		"bad.test":   "v=spf1 ipv4:1.2.3.4 -all",
		"badip.test": "v=spf1 ip4:2001:db8::1 -all",
		"empty.test": "v=spf1",
		"other.test": "google-site-verification=x",
	} {
		k, v := txt(name, text)
		zone[k] = v
	}
	zone["two.test. TXT"] = []string{`two.test. 60 TXT "v=spf1 -all"`, `two.test. 60 TXT "v=spf1 ~all"`}
	zone["slow.test. TXT"] = []string{"SERVFAIL"}
	zone["a.test. A"] = []string{"a.test. 60 A 10.0.0.1"}
	zone["a.test. MX"] = []string{"a.test. 60 MX 1 mx.a.test."}
	zone["mx.a.test. A"] = []string{"mx.a.test. 60 A 10.1.0.1"}
	r, err := dns.New(dnstest.Serve(t, zone).Addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		domain  string
		err     error
		all     byte
		lookups int
		covers  []string
		not     []string
		include string
	}{
		{"a.test", nil, '~', 4, []string{"192.0.2.9", "2001:db8::1", "203.0.113.7", "10.0.0.1", "10.1.0.200", "::ffff:192.0.2.9"}, []string{"198.51.100.1", "203.0.113.1", "10.0.0.2"}, "c.test"},
		{"r.test", nil, '~', 5, []string{"192.0.2.9"}, nil, "a.test"},
		{"macro.test", nil, '-', 3, nil, nil, ""},
		{"empty.test", nil, 0, 0, nil, []string{"192.0.2.1"}, ""},
		{"other.test", ErrNone, 0, 0, nil, nil, ""},
		{"nothing.test", ErrNone, 0, 0, nil, nil, ""},
		{"two.test", ErrPermanent, 0, 0, nil, nil, ""},
		{"loop.test", ErrPermanent, 0, 11, nil, nil, ""},
		{"hole.test", ErrPermanent, 0, 1, nil, nil, ""},
		{"bad.test", ErrPermanent, 0, 0, nil, nil, ""},
		{"badip.test", ErrPermanent, 0, 0, nil, nil, ""},
		{"slow.test", dns.ErrTemporary, 0, 0, nil, nil, ""},
	} {
		got, err := Read(t.Context(), r, tt.domain)
		if !errors.Is(err, tt.err) || err == nil && got.All != tt.all || got.Lookups != tt.lookups || tt.include != "" && !got.Includes(tt.include) {
			t.Errorf("%s: got %+v, %v; want %+v", tt.domain, got, err, tt)
		}
		for _, ip := range tt.covers {
			if !got.Covers(netip.MustParseAddr(ip)) {
				t.Errorf("%s does not cover %s", tt.domain, ip)
			}
		}
		for _, ip := range tt.not {
			if got.Covers(netip.MustParseAddr(ip)) {
				t.Errorf("%s covers %s", tt.domain, ip)
			}
		}
	}
}

// The law: of any text there is an end, after at most eleven lookups.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"ip4:1.2.3.4 include:a.test", "a:/24//64 mx", "redirect=a.test +all", ": / = %", "include: ptr exists"} {
		f.Add(s)
	}
	r, err := dns.New("127.0.0.1:1")
	if err != nil {
		f.Fatal(err)
	}
	ended, cancel := context.WithTimeout(context.Background(), time.Hour)
	cancel()
	f.Fuzz(func(t *testing.T, text string) {
		w := walk{ctx: ended, dns: r}
		for _, term := range []string{text, "+" + text, "ip4:" + text, "ip6:" + text, "a" + text, "mx/" + text} {
			if term != "" {
				_, _ = w.mechanism("x.test", term, true)
			}
		}
		if w.found.Lookups > 2*maxLookups {
			t.Errorf("%d lookups", w.found.Lookups)
		}
	})
}
