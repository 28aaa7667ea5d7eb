package header

import (
	"mime"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"postino/spool/address"
)

func TestFieldsAreFoundInAnyCase(t *testing.T) {
	s := section(t, "tO : a@x\nSubject: one\n  two \nsubject: three\nEmpty:\n\n")
	if !s.Has("To") || !s.Has("SUBJECT") || s.Has("Cc") || s.Has("Subjec") {
		t.Error("Has is wrong about To, Subject, Cc or Subjec")
	}
	for name, want := range map[string]string{"to": "a@x", "Subject": "one  two", "Empty": "", "Cc": ""} {
		if got := s.Value(name); got != want {
			t.Errorf("Value(%q) = %q; want %q", name, got, want)
		}
	}
	if f := s.Fields()[0]; f.Name != "tO" || string(f.Raw) != "tO : a@x\r\n" {
		t.Errorf("first field is %q %q", f.Name, f.Raw)
	}
}

func TestRecipientsOfTheHeader(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{"To: a1@example.net\nTo: a2@example.net\n", "a1@example.net a2@example.net", ""},
		{"To: bob@example.net\nCc: Bob <bob@Example.NET>\nBcc: c@x, \n d@x\n", "bob@example.net c@x d@x", ""},
		{"To : bob@example.net\n", "bob@example.net", ""},
		{"To: u0@x,\n u1@x,\r\n\tu2@x\n", "u0@x u1@x u2@x", ""},
		{"To: b@x\nResent-To: r@x\nRESENT-bcc: s@x\nCc: c@x\n", "r@x s@x", ""},
		{"To: b@x\nResent-From: r@x\nResent-Date: x\n", "b@x", ""},
		{"To: b@x\nResent-Bcc:\n", "", ""},
		{"To: b@x\nApparently-To: e@x\nReply-To: f@x\n", "b@x", ""},
		{"To: undisclosed-recipients:;\nBcc: b@x\n", "b@x", ""},
		{"To: b@x\rBcc: e@x\n", "", "To: "},
		{"Subject: x\rBcc: v@x\r\n", "", ""},
		{"Subject: s\n\nTo: e@x\n", "", ""},
		{"From: a@x\n", "", ""},
		{"To: bob@x\nCc: eve@@example.com\n", "", `Cc: "eve@@example.com"`},
	} {
		list, err := section(t, tt.in).Recipients()
		var got []string
		for _, a := range list {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("Recipients of %q: %q, %v; want %q, error containing %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestDropTakesContinuationsAlong(t *testing.T) {
	s := section(t, "A: 1\nbCC : x@y,\n z@y\nB: 2\nResent-Bcc: q\nBcc:\nBccx: 3\n\nBcc: body\n")
	s.Drop("Bcc", "resent-bcc")
	if got, want := text(s), "A: 1\r\nB: 2\r\nBccx: 3\r\n"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestAddedFieldsAreOneFieldEach(t *testing.T) {
	long := strings.Repeat("word ", 40)
	for _, tt := range []struct{ value, want string }{
		{"v", "N: v\r\n"},
		{"", "N: \r\n"},
		{"a\r\nBcc: b\x00c\n", "N: a  Bcc: b c\r\n"},
		{"gr\xfc\xdfe", "N: gr\xfc\xdfe\r\n"},
		{strings.Repeat("x", 100), "N: " + strings.Repeat("x", 100) + "\r\n"},
		{strings.Repeat("x", 70) + "  " + strings.Repeat("y", 90) + " z", "N: " + strings.Repeat("x", 70) + "\r\n  " + strings.Repeat("y", 90) + "\r\n z\r\n"},
	} {
		var s Section
		s.Append("N", tt.value)
		if text(&s) != tt.want {
			t.Errorf("Append(%q) gives %q; want %q", tt.value, text(&s), tt.want)
		}
	}
	var s Section
	s.Append("Two", long)
	s.Prepend("One", long)
	for line := range strings.Lines(text(&s)) {
		if len(line) > maxLine+len("\r\n") {
			t.Errorf("line of %d octets: %q", len(line), line)
		}
	}
	if got := s.Fields(); len(got) != 2 || got[0].Name != "One" || s.Value("Two") != strings.TrimSpace(long) {
		t.Errorf("fields %+v", got)
	}
}

func TestAddingLeavesOtherFieldsAlone(t *testing.T) {
	s := section(t, "A: b\nC: d\n\n")
	before := text(s)
	s.Append("E", "f")
	s.Drop("E")
	if text(s) != before {
		t.Errorf("got %q; want %q", text(s), before)
	}
}

func TestQualifySplicesTheDomainAndNothingElse(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"From: \"(Cron Daemon)\" <root>\n", "From: \"(Cron Daemon)\" <root@d.example>\r\n"},
		{"From: root (Cron Daemon)\n", "From: root@d.example (Cron Daemon)\r\n"},
		{"To:  a,\n\tb@x ,  \"c d\"(e)\n", "To:  a@d.example,\r\n\tb@x ,  \"c d\"@d.example(e)\r\n"},
		{"resent-CC : g: a;\n", "resent-CC : g: a@d.example;\r\n"},
		{"From: =?utf-8?q?A_B?=  <a@example.org>\nTo: \"X,  Y\"\n\t<bob@host>\n", "From: =?utf-8?q?A_B?=  <a@example.org>\r\nTo: \"X,  Y\"\r\n\t<bob@host>\r\n"},
		{"To: a, b@@c\n", "To: a, b@@c\r\n"},
		{"X-To: a\nSubject: b\n", "X-To: a\r\nSubject: b\r\n"},
		{"Sender: a\nReply-To: b\nBcc: c\nResent-From: d\nResent-Sender: e\nResent-To: f\nResent-Bcc: g\n",
			"Sender: a@d.example\r\nReply-To: b@d.example\r\nBcc: c@d.example\r\nResent-From: d@d.example\r\n" +
				"Resent-Sender: e@d.example\r\nResent-To: f@d.example\r\nResent-Bcc: g@d.example\r\n"},
	} {
		s := section(t, tt.in)
		s.Qualify("d.example")
		if text(s) != tt.want {
			t.Errorf("%q gives %q; want %q", tt.in, text(s), tt.want)
		}
		s.Qualify("other.example")
		if text(s) != tt.want {
			t.Errorf("%q, qualified twice, gives %q", tt.in, text(s))
		}
	}
}

func TestEightBit(t *testing.T) {
	if section(t, "A: b\n\n\xff").EightBit() || !section(t, "A: b\nC: \x80\n\n").EightBit() {
		t.Error("EightBit is about the section alone")
	}
}

func TestMailboxIsReadBackAsItWasMeant(t *testing.T) {
	a := address.Address{Local: "a", Domain: "b"}
	for _, tt := range []struct{ name, want, back string }{
		{"", "a@b", ""},
		{" \r\n", "a@b", ""},
		{"Web App", "Web App <a@b>", "Web App"},
		{"O'Neil, Pat (x)", `"O'Neil, Pat (x)" <a@b>`, "O'Neil, Pat (x)"},
		{"Alice O. Example", `"Alice O. Example" <a@b>`, "Alice O. Example"},
		{`a "b" \c`, `"a \"b\" \\c" <a@b>`, `a "b" \c`},
		{"x\r\nBcc: y\x00\x1b", `"x  Bcc: y" <a@b>`, "x  Bcc: y"},
		{"=?utf-8?q?x?=", `"=?utf-8?q?x?=" <a@b>`, ""},
		{"Jürgen", "=?UTF-8?B?SsO8cmdlbg==?= <a@b>", "Jürgen"},
		{"J\xfcrgen", "=?UTF-8?B?Su+/vXJnZW4=?= <a@b>", "J\uFFFDrgen"},
		{"x" + strings.Repeat("日本", 40), "", "x" + strings.Repeat("日本", 40)},
	} {
		got := Mailbox(tt.name, a)
		if tt.want != "" && got != tt.want {
			t.Errorf("Mailbox(%q) = %q; want %q", tt.name, got, tt.want)
		}
		back, err := mail.ParseAddress(got)
		if err != nil || back.Address != "a@b" || tt.back != "" && back.Name != tt.back {
			t.Errorf("Mailbox(%q) = %q is read as %+v, %v", tt.name, got, back, err)
		}
		if list, err := address.ParseList(got); err != nil || !slices.Equal(list, []address.Address{a}) {
			t.Errorf("Mailbox(%q) = %q is read as %v, %v", tt.name, got, list, err)
		}
		for word := range strings.FieldsSeq(got) {
			if len(word) > 75 {
				t.Errorf("Mailbox(%q) has the word %q of %d octets", tt.name, word, len(word))
			}
			if part, err := new(mime.WordDecoder).Decode(word); err == nil && !utf8.ValidString(part) {
				t.Errorf("Mailbox(%q) has the word %q with part of a rune", tt.name, word)
			}
		}
	}
}

func TestDate(t *testing.T) {
	when := time.Date(2026, time.January, 2, 3, 4, 5, 0, time.FixedZone("", -(5*60+30)*60))
	if got, want := Date(when), "Fri, 2 Jan 2026 03:04:05 -0530"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}
