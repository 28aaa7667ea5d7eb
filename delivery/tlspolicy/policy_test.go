package tlspolicy

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestPolicies(t *testing.T) {
	t.Parallel()
	day := 86400 * time.Second
	for text, want := range map[string]Policy{
		"version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmx: Backup.Example.COM\nmax_age: 86400\n": {Enforce, day, []string{"mail.example.com", "*.example.net", "backup.example.com"}},
		"version: STSv1\r\nmode: testing\r\nmx:a.test\r\nmax_age:\t86400  \r\n\r\n":                                        {Testing, day, []string{"a.test"}},
		"version: STSv1\nmode: none\nmax_age: 86400":                                                                       {None, day, nil},
		"max_age: 86400\nx-more.of_it: what: ever\nmode: none\nversion: STSv1":                                             {None, day, nil},
		"version: STSv1\nmode: enforce\nmode: none\nmx: a.test\nmax_age: 86400\nmax_age: nothing\nmx: b.test":              {Enforce, day, []string{"a.test", "b.test"}},
		"version: STSv1\nmode: none\nmax_age: 9999999999":                                                                  {None, maxAge, nil},
	} {
		if got, err := ParsePolicy([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "\n", "STSv1", "version: STSv1\nmode: none", "mode: none\nmax_age: 1", "version: STSv1\nmax_age: 1",
		"version: STSv2\nmode: none\nmax_age: 1", "version: STSv1\nmode: strict\nmx: a.test\nmax_age: 1",
		"version: STSv1\nmode: enforce\nmax_age: 1", "version: STSv1\nmode: none\nmax_age: -1", "version: STSv1\nmode: none\nmax_age: 1d",
		"version: STSv1\nmode: none\nmax_age: 12345678901", "version: STSv1\n\nmode: none\nmax_age: 1", "version: STSv1\nmode none\nmax_age: 1",
		"version: STSv1\nmode: enforce\nmx: .a.test\nmax_age: 1", "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1",
		"version: STSv1\nmode: enforce\nmx: a.*.test\nmax_age: 1", "version: STSv1\nmode: enforce\nmx: b\u00fccher.test\nmax_age: 1",
		"version: STSv1\nmode: enforce\nmx: a.test.\nmax_age: 1", "version: STSv1\nmode: none\nmax_age: 1\nx: \x00", "version: STSv1\nmode: none\nmax_age: 1\n: x",
		"<html>\nversion: STSv1\nmode: none\nmax_age: 1", "version: STSv1\nmode: none\nmax_age: 1\n" + strings.Repeat("x: y\n", maxPolicy/5),
	} {
		if got, err := ParsePolicy([]byte(text)); err == nil || !reflect.DeepEqual(got, Policy{}) {
			t.Errorf("%q: %+v, %v, want an error", text, got, err)
		}
	}
}

// A "*" is one label, and no less (RFC 8461 §4.1).
func TestPatternsOfExchangers(t *testing.T) {
	t.Parallel()
	p := Policy{MX: []string{"mail.example.com", "*.example.net"}}
	for host, want := range map[string]bool{
		"mail.example.com": true, "MAIL.Example.com.": true, "mx.example.net": true,
		"example.com": false, "a.mail.example.com": false, "example.net": false, "a.b.example.net": false, "xexample.net": false, "": false,
	} {
		if got := p.Allows(host); got != want {
			t.Errorf("%q: %v, want %v", host, got, want)
		}
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		records []string
		id      string // empty: none
	}{
		{[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z"},
		{[]string{"v=STSv1;id=1"}, "1"},
		{[]string{"v=STSv1 ; x=y; id=a1 ;"}, "a1"},
		{[]string{"v=spf1 -all", "v=STSv1; id=2;", "v=STSv10; id=3;"}, "2"},
		{[]string{"v=STSv1; id=1;", "v=STSv1; id=2;"}, ""},
		{[]string{"v=STSv1;"}, ""},
		{[]string{"v=STSv1; id=;"}, ""},
		{[]string{"v=STSv1; id=a-b;"}, ""},
		{[]string{"v=STSv1; id=" + strings.Repeat("a", 33)}, ""},
		{[]string{"V=STSv1; id=1;"}, ""},
		{[]string{"id=1; v=STSv1;"}, ""},
		{nil, ""},
	} {
		if id, err := parseRecord(tt.records); id != tt.id || (err == nil) != (tt.id != "") || err != nil && !errors.Is(err, errNoRecord) {
			t.Errorf("%q: %q, %v, want %q", tt.records, id, err, tt.id)
		}
	}
}

// What is taken for a policy says the same when it is written, demands something of
// the exchangers that it names, and nothing has power over it but what it says.
func FuzzPolicy(f *testing.F) {
	f.Add("version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmax_age: 86400\n")
	f.Add("version: STSv1\r\nmode: none\r\nmax_age:0\r\nx-y: z\r\n\r\n")
	f.Add("version: STSv1\nmode: testing\nmx: A.test\nmode: none\nmax_age: 9999999999")
	f.Add("v=STSv1; id=20160831085700Z;")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := parseRecord([]string{text}); err == nil && (len(id) == 0 || len(id) > 32 || !strings.Contains(text, "id="+id) || !fieldName(id)) {
			t.Fatalf("%q has the ID %q", text, id)
		}
		p, err := ParsePolicy([]byte(text))
		if err != nil {
			if !reflect.DeepEqual(p, Policy{}) {
				t.Fatalf("%+v with error %v", p, err)
			}
			return
		}
		again, err := ParsePolicy([]byte(p.String()))
		if err != nil && len(p.String()) <= maxPolicy || err == nil && !reflect.DeepEqual(again, p) {
			t.Fatalf("%+v, written and read again: %+v, %v", p, again, err)
		}
		if p.MaxAge < 0 || p.MaxAge > maxAge || p.Mode != None && len(p.MX) == 0 {
			t.Fatalf("%+v", p)
		}
		for _, pattern := range p.MX {
			if host := strings.Replace(pattern, "*", "any", 1); !p.Allows(host) || p.Allows("more."+strings.Replace(pattern, "*", "than.one", 1)) && len(p.MX) == 1 {
				t.Fatalf("%q allows what it should not, or not %s", pattern, host)
			}
		}
	})
}
