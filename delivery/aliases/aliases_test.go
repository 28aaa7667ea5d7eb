package aliases

import (
	"os"
	"strings"
	"testing"

	"postino/spool/address"
)

func describe(t Target) string {
	s := []string{"", "|", "", ":include:"}[t.Kind] + t.Text + t.Address.String()
	if t.Final {
		s = `\` + s
	}
	return s
}

func TestWhatAliasesStandFor(t *testing.T) {
	const text = `# comment
Root: admin@example.com
ops: root,
  carol@example.net ,, "Dave D." <dave@example.net>

"quoted name": \root
pipe: "|/usr/bin/vacation -a \"x, y\" bob", |/bin/true
file: /var/mail/archive , "/with space"
list::include:/etc/list
self: self, other@x.test
mailer-daemon:	postmaster
null: /dev/null` + "\r\n"
	entries, err := Parse("aliases", text)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"2 root: admin@example.com",
		"3 ops: root carol@example.net dave@example.net",
		`6 quoted name: \root`,
		`7 pipe: |/usr/bin/vacation -a "x, y" bob |/bin/true`,
		"8 file: /var/mail/archive /with space",
		"9 list: :include:/etc/list",
		"10 self: self other@x.test",
		"11 mailer-daemon: postmaster",
		"12 null: /dev/null",
	}
	for i, e := range entries {
		var words []string
		for _, target := range e.Targets {
			words = append(words, describe(target))
		}
		got := string(rune('0'+e.Line%10)) + " " + e.Name + ": " + strings.Join(words, " ")
		if e.Line >= 10 {
			got = "1" + got
		}
		if i >= len(want) || got != want[i] {
			t.Errorf("entry %d: %q", i, got)
		}
	}
	if len(entries) != len(want) {
		t.Errorf("%d entries, want %d", len(entries), len(want))
	}
}

func TestProblemsNameFileAndLine(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"no colon here", `f:1: "no colon here" is no alias`},
		{"ok: a@b\n  c@d\n\n  lost", "f:4: a line that begins with a blank"},
		{"a: b@\n", "f:1: a: "},
		{"a: b@x\nc: d@x\nA: e@x\n", `f:3: "a" is defined in line 1 already`},
		{"a:\n", `f:1: "a" stands for nobody`},
		{"a: |\n", "names no command"},
		{"a: :include:list\n", "want an absolute path"},
		{`"a: b`, "is no alias"},
		{"a: b\nb: c\nc: a\n", "f:3: c leads back to a"},
		{"a: x@y, b\nb: a\n", "f:2: b leads back to a"},
		{": x@y\n", "is no alias"},
	} {
		if _, err := Parse("f", tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestOneWrongLineLeavesTheOthers(t *testing.T) {
	entries, err := Parse("f", "a: b@x\nwrong\nc: d@x\n")
	if err == nil || len(entries) != 2 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

func TestManyProblemsAreCounted(t *testing.T) {
	_, err := Parse("f", strings.Repeat("wrong\n", 1000))
	if err == nil || strings.Count(err.Error(), "\n") != maxProblems || !strings.HasSuffix(err.Error(), "and 990 more") {
		t.Errorf("%v", err)
	}
}

// What the manual shows is what is read.
func TestExamplesOfTheManualAreAliases(t *testing.T) {
	page, err := os.ReadFile("../../man/aliases.5")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), ".Bd -literal -offset indent\n")[1:]
	for _, block := range blocks {
		text, _, _ := strings.Cut(block, ".Ed\n")
		text = strings.ReplaceAll(text, `\e`, `\`)
		if entries, err := Parse("aliases.5", text); err != nil || len(entries) == 0 {
			t.Errorf("%v in\n%s", err, text)
		}
	}
	if len(blocks) < 2 {
		t.Errorf("%d examples", len(blocks))
	}
}

// Whatever is accepted names each alias once, and every target is usable.
func FuzzParse(f *testing.F) {
	f.Add("a: b, \"|c d\", /e, :include:/f, \\g\n  h@i\n\"j k\": l")
	f.Add("a:b\nb:a")
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := Parse("f", text)
		seen := make(map[string]bool)
		last := 0
		for _, e := range entries {
			if seen[e.Name] || e.Name != strings.ToLower(e.Name) || len(e.Targets) == 0 || e.Line <= last {
				t.Fatalf("%q: entry %+v, %v", text, e, err)
			}
			seen[e.Name], last = true, e.Line
			for _, target := range e.Targets {
				switch target.Kind {
				case Mailbox:
					if again, err := address.Parse(target.Address.String()); err != nil || again != target.Address {
						t.Fatalf("%q: %+v, %v", text, target, err)
					}
				case File, Include:
					if !strings.HasPrefix(target.Text, "/") {
						t.Fatalf("%q: %+v", text, target)
					}
				case Program:
					if target.Text == "" {
						t.Fatalf("%q: %+v", text, target)
					}
				}
			}
		}
		if err != nil && !strings.HasPrefix(err.Error(), "f:") {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
