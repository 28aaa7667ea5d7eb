package header

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// read returns the canonical message, header section and body apart.
func read(t *testing.T, in string, o Options) (head, body string) {
	t.Helper()
	s, r, err := Read(strings.NewReader(in), o)
	if err != nil {
		t.Fatalf("Read(%.200q): %v", in, err)
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("body of %.200q: %v", in, err)
	}
	var b bytes.Buffer
	if n, err := s.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v; wrote %d", n, err, b.Len())
	}
	return strings.TrimSuffix(b.String(), "\r\n"), string(rest)
}

func section(t *testing.T, in string) *Section {
	t.Helper()
	s, _, err := Read(strings.NewReader(in), Options{})
	if err != nil {
		t.Fatalf("Read(%.200q): %v", in, err)
	}
	return s
}

func text(s *Section) string {
	var b bytes.Buffer
	_, _ = s.WriteTo(&b) // a Buffer takes everything
	return strings.TrimSuffix(b.String(), "\r\n")
}

var canonicalCases = []struct {
	name, in, head, body string
}{
	{"LF", "A: b\n\nx\ny\n", "A: b\r\n", "x\r\ny\r\n"},
	{"CRLF", "A: b\r\n\r\nx\r\n", "A: b\r\n", "x\r\n"},
	{"mixed", "A: b\r\nX-A: 1\n\r\nBody\r\n", "A: b\r\nX-A: 1\r\n", "Body\r\n"},
	{"CR CR LF", "A: b\r\r\n\r\r\nx\r\r\r\ny", "A: b\r\n", "x\r\ny\r\n"},
	{"bare CR is a blank in the section", "A: b\rBcc: v@x\r\n\rc: d\n\n", "A: b Bcc: v@x\r\n c: d\r\n", ""},
	{"bare CR is a line end in the body", "A: b\n\na\rb\r\rc\r", "A: b\r\n", "a\r\nb\r\n\r\nc\r\n"},
	{"NUL goes", "A\x00: b\x00\n\x00\na\x00b\r\x00\n\x00", "A: b\r\n", "ab\r\n"},
	{"last newline", "A: b\n\nabc", "A: b\r\n", "abc\r\n"},
	{"header alone", "A: b\nC: d", "A: b\r\nC: d\r\n", ""},
	{"empty", "", "", ""},
	{"NULs alone", "\x00\x00\x00\n", "", ""},
	{"no header", "just text\nmore\n", "", "just text\r\nmore\r\n"},
	{"garbage begins the body", "A: b\nno colon here\nx\n", "A: b\r\n", "no colon here\r\nx\r\n"},
	{"a sentence with a colon", "A: b\nDear Bob: hello\n", "A: b\r\n", "Dear Bob: hello\r\n"},
	{"a CR for the last line", "A: b\n\nx\n\r", "A: b\r\n", "x\r\n\r\n"},
	{"no name", "A: b\n: x\n\n", "A: b\r\n", ": x\r\n\r\n"},
	{"leading blank line", "\nA: b\n", "", "A: b\r\n"},
	{"leading line of blanks", "  \nA: b\n", "", "  \r\nA: b\r\n"},
	{"leading continuation", "\tx: y\nA: b\n", "", "\tx: y\r\nA: b\r\n"},
	{"folding", "S: one\n two\n\tthree\n \nT: x\n\n", "S: one\r\n two\r\n\tthree\r\n \r\nT: x\r\n", ""},
	{"blanks before the colon", "To \t: b@x\n\n", "To \t: b@x\r\n", ""},
	{"odd names", "X_Foo.Bar+1: v\n\n", "X_Foo.Bar+1: v\r\n", ""},
	{"blanks and 8-bit stay", "A:  gr\xfc\xdfe  \n\n \t \ngr\xc3\xbc\f\x1b\n", "A:  gr\xfc\xdfe  \r\n", " \t \r\ngr\xc3\xbc\f\x1b\r\n"},
	{"mbox", "From alice Mon Jan  1 00:00:00 2024\nA: b\n\nFrom here\n", "A: b\r\n", "From here\r\n"},
	{"mbox without date, quoted, repeated", "From alice\n>From bob\n>>From x\r\nA: b\n\n", "A: b\r\n", ""},
	{"mbox and no header", "From alice\nhello\n", "", "hello\r\n"},
	{"mbox and a blank line", "From alice\n\nhello\n", "", "hello\r\n"},
	{"mbox line further down", "A: b\nFrom x y\n", "A: b\r\n", "From x y\r\n"},
	{"From with a blank before its colon", "From : a@b\n\n", "From : a@b\r\n", ""},
	{"dots without DotEnds", "A: b\n\n.\n..\n.x\n.", "A: b\r\n", ".\r\n..\r\n.x\r\n.\r\n"},
	{"dot for a header", ".\nx\n", "", ".\r\nx\r\n"},
	{"a name too long to be one", strings.Repeat("n", maxName+1) + ": x\n", "", strings.Repeat("n", maxName+1) + ": x\r\n"},
	{"the longest name", strings.Repeat("n", maxName) + ": x\n", strings.Repeat("n", maxName) + ": x\r\n", ""},
	{"long quoted mbox line", strings.Repeat(">", maxName+9) + "From x\n", "", strings.Repeat(">", maxName+9) + "From x\r\n"},
	{"body line beyond every buffer", "A: b\n\n" + strings.Repeat("y", 3*bufferSize) + "\rz", "A: b\r\n", strings.Repeat("y", 3*bufferSize) + "\r\nz\r\n"},
	{"no line end and no header", strings.Repeat("y", 2*MaxSection), "", strings.Repeat("y", 2*MaxSection) + "\r\n"},
	{"long field", "A: " + strings.Repeat("y", 3*bufferSize) + "\nTo: b@x\n\nz\n", "A: " + strings.Repeat("y", 3*bufferSize) + "\r\nTo: b@x\r\n", "z\r\n"},
	{"CRs without end", "A: b\n\nx" + strings.Repeat("\r", 100000) + "y", "A: b\r\n", "x" + strings.Repeat("\r\n", 100000) + "y\r\n"},
	{"CRs with an end", "A: b\n\nx" + strings.Repeat("\r", 100000) + "\ny", "A: b\r\n", "x\r\ny\r\n"},
}

