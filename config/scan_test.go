package config

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/BurntSushi/toml"
)

func TestScanKnowsWhereKeysStand(t *testing.T) {
	type found struct {
		key, at, value string // at and value: the text that begins there
	}
	src := "a = 1 # b = 2\n" +
		" 'c d' . \"e\\u0066\" = '''\n[x]\ny = \\'''\n" +
		"f = [ 1, # ]\n  \"]\", { g = 1 }, [ ']' ] ]\n" +
		"[h.\"i.j\"] # k\n" +
		"l = { m = { n = \"}\" }, o.p = 1 }\r\n" +
		"[[q]]\nr = \"\"\"s\\\"\"\"\"\"\"\nt=1979-05-27 07:32:00"
	want := []found{
		{"a", "a = 1", "1 # b"},
		{`"c d".ef`, "'c d'", "'''\n[x"},
		{"f", "f = [", "[ 1, "},
		{`h."i.j"`, `[h."i`, `[h."i`},
		{`h."i.j".l`, "l = {", "{ m ="},
		{`h."i.j".l.m`, "m = {", "{ n ="},
		{`h."i.j".l.m.n`, `n = "`, `"}" }`},
		{`h."i.j".l.o.p`, "o.p =", "1 }\r\n"},
		{"q", "[[q]]", "[[q]]"},
		{"q.r", "r = \"", `"""s\`},
		{"q.t", "t=197", "1979-"},
	}
	if _, err := toml.Decode(src, new(map[string]any)); err != nil {
		t.Fatal(err)
	}
	var got []found
	for i, e := range scan(src) {
		n := len(want[min(i, len(want)-1)].value)
		got = append(got, found{e.path.String(), src[e.key:][:5], src[e.value:][:n]})
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

// The law: scan finds the keys that the decoder finds, and no others.
func FuzzScan(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	for _, s := range []string{
		"a.b = { c = 1, d = [ { e = 1 } ] }\n[f]\n[[g.h]]\ni = '''\n'''''\n[[g.h]]",
		"\"\\u0061\" = \"\"\"\"\"\"\n'' = 1", "a = [[[]], {}]\n[b] # [c]", "a={b=1,\n#}\nc=2,}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		entries := scan(src) // of anything at all: ends, no panic
		var tree map[string]any
		if _, err := toml.Decode(src, &tree); err != nil || hasMark(src) {
			return
		}
		got, want := map[string]bool{}, map[string]bool{}
		before := -1
		for _, e := range entries {
			for i := range e.path {
				got[e.path[:i+1].String()] = true
			}
			if e.key <= before || e.value < e.key {
				t.Fatalf("scan(%q): entry %v after offset %d", src, e, before)
			}
			before = e.key
		}
		addKeys(want, nil, tree)
		if !maps.Equal(got, want) {
			t.Fatalf("scan(%q) = %q; the decoder has %q", src, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
	})
}

// hasMark: the decoder takes a byte order mark off; Parse does before scan.
func hasMark(src string) bool {
	for _, mark := range []string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"} {
		if len(src) >= len(mark) && src[:len(mark)] == mark {
			return true
		}
	}
	return false
}

func addKeys(to map[string]bool, path toml.Key, tree map[string]any) {
	for name, v := range tree {
		key := append(slices.Clone(path), name)
		to[key.String()] = true
		switch v := v.(type) {
		case map[string]any:
			addKeys(to, key, v)
		case []map[string]any:
			for _, table := range v {
				addKeys(to, key, table)
			}
		}
	}
}
