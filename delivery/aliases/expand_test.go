package aliases

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postino/spool/address"
)

// here is a machine on which nobody forwards mail.
func here() Machine {
	return Machine{IsLocal: func(a address.Address) bool { return strings.EqualFold(a.Domain, "here.test") }}
}

// show writes an expansion as a person would: final names with a backslash, what an
// included file named in brackets.
func show(x Expansion) string {
	var words []string
	for _, t := range x.Members {
		s := t.Text
		switch {
		case t.Kind == Program:
			s = "|" + s
		case t.Kind == Mailbox:
			s = t.Address.String()
			if t.Final {
				s = `\` + s
			}
		}
		if t.Owner != "" {
			s = t.Owner + ">" + s
		}
		if t.Listed {
			s = "[" + s + "]"
		}
		words = append(words, s)
	}
	return strings.Join(words, " ")
}

func TestNamesAreFollowedToTheirEnd(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "list")
	if err := os.WriteFile(list, []byte("# members\nann@a.test, bob\n\n|/bin/evil\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "nothing")
	wide := make([]string, maxTargets+1)
	for i := range wide {
		wide[i] = fmt.Sprintf("u%d@a.test", i)
	}
	var deep strings.Builder
	for i := range maxDepth + 2 {
		fmt.Fprintf(&deep, "d%d: d%d\n", i, i+1)
	}
	table := newTable("aliases", `root: admin@example.com
Ops: root, "quoted name", carol@example.net, ROOT
"quoted name": dave@example.net
bob: \bob, bob@else.test
carl: carl
dora: dora, root@here.test
loop1: loop2
loop2: loop1@HERE.test
far: loop1@else.test
devnull: /dev/null
pipe: "|/bin/cat > /tmp/x"
list: :include:`+list+`
gone: :include:`+fifo+`
back: \root
team: crew, ann@a.test, |team
owner-team: bob
crew: carol@example.net, solo
owner-crew: owner-team
solo: \solo
diamond: left, right
left: root
right: root
wide: `+strings.Join(wide, ",")+"\n"+deep.String())
	for name, want := range map[string]string{
		"root":        "admin@example.com",
		"ROOT":        "admin@example.com",
		"ops":         "admin@example.com dave@example.net carol@example.net",
		"quoted name": "dave@example.net",
		"bob":         `\bob bob@else.test`,
		"carl":        `\carl`,
		"dora":        `\dora admin@example.com`,
		"far":         "loop1@else.test",
		"devnull":     "/dev/null",
		"pipe":        "|/bin/cat > /tmp/x",
		"list":        `[ann@a.test] \bob bob@else.test [|/bin/evil]`,
		"back":        `\root`,
		"team":        `owner-crew>carol@example.net owner-crew>\solo owner-team>ann@a.test owner-team>|team`,
		"owner-team":  `\bob bob@else.test`,
		"owner-crew":  `\bob bob@else.test`,
		"diamond":     "admin@example.com",
		"d3":          `\d22`,
		"nobody":      "",
		"*":           "",
	} {
		x, found, err := table.Expand(name, here())
		if got := show(x); err != nil || found != (want != "") || got != want {
			t.Errorf("%s: %s, %v, %v, want %s", name, got, found, err, want)
		}
	}
	for name, want := range map[string]error{"loop1": ErrLoop, "loop2": ErrLoop, "wide": ErrTooMany, "d0": ErrTooMany, "gone": os.ErrNotExist} {
		if x, found, err := table.Expand(name, here()); !errors.Is(err, want) || found || len(x.Members) != 0 {
			t.Errorf("%s: %s, %v, %v, want %v", name, show(x), found, err, want)
		}
	}
}

// A mistake in the file is nobody's business but of those who may be meant by it.
func TestMistakesAreForThoseWhoNeedTheLine(t *testing.T) {
	table := newTable("aliases", "root: admin@example.com\nbroken\n*: all@example.com\n")
	if x, found, err := table.Expand("root", here()); !found || err != nil {
		t.Errorf("root: %s, %v, %v", show(x), found, err)
	}
	if _, found, err := table.Expand("bob", here()); found || err == nil || !strings.Contains(err.Error(), "aliases:2:") {
		t.Errorf("bob: %v, %v, want the mistake in line 2", found, err)
	}
}

// What is for all other names does not go round by itself.
func TestCatchAll(t *testing.T) {
	for _, all := range []string{"*", "default"} {
		table := newTable("aliases", "root: admin@example.com\n"+all+": ann, root, all@example.com\n")
		x, found, err := table.Expand("nosuch", here())
		if got := show(x); !found || err != nil || got != `\ann admin@example.com all@example.com` {
			t.Errorf("%s: %s, %v, %v", all, got, found, err)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if table, err := Open(filepath.Join(dir, "none")); err != nil || len(table.entries) != 0 {
		t.Errorf("a missing file: %v, %v", table, err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a directory is taken for a file")
	}
}

// What users forward to counts where they have no alias, and is not the administrator's
// word; a user's own name there is the mailbox.
func TestUsersForwardWhatNoAliasTakes(t *testing.T) {
	table := newTable("aliases", "root: ann\nbob: \\bob, ann\nlist: eve, carl\n")
	files := map[string]string{
		"ann":  "# mine\n\\ann, ann@a.test\n",
		"bob":  "bob@a.test",
		"carl": "carl@here.test, |/bin/x, dora",
		"dora": "eve\n",
		"eve":  "dora@HERE.test",
		"fred": "",
		"gina": ":include:/etc/shadow",
		"hugo": "h u g o@@",
	}
	m := here()
	m.Forward = func(user string) ([]Target, error) { return ParseList(user, files[user]) }
	for name, want := range map[string]string{
		"root": `[\ann] [ann@a.test]`,
		"ann":  `[\ann] [ann@a.test]`,
		"bob":  `\bob [\ann] [ann@a.test]`,
		"fred": "",
		"ivan": "",
	} {
		x, found, err := table.Expand(name, m)
		if got := show(x); err != nil || found != (want != "") || got != want {
			t.Errorf("%s: %s, %v, %v, want %s", name, got, found, err, want)
		}
	}
	for name, want := range map[string]string{"dora": ErrLoop.Error(), "list": ErrLoop.Error(), "gina": "may not include", "hugo": "hugo:1: "} {
		if x, found, err := table.Expand(name, m); err == nil || found || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v, %v", name, show(x), found, err)
		}
	}
	files["dora"] = ""
	if x, _, err := table.Expand("carl", m); err != nil || show(x) != `\carl@here.test [|/bin/x] \dora` {
		t.Errorf("%s, %v", show(x), err)
	}
}

// Aliases that share others are not followed for ever.
func TestSharedAliasesEnd(t *testing.T) {
	var text strings.Builder
	for i := range 18 {
		for _, side := range []string{"a", "b", "c", "d"} {
			fmt.Fprintf(&text, "%s%d: a%d, b%d, c%d, d%d\n", side, i, i+1, i+1, i+1, i+1)
		}
	}
	if _, _, err := newTable("aliases", text.String()).Expand("a0", here()); !errors.Is(err, ErrTooMany) {
		t.Errorf("%v", err)
	}
}