func TestOutputIsCanonical(t *testing.T) {
	for _, tt := range canonicalCases {
		head, body := read(t, tt.in, Options{})
		if head != tt.head || body != tt.body {
			t.Errorf("%s: %.200q gives\n%.200q %.200q; want\n%.200q %.200q", tt.name, tt.in, head, body, tt.head, tt.body)
		}
	}
}

func TestChunksDoNotMatter(t *testing.T) {
	for _, tt := range canonicalCases {
		if len(tt.in) > 1<<18 {
			continue
		}
		for name, r := range map[string]io.Reader{
			"one octet":   iotest.OneByteReader(strings.NewReader(tt.in)),
			"half":        iotest.HalfReader(strings.NewReader(tt.in)),
			"EOF at once": iotest.DataErrReader(strings.NewReader(tt.in)),
			"empty reads": &stutter{r: strings.NewReader(tt.in)},
		} {
			s, b, err := Read(r, Options{})
			if err != nil {
				t.Errorf("%s by %s: %v", tt.name, name, err)
				continue
			}
			body, err := io.ReadAll(iotest.OneByteReader(b))
			if text(s) != tt.head || string(body) != tt.body || err != nil {
				t.Errorf("%s by %s: %.200q %.200q, %v", tt.name, name, text(s), body, err)
			}
		}
	}
}

// stutter returns nothing, as a reader may, before each octet.
type stutter struct {
	r     io.Reader
	again bool
}

func (s *stutter) Read(p []byte) (int, error) {
	if s.again = !s.again; s.again {
		return 0, nil
	}
	return s.r.Read(p[:1])
}

