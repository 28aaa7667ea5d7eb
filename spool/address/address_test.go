package address

import (
	"net/mail"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func errContains(err error, want string) bool {
	if err == nil || want == "" {
		return err == nil && want == ""
	}
	return strings.Contains(err.Error(), want)
}

func TestParseReadsOneMailbox(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Address
		err  string // substring; "" means success
	}{
		{"a@b", Address{"a", "b"}, ""},
		{" <a@b>\t", Address{"a", "b"}, ""},
		{"Bob B <bob@example.net>", Address{"bob", "example.net"}, ""},
		{"bob@example.net (Bob)", Address{"bob", "example.net"}, ""},
		{"a@b.example <c@d.example>", Address{"c", "d.example"}, ""},
		{"root", Address{Local: "root"}, ""},
		{"root (Cron Daemon)", Address{Local: "root"}, ""},
		{`"(Cron Daemon)" <root>`, Address{Local: "root"}, ""},
		{"BounceX@Example.ORG", Address{"BounceX", "Example.ORG"}, ""},
		{"fail2ban@labhost", Address{"fail2ban", "labhost"}, ""},
		{"bob@[192.0.2.1]", Address{"bob", "[192.0.2.1]"}, ""},
		{"bob@[IPv6:2001:db8::1]", Address{"bob", "[IPv6:2001:db8::1]"}, ""},
		{"o'neil#!%@example.net", Address{"o'neil#!%", "example.net"}, ""},
		{"jürgen@exämple.net", Address{"jürgen", "exämple.net"}, ""},
		{`"bob smith"@example.net`, Address{"bob smith", "example.net"}, ""},
		{`"a\"b\\c"@x`, Address{`a"b\c`, "x"}, ""},
		{`"victim@evil.com x"@good.com`, Address{"victim@evil.com x", "good.com"}, ""},
		{`a."b c".d@x`, Address{"a.b c.d", "x"}, ""},
		{"a..b@x", Address{"a..b", "x"}, ""},
		{".a.@x", Address{".a.", "x"}, ""},
		{"<@x,@y:a@b>", Address{"a", "b"}, ""},
		{"<@x , @[192.0.2.1] : a@b>", Address{"a", "b"}, ""},
		{"user%dom@relay", Address{"user%dom", "relay"}, ""},
		{"a!b!c", Address{Local: "a!b!c"}, ""},
		{"|/bin/sh", Address{Local: "|/bin/sh"}, ""},
		{"${run{id}}@localhost", Address{"${run{id}}", "localhost"}, ""},
		{"under_score@a_b.example", Address{"under_score", "a_b.example"}, ""},
		{strings.Repeat("l", maxLocal) + "@x", Address{strings.Repeat("l", maxLocal), "x"}, ""},

		{"", Address{}, `"": want one address`},
		{"<>", Address{}, "no local part"},
		{"(comment)", Address{}, "want one address"},
		{"a@b, c@d", Address{}, "want one address"},
		{"a@b,", Address{}, "want one address"},
		{"a@b c@d", Address{}, "want one address"},
		{"g: a@b;", Address{}, "want one address"},
		{"@example.net", Address{}, "want user@domain"},
		{"bob@", Address{}, "no domain"},
		{"eve@@example.com", Address{}, `"eve@@example.com": no domain`},
		{"a@b@c", Address{}, "unexpected character"},
		{`""@x`, Address{}, "no local part"},
		{"...@x", Address{}, "no local part"},
		{"-x@y", Address{}, `begin with "-"`},
		{`"-x"@y`, Address{}, `begin with "-"`},
		{`"\-x"@y`, Address{}, `begin with "-"`},
		{"<-x>", Address{}, `begin with "-"`},
		{"a@b\nRCPT TO:<eve@x>", Address{}, "control characters"},
		{"a@b\r\n (x)", Address{}, "control characters"},
		{"a@b (\x00)", Address{}, "control characters"},
		{"a\x7f@b", Address{}, "control characters"},
		{"a\u0085@b", Address{}, "invisible"},
		{"a@b\u3000c@d", Address{}, "invisible"},
		{"j\xfcrgen@x", Address{}, "invalid UTF-8"},
		{"a@b..c", Address{}, "empty labels"},
		{"a@.b", Address{}, "empty labels"},
		{"a@b.", Address{}, "empty labels"},
		{"a@b|c", Address{}, "may not have '|'"},
		{"a@[]", Address{}, "literal"},
		{"a@[x>SIZE=1]", Address{}, "a domain may not have '['"},
		{"a@[b,c@d]", Address{}, "a domain may not have '['"},
		{"a@[1 2]", Address{}, "literal"},
		{`a@[1\]]`, Address{}, "literal"},
		{"a@[1]x", Address{}, "unexpected character"},
		{`"a"b@c`, Address{}, "unexpected character"},
		{`a"b"@c`, Address{}, "unexpected character"},
		{"a@b(x)d@e", Address{}, "unexpected character"},
		{"<a@b", Address{}, `want ">"`},
		{"<<a@b>>", Address{}, "no local part"},
		{"a@b>", Address{}, "unbalanced"},
		{"<a@b> x", Address{}, `want ","`},
		{"<a b>", Address{}, `want ">"`},
		{"<@x a@b>", Address{}, "source route"},
		{"<@:a@b>", Address{}, "source route"},
		{`"a@b`, Address{}, "quote without its end"},
		{"a@b (x", Address{}, "comment without its end"},
		{`a\@b@c`, Address{}, "unexpected character"},
		{":include:/etc/shadow", Address{}, `unexpected ":"`},
		{strings.Repeat("l", maxLocal+1) + "@x", Address{}, "255"},
		{"a@" + strings.Repeat("d", maxPath-1), Address{}, "512"},
	} {
		got, err := Parse(tt.in)
		if got != tt.want || !errContains(err, tt.err) {
			t.Errorf("Parse(%q) = %+v, %v; want %+v, error containing %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestParsePathTakesTheNullReversePath(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Address
		err  string
	}{
		{"", Address{}, ""},
		{"<>", Address{}, ""},
		{" <> ", Address{}, ""},
		{"<bounce@example.org>", Address{"bounce", "example.org"}, ""},
		{"Bounce Mgr <bounce@example.org>", Address{"bounce", "example.org"}, ""},
		{"root", Address{Local: "root"}, ""},
		{"a@example.org, b@example.org", Address{}, "want one address"},
		{"x <>", Address{}, "no local part"},
	} {
		got, err := ParsePath(tt.in)
		if got != tt.want || !errContains(err, tt.err) {
			t.Errorf("ParsePath(%q) = %+v, %v; want %+v, error containing %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestParseListReadsWhatCallersWrite(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want string // String of each, joined by a blank
		err  string
	}{
		{"", "", ""},
		{" \t", "", ""},
		{",, ;", "", ""},
		{"(nobody)", "", ""},
		{"undisclosed-recipients:;", "", ""},
		{"undisclosed-recipients:", "", ""},
		{"bob@example.net, carol@example.com", "bob@example.net carol@example.com", ""},
		{`"Doe, Bob" <bob@example.net>, carol@example.com`, "bob@example.net carol@example.com", ""},
		{`"Doe \"Bob\", J" <bob@x>`, "bob@x", ""},
		{"=?UTF-8?B?SsO8cmdlbg==?= <bob@example.net>", "bob@example.net", ""},
		{"Jürgen <bob@example.net>", "bob@example.net", ""},
		{"J\xfcrgen <bob@example.net>", "bob@example.net", ""},
		{"Friends: a1@example.net, B <a2@example.net>;", "a1@example.net a2@example.net", ""},
		{"g1: a@x; g2:; b@x", "a@x b@x", ""},
		{"a1@example.net a2@example.net", "a1@example.net a2@example.net", ""},
		{"a1@example.net; a2@example.net", "a1@example.net a2@example.net", ""},
		{"a1@example.net;a2@example.net;", "a1@example.net a2@example.net", ""},
		{"a1@example.net,, ,a2@example.net,", "a1@example.net a2@example.net", ""},
		{"bob carol", "bob carol", ""},
		{`"bob smith"@example.net`, `"bob smith"@example.net`, ""},
		{"bob@example.net (eve@example.com)", "bob@example.net", ""},
		{"bob@example.net (a (b) c), carol@example.com", "bob@example.net carol@example.com", ""},
		{`bob@x (a \) eve@x \( b), (c)carol@x`, "bob@x carol@x", ""},
		{`"a@b" <c@d> ; <a@b>,<c@d>`, "c@d a@b c@d", ""},
		{"u0@x,\r\n u1@x,\r\n\tu2@x\r\n ", "u0@x u1@x u2@x", ""},
		{"\"long\r\n name\" <a@x>", "a@x", ""},
		{"[Team] R\\D, J. <a@x>", "", "want user@domain"},
		{"[Team] R\\D J. <a@x>", "a@x", ""},
		// RFC 5322 appendix A.5 and A.6
		{`Pete(A nice \) chap) <pete(his account)@silly.test(his host)>`, "pete@silly.test", ""},
		{`A Group(Some people):Chris Jones <c@(Chris's host.)public.example>, joe@example.org,` +
			"\r\n John <jdoe@one.test> (my dear friend); (the end of the group)", "c@public.example joe@example.org jdoe@one.test", ""},
		{"Joe Q. Public <john.q.public@example.com>", "john.q.public@example.com", ""},
		{"Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example", "mary@example.net jdoe@test.example", ""},
		{"John Doe <jdoe@machine(comment).  example>", "jdoe@machine.example", ""},
		{"(x) a (y) . (z) b (x) @ (y) c (z)", "a.b@c", ""},

		{"bob@example.net, eve@@example.com", "", `"eve@@example.com"`},
		{"bob@example.net, eve@@example.com, carol@x", "", `"eve@@example.com"`},
		{"bob@example.net Bob", "", "separate addresses by commas"},
		{"<a@x> <b@x>", "", `want ","`},
		{`"Bob <bob@example.net`, "", "quote without"},
		{"bob@x (a (b) c", "", "comment without"},
		{"g: a@x", "", `without ";"`},
		{"mailto:bob@x", "", `without ";"`},
		{"g: h: a@x;;", "", `unexpected ":"`},
		{"a@x,\n b@x", "", "control"},
		{"a@x,\r\nb@x", "", "control"},
		{"a@x\r\n", "", "control"},
		{"a@x,\r b@x", "", "control"},
		{"<>", "", "no local part"},
		{"a@x, -b@x", "", `begin with "-"`},
		{strings.Repeat("a@x,", 1000) + strings.Repeat("\x80", 200), "", `\x80": invalid`},
	} {
		list, err := ParseList(tt.in)
		var got []string
		for _, a := range list {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != tt.want || !errContains(err, tt.err) {
			t.Errorf("ParseList(%.200q) = %q, %v; want %q, error containing %q", tt.in, got, err, tt.want, tt.err)
		}
		if err != nil && len(err.Error()) > 4*maxQuoted+100 {
			t.Errorf("ParseList(%.20q…): error of %d octets", tt.in, len(err.Error()))
		}
	}
}

func TestLocalEndIsWhereTheDomainBelongs(t *testing.T) {
	for in, want := range map[string]string{
		"root (Cron)":                 "root@d (Cron)",
		"\"(Cron)\" <root>":           "\"(Cron)\" <root@d>",
		"a, b@x,\r\n\t<c > , \"d e\"": "a@d, b@x,\r\n\t<c@d > , \"d e\"@d",
		"g: a . b (x), c;":            "g: a . b@d (x), c@d;",
	} {
		boxes, err := Scan(in)
		if err != nil {
			t.Errorf("Scan(%q): %v", in, err)
			continue
		}
		got := in
		for _, b := range slices.Backward(boxes) {
			if b.Address.Domain == "" {
				got = got[:b.LocalEnd] + "@d" + got[b.LocalEnd:]
			}
		}
		if got != want {
			t.Errorf("Scan(%q) splices %q; want %q", in, got, want)
		}
	}
}

func TestStringQuotesWhereItMust(t *testing.T) {
	for _, tt := range []struct {
		a    Address
		want string
		utf8 bool
	}{
		{Address{}, "", false},
		{Address{Local: "root"}, "root", false},
		{Address{"a.b", "x"}, "a.b@x", false},
		{Address{"a..b", "x"}, `"a..b"@x`, false},
		{Address{".a", "x"}, `".a"@x`, false},
		{Address{"a.", "x"}, `"a."@x`, false},
		{Address{`a"b\c d`, "x"}, `"a\"b\\c d"@x`, false},
		{Address{"a@b", "x"}, `"a@b"@x`, false},
		{Address{"<a>", "x"}, `"<a>"@x`, false},
		{Address{"jürgen", "x"}, "jürgen@x", true},
		{Address{"j", "exämple"}, "j@exämple", true},
	} {
		if got := tt.a.String(); got != tt.want || tt.a.UTF8() != tt.utf8 {
			t.Errorf("%+v: String %q, UTF8 %v; want %q, %v", tt.a, got, tt.a.UTF8(), tt.want, tt.utf8)
		}
	}
}

func TestKeyIgnoresTheCaseOfTheDomainAlone(t *testing.T) {
	a := Address{"Bob", "Example.NET"}
	if a.Key() != (Address{"Bob", "example.net"}).Key() {
		t.Errorf("%v and its lower-case domain have different keys", a)
	}
	if a.Key() == (Address{"bob", "Example.NET"}).Key() {
		t.Errorf("%v and its lower-case local part have the same key", a)
	}
}

func TestWorkIsLinearOnHostileInput(t *testing.T) {
	const size = 1 << 17
	const perOctet = 12 // looks at an octet: skip, peek and the rules each have theirs
	for _, unit := range []string{"(", "()", "((", `"`, `""`, `" `, ",", ", ", ";", "<", "a<", "a ", "a. ", " .a", "a.",
		"@", "a@", "a@b ", "a@b.", `\`, ":", "a:;", "[", "[]", "(a)b", `"a".`, `"\a`, "\r\n ", "a,", "<a>,", "<@a,", "\xff", "é "} {
		for _, start := range []string{"", "<", "<@a:", "a@", `"`, "(", "g:"} {
			p := scanner{s: start + strings.Repeat(unit, size/len(unit))}
			_ = p.run() // most of these are refused; what it costs is the point
			if p.steps > perOctet*len(p.s) {
				t.Errorf("%q + 1 MiB of %q took %d steps for %d octets", start, unit, p.steps, len(p.s))
			}
		}
	}
}

func TestRefusedListsCostFewAllocations(t *testing.T) {
	in := strings.Repeat("a . ", 1<<18) + "@"
	// Joining a million dots would allocate as often; a path is full after 512.
	if n := testing.AllocsPerRun(1, func() { _, _ = ParseList(in) }); n > 4*maxPath {
		t.Errorf("ParseList allocates %v times", n)
	}
}

// checkLaws holds what is true of every accepted address.
func checkLaws(t *testing.T, in string, a Address) {
	t.Helper()
	out := a.String()
	if b, err := Parse(out); err != nil || a != b {
		t.Fatalf("%q gives %+v, but Parse(%q) = %+v, %v", in, a, out, b, err)
	}
	var c Address
	text, _ := a.MarshalText()
	if err := c.UnmarshalText(text); err != nil || a != c {
		t.Fatalf("%q gives %+v, but UnmarshalText(%q) = %+v, %v", in, a, text, c, err)
	}
	if !utf8.ValidString(out) || strings.ContainsAny(out, "\r\n\x00") || strings.HasPrefix(a.Local, "-") || a.Local == "" {
		t.Fatalf("%q gives the dangerous %+v, %q", in, a, out)
	}
	quoted := false
	for i := 0; i < len(out); i++ {
		switch c := out[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '<' || c == '>' || c == ',') && !quoted:
			t.Fatalf("%q gives %q with an unquoted %q", in, out, c)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"<>", "a@b", `"a@b"@example.org`, "0@>>", "<@x,@y:a@b>", "a(b)@c (d)", `"\"\\ "@[x]`, "ü@é", `a."b".c@d`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			if a != (Address{}) {
				t.Fatalf("Parse(%q) = %+v with error %v; want the zero Address", s, a, err)
			}
			return
		}
		checkLaws(t, s, a)
		if b, err := ParsePath(s); err != nil || b != a {
			t.Fatalf("Parse(%q) = %+v, ParsePath %+v, %v", s, a, b, err)
		}
	})
}

// FuzzParseList also compares with net/mail: where both read a list they must
// read the same one, or mail goes where the caller's own parser never saw it.
func FuzzParseList(f *testing.F) {
	for _, s := range []string{"a@b, c@d", "g: a@b;, c", `"x, y" <a@b> (c), d e`, "a@b,\r\n c@d", "u:;", `"v@e x"@g, "a@b" <c@d>`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		boxes, err := Scan(s)
		if err != nil {
			if boxes != nil {
				t.Fatalf("Scan(%q) = %+v with error %v", s, boxes, err)
			}
			return
		}
		end := 0
		for _, b := range boxes {
			checkLaws(t, s, b.Address)
			if b.LocalEnd <= end || b.LocalEnd > len(s) {
				t.Fatalf("Scan(%q): LocalEnd %d after %d", s, b.LocalEnd, end)
			}
			end = b.LocalEnd
		}
		other, err := mail.ParseAddressList(s)
		if err != nil {
			return
		}
		if len(other) != len(boxes) {
			t.Fatalf("Scan(%q) = %+v, net/mail %v", s, boxes, other)
		}
		for i, b := range boxes {
			if b.Address.Local+"@"+b.Address.Domain != other[i].Address {
				t.Fatalf("Scan(%q)[%d] = %+v, net/mail %q", s, i, b.Address, other[i].Address)
			}
		}
	})
}
