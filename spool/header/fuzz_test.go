package header

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// whole is what Read makes of in, as one text.
func whole(t *testing.T, r io.Reader, o Options) (*Section, string, string) {
	t.Helper()
	s, b, err := Read(r, o)
	if err != nil {
		t.Skip() // only what is larger than a fuzzer should try
	}
	rest, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	_, _ = s.WriteTo(&out) // a Buffer takes everything
	return s, out.String() + string(rest), string(rest)
}

var bareEnd = regexp.MustCompile(`(?:^|[^\r])\n|\r(?:$|[^\n])|\x00`)

// tolerantNames is the header as a reader sees it to whom CR, LF and CRLF all
// end a line, and blanks before a colon mean nothing.
func tolerantNames(text string) []string {
	var names []string
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" {
			break
		}
		if name, _, ok := strings.Cut(line, ":"); ok && !strings.ContainsAny(line[:1], " \t") {
			names = append(names, strings.TrimRight(name, " \t"))
		}
	}
	return names
}

func FuzzRead(f *testing.F) {
	for _, tt := range canonicalCases {
		if len(tt.in) < 4096 {
			f.Add(tt.in, true)
		}
	}
	f.Add("To: b\n.\nCc: e\n\nx\r\n.\r\ny", true)
	f.Fuzz(func(t *testing.T, in string, dot bool) {
		o := Options{DotEnds: dot}
		s, once, body := whole(t, strings.NewReader(in), o)
		if at := bareEnd.FindStringIndex(once); at != nil || once != "" && !strings.HasSuffix(once, "\r\n") {
			t.Fatalf("%q gives %q, which is not canonical at %v", in, once, at)
		}
		if _, twice, again := whole(t, strings.NewReader(once), Options{}); twice != once || again != body {
			t.Fatalf("%q gives %q, and that %q", in, once, twice)
		}
		if _, slowly, _ := whole(t, iotest.OneByteReader(strings.NewReader(in)), o); slowly != once {
			t.Fatalf("%q gives %q, octet by octet %q", in, once, slowly)
		}
		var names []string
		for _, f := range s.Fields() {
			names = append(names, f.Name)
		}
		if got := tolerantNames(once); !slices.Equal(got, names) {
			t.Fatalf("%q gives %q, whose fields are %q to us and %q to others", in, once, names, got)
		}
		before, beforeErr := s.Recipients()
		s.Qualify("d.example")
		if after, err := s.Recipients(); (err == nil) != (beforeErr == nil) || len(after) > len(before) {
			t.Fatalf("%q: recipients %v, %v; qualified %v, %v", in, before, beforeErr, after, err)
		}
		s.Drop("Bcc", "Resent-Bcc")
		for _, name := range tolerantNames(text(s)) {
			if strings.EqualFold(name, "bcc") || strings.EqualFold(name, "resent-bcc") {
				t.Fatalf("%q keeps a field %q: %q", in, name, text(s))
			}
		}
	})
}

// FuzzAppend: no value makes a second field, or is changed but for its controls
// and the blanks around it.
func FuzzAppend(f *testing.F) {
	f.Add("a\r\nBcc: b")
	f.Add(strings.Repeat("word  ", 40))
	f.Add("\t" + strings.Repeat("x", 80) + "\t\ty")
	f.Fuzz(func(t *testing.T, value string) {
		var s Section
		s.Append("N", value)
		back, out, _ := whole(t, strings.NewReader(text(&s)+"\r\n"), Options{})
		if len(back.Fields()) != 1 || out != text(&s)+"\r\n" {
			t.Fatalf("Append(%q) gives %q", value, text(&s))
		}
		want := strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ").Replace(value)
		if got := back.Value("n"); got != strings.Trim(want, " \t") {
			t.Fatalf("Append(%q) has the value %q", value, got)
		}
	})
}