func TestALoneDotEndsTheInput(t *testing.T) {
	for _, tt := range []struct{ in, head, body string }{
		{"A: b\n\na\n.\nb\n", "A: b\r\n", "a\r\n"},
		{"A: b\r\n\r\na\r\n.\r\nb\r\n", "A: b\r\n", "a\r\n"},
		{"A: b\n\na\n.", "A: b\r\n", "a\r\n"},
		{"A: b\n\na\n.\r", "A: b\r\n", "a\r\n"},
		{"To: b\n.\nCc: e\n\nx\n", "To: b\r\n", ""},
		{"To: b\n.\r\nCc: e\n\nx\n", "To: b\r\n", ""},
		{"To: b\n.", "To: b\r\n", ""},
		{".\nTo: b\n", "", ""},
		{"A: b\n\n.\nx", "A: b\r\n", ""},
		{"text\n.\nx", "", "text\r\n"},
		{"A: b\n\n..\n..x\n.y\n. \n .\n", "A: b\r\n", "..\r\n..x\r\n.y\r\n. \r\n .\r\n"},
		{"A: b\n\na\r.\nb\r.\r\nc\n", "A: b\r\n", "a\r\n.\r\nb\r\n.\r\nc\r\n"}, // no line of the caller's
		{"A: b\n\n.\x00\nb\n", "A: b\r\n", ".\r\nb\r\n"},                       // nor this
		{"A: b\n.\x00\nb\n", "A: b\r\n", ".\r\nb\r\n"},
		{"A: b\n\n.\rx\n.\r\r\nb\n", "A: b\r\n", ".\r\nx\r\n.\r\nb\r\n"},
	} {
		for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in)), iotest.DataErrReader(strings.NewReader(tt.in))} {
			s, b, err := Read(r, Options{DotEnds: true})
			if err != nil {
				t.Fatalf("%q: %v", tt.in, err)
			}
			body, err := io.ReadAll(b)
			if text(s) != tt.head || string(body) != tt.body || err != nil {
				t.Errorf("%q gives %q %q, %v; want %q %q", tt.in, text(s), body, err, tt.head, tt.body)
			}
		}
	}
}

// held is a pipe whose other end stays open: to read on is to wait for ever.
type held struct {
	t    *testing.T
	data string
}

func (h *held) Read(p []byte) (int, error) {
	if h.data == "" {
		h.t.Error("reads on where no more input is needed")
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 3)], h.data)
	h.data = h.data[n:]
	return n, nil
}

func TestNothingWaitsForMoreThanItNeeds(t *testing.T) {
	for _, in := range []string{"A: b\n\n", "A: b\r\n\r\n", "\n", "A: b\ntext\n", "text\n", strings.Repeat("y", maxName+2)} {
		if _, _, err := Read(&held{t, in}, Options{}); err != nil {
			t.Errorf("Read(%.20q): %v", in, err)
		}
	}
	for _, in := range []string{"A: b\n\nx\n.\n", "A: b\n\nx\n.\r\n", "A: b\n.\n", ".\n", "x\n.\n", "A: b\n\n.\r\n"} {
		_, b, err := Read(&held{t, in}, Options{DotEnds: true})
		if err != nil {
			t.Errorf("Read(%q): %v", in, err)
			continue
		}
		if _, err := io.ReadAll(b); err != nil {
			t.Errorf("body of %q: %v", in, err)
		}
	}
	_, b, _ := Read(&held{t, "A: b\n\nfirst\n"}, Options{DotEnds: true})
	if n, err := io.ReadFull(b, make([]byte, len("first\r\n"))); err != nil {
		t.Errorf("a line that is there: %d, %v", n, err)
	}
	_, b, _ = Read(&held{t, "A:b\n\n\n.x"}, Options{DotEnds: true}) // ".x" comes alone
	if n, err := io.ReadFull(b, make([]byte, len("\r\n.x"))); err != nil {
		t.Errorf("a line that is no dot line: %d, %v", n, err)
	}
}

