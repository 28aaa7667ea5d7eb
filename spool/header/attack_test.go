package header

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// A section costs memory by its fields as much as by its octets.
func TestFieldsAreCounted(t *testing.T) {
	for n, want := range map[int]error{MaxFields: nil, MaxFields + 1: ErrTooLarge} {
		section, _, err := Read(strings.NewReader(strings.Repeat("X:\n", n)+"\nbody\n"), Options{})
		if !errors.Is(err, want) || want == nil && len(section.Fields()) != n {
			t.Errorf("%d fields: %v, want %v", n, err, want)
		}
	}
}

// Who reads a section is asked before much of it is kept, whatever it is made of, and
// not for a body.
func TestLargeSectionIsAskedFor(t *testing.T) {
	refused := errors.New("no place")
	long := strings.Repeat("x", 2*SmallSection)
	for name, tt := range map[string]struct {
		in    string
		large bool
	}{
		"small":            {"A: b\n\nbody\n", false},
		"large body":       {"A: b\n\n" + long + "\n", false},
		"no header":        {long + "\n", false},
		"one line":         {"A: " + long + "\n\nbody\n", true},
		"one endless line": {"A: " + long, true},
		"many lines":       {strings.Repeat("A: b\n", SmallSection/4) + "\n", true},
		"folded":           {"A:\n" + strings.Repeat(" b\n", SmallSection/2) + "\n", true},
		"mbox lines":       {strings.Repeat("From me\n", SmallSection/4) + "\n", true},
	} {
		asked := 0
		options := Options{Large: func() error { asked++; return nil }}
		_, rest, err := Read(strings.NewReader(tt.in), options)
		if err != nil || asked > 1 || (asked == 1) != tt.large {
			t.Errorf("%s: %v, asked %d times", name, err, asked)
		}
		if _, err := io.Copy(io.Discard, rest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		options.Large = func() error { return refused }
		if _, _, err := Read(strings.NewReader(tt.in), options); (err == refused) != tt.large {
			t.Errorf("%s: %v, want it refused: %v", name, err, tt.large)
		}
	}
}

// Check says of a section what Read is going to say of it.
func TestCheckIsWhatReadSays(t *testing.T) {
	for _, n := range []int{MaxSection - 500, MaxSection - 40, MaxSection - 8, MaxSection - 4} {
		section, _, err := Read(strings.NewReader("A: "+strings.Repeat("x", n-len("A: \r\n"))+"\n\n"), Options{})
		if err != nil {
			t.Fatal(n, err)
		}
		for range 2 {
			var text strings.Builder
			if _, err := section.WriteTo(&text); err != nil {
				t.Fatal(err)
			}
			_, _, want := Read(strings.NewReader(text.String()), Options{})
			if got := section.Check(); got != want {
				t.Errorf("%d octets: Check says %v, Read %v", text.Len(), got, want)
			}
			section.Append("From", "root@localhost")
		}
	}
}