func TestTruncatedStreamNeverLooksComplete(t *testing.T) {
	broken := io.ErrUnexpectedEOF
	for _, in := range []string{"", "A: b", "A: b\n", "A: b\n\n", "A: b\n\nx", "A: b\n\nx\n", "A: b\n.", "A: b\n\n.", "A: b\n\n.\r", "A: b\n\nx\r", ".", "x"} {
		for _, o := range []Options{{}, {DotEnds: true}} {
			_, b, err := Read(io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)), o)
			if err != nil {
				if !errors.Is(err, broken) {
					t.Errorf("Read(%q): %v", in, err)
				}
			} else if !strings.Contains(in, "\n\n") {
				t.Errorf("Read(%q) takes it for a whole section", in)
			}
			got, err := io.ReadAll(b)
			if !errors.Is(err, broken) {
				t.Errorf("body of %q: %q, %v; want the error", in, got, err)
			}
		}
	}
}

func TestSectionHasALimitAndTheRestCanBeDrained(t *testing.T) {
	line := "X: " + strings.Repeat("y", 59) + "\n" // 64 octets when it is canonical
	for _, tt := range []struct {
		name, in string
		err      error
	}{
		{"largest", strings.Repeat(line, MaxSection/64) + "\nbody\n", nil},
		{"largest without a blank line", strings.Repeat(line, MaxSection/64) + "body\n", nil},
		{"largest at EOF", strings.Repeat(line, MaxSection/64), nil},
		{"a field more", strings.Repeat(line, MaxSection/64) + "a: b\n\nbody\n", ErrTooLarge},
		{"one line", "X: " + strings.Repeat("y", MaxSection), ErrTooLarge},
		{"one line and more", "X: " + strings.Repeat("y", 2*MaxSection) + "\n\nbody\n", ErrTooLarge},
		{"continuations", "X: y\n" + strings.Repeat(" y\n", MaxSection/3), ErrTooLarge},
		{"mbox lines", strings.Repeat("From x\n", MaxSection/8+1) + "A: b\n\n", ErrTooLarge},
		{"CRs", strings.Repeat("\r", MaxSection+9) + "\nA: b\n", ErrTooLarge},
		{"NULs", strings.Repeat("\x00", MaxSection+9) + "\nA: b\n", ErrTooLarge},
	} {
		for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.HalfReader(strings.NewReader(tt.in))} {
			in := &counter{r: r}
			s, b, err := Read(in, Options{})
			if !errors.Is(err, tt.err) || (s == nil) != (err != nil) {
				t.Errorf("%s: %v, %v; want %v", tt.name, s != nil, err, tt.err)
				continue
			}
			if _, err := io.Copy(io.Discard, b); err != nil || in.n != len(tt.in) {
				t.Errorf("%s: drained %d of %d, %v", tt.name, in.n, len(tt.in), err)
			}
		}
	}
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestBodyStreamsInBoundedMemory(t *testing.T) {
	for _, unit := range []string{"y", "y\n", "\r", "\n", "\x00", "\r\x00y"} {
		in := io.MultiReader(strings.NewReader("A: b\n\n"), &endless{unit: unit, left: 8 << 20}, strings.NewReader("z"))
		_, r, err := Read(in, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("%q: %v", unit, err)
		}
		if b := r.(*body); cap(b.out) > 8*bufferSize || cap(b.in.buf) > 2*bufferSize {
			t.Errorf("8 MiB of %q: buffers of %d and %d octets", unit, cap(b.in.buf), cap(b.out))
		}
	}
}

func TestHostileFieldIsRefusedInBoundedMemory(t *testing.T) {
	_, r, err := Read(io.MultiReader(strings.NewReader("A: "), &endless{unit: "y", left: 32 << 20}), Options{})
	if !errors.Is(err, ErrTooLarge) || cap(r.(*body).in.buf) > 4*MaxSection {
		t.Errorf("a line of 32 MiB: %v, with a buffer of %d octets", err, cap(r.(*body).in.buf))
	}
}

type endless struct {
	unit string
	left int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := 0
	for n+len(e.unit) <= len(p) {
		n += copy(p[n:], e.unit)
	}
	e.left -= n
	return n, nil
}
