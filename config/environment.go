package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// variablePrefix begins the names of all our variables.
const variablePrefix = "POSTINO_"

// override is a variable of the environment that sets a key.
type override struct {
	name string
	// path is the key as it is written; nth as in entry.
	path toml.Key
	nth  int
	text string
}

// overrides finds what the environment ("NAME=value") sets. A variable that is empty
// is as if it were not there: that is what shells and container files make of one
// without a value. A name that is none of ours, and begins like them, is a problem.
func (r *reader) overrides(environ []string) {
	byName := variables()
	for _, pair := range environ {
		name, text, _ := strings.Cut(pair, "=")
		word, ours := strings.CutPrefix(name, variablePrefix)
		if ours && text != "" && !isOtherVariable(name) && !isServiceLink(name, text) {
			o := override{name: name, text: text}
			o.path, o.nth = variableKey(word, byName)
			r.environment = append(r.environment, o)
		}
	}
	// In the order of their tables: route 2 needs route 1.
	slices.SortFunc(r.environment, func(a, b override) int {
		return cmp.Or(cmp.Compare(a.nth, b.nth), strings.Compare(a.name, b.name))
	})
	for i, o := range r.environment {
		if o.path == nil {
			r.fail(r.variable(i), "there is no key for it%s", nearest(o.name, byName))
		} else if err := r.override(o); err != nil {
			r.fail(r.variable(i), "%v", err)
			r.environment[i].path = nil
		}
	}
}

// variableKey is the key that a variable sets, and which of the tables of a list; nil
// when there is none.
func variableKey(word string, byName map[string]toml.Key) (path toml.Key, nth int) {
	list, rest, _ := strings.Cut(word, "_")
	if number, key, found := strings.Cut(rest, "_"); found && isList(strings.ToLower(list)) {
		if n, err := strconv.Atoi(number); err == nil && strconv.Itoa(n) == number {
			word, nth = list+"_"+key, n+1
		}
	}
	path = byName[word]
	if path == nil || isList(path[0]) != (nth > 0) {
		return nil, 0
	}
	return path, nth
}

// variable is the offset that stands for a variable: behind the file.
func (r *reader) variable(i int) int { return len(r.src) + 1 + i }

// variables are the keys of this version by the rest of the name of their variable;
// those of a list of tables without a number.
func variables() map[string]toml.Key {
	names := make(map[string]toml.Key)
	for _, key := range keyNames() {
		names[strings.ToUpper(strings.ReplaceAll(key, ".", "_"))] = strings.Split(key, ".")
	}
	return names
}

// isOtherVariable reports whether a name means something to postino that is no key,
// or to its tests.
func isOtherVariable(name string) bool {
	switch name {
	case "POSTINO_CONFIG", "POSTINO_SPOOL", "POSTINO_SEED":
		return true
	}
	for _, of := range []string{"TEST_", "CRASH", "FSYNC_", "POWER_", "DAMAGE"} {
		if strings.HasPrefix(name, variablePrefix+of) {
			return true
		}
	}
	return false
}

// serviceLink matches what Kubernetes and Docker tell a container about a service
// that somebody called postino or postino-relay.
var serviceLink = regexp.MustCompile(`_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

func isServiceLink(name, text string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(text, "://")
}

// listNumber matches the number of a table in a list.
var listNumber = regexp.MustCompile(`_[0-9]+_`)

// nearest is a hint at the variable that somebody may have meant.
func nearest(name string, byName map[string]toml.Key) string {
	name = listNumber.ReplaceAllString(strings.TrimPrefix(name, variablePrefix), "_")
	best, distance := "", maxDistance+1
	for _, word := range slices.Sorted(maps.Keys(byName)) {
		if d := editDistance(name, word); d < distance {
			best, distance = word, d
		}
	}
	if best == "" {
		return ": remove it"
	}
	if list, rest, _ := strings.Cut(best, "_"); isList(byName[best][0]) {
		best = list + "_0_" + rest // the first of them
	}
	return fmt.Sprintf(": did you mean %s%s?", variablePrefix, best)
}

// override puts a value into the tree, in the place of what the file has there.
func (r *reader) override(o override) error {
	value, err := variableValue(o.path, o.text)
	if err != nil {
		return err
	}
	in := r.tree
	tables, name := o.path[:len(o.path)-1], o.path[len(o.path)-1]
	if o.nth > 0 {
		list, _ := r.tree[tables[0]].([]map[string]any)
		if o.nth > len(list)+1 {
			return fmt.Errorf("there is no %s number %d before it: they count from 0 without a gap", tables[0], o.nth-2)
		}
		if o.nth > len(list) {
			list = append(list, make(map[string]any))
			r.tree[tables[0]] = list
		}
		in, tables = list[o.nth-1], tables[1:]
	}
	for _, table := range tables {
		if in[table] == nil {
			in[table] = make(map[string]any)
		}
		below, isTable := in[table].(map[string]any)
		if !isTable {
			return nil // the file is wrong there, which is said
		}
		in = below
	}
	in[name] = value
	if passwordKeys[name] {
		r.onePassword(in, o)
	}
	return nil
}

// passwordKeys are ways to the one password: a variable for one of them takes the
// place of whichever the file has.
var passwordKeys = map[string]bool{"password": true, "password_file": true, "password_command": true, "credential": true}

func (r *reader) onePassword(in map[string]any, o override) {
	for key := range passwordKeys {
		path := append(slices.Clone(o.path[:len(o.path)-1]), key)
		if !slices.ContainsFunc(r.environment, func(other override) bool { return other.nth == o.nth && slices.Equal(other.path, path) }) {
			delete(in, key)
			r.replaced = append(r.replaced, entry{path: path, nth: o.nth}.indexed().String())
		}
	}
}

// variableValue is the text of a variable as the TOML decoder would give the value of
// that key. Lists are divided by commas, or written as in TOML.
func variableValue(path toml.Key, text string) (any, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("not UTF-8")
	}
	switch kindOf(path.String()).(type) {
	case *int:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
		return text, nil
	case *bool:
		switch text {
		case "true", "false":
			return text == "true", nil
		}
		return text, nil
	case *[]string, *Hosts:
		if !strings.HasPrefix(text, "[") {
			return divided(text), nil
		}
	case *string, *Secret, encoding.TextUnmarshaler:
		return text, nil
	}
	var v struct{ V any }
	if _, err := toml.Decode("v = "+strings.ReplaceAll(text, "\n", " "), &v); err != nil {
		return nil, fmt.Errorf("%s: not a value as in TOML: write it as behind the = of the file", path)
	}
	return v.V, nil
}

// divided is a list that is written with commas.
func divided(text string) []any {
	var list []any
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// kindOf is a pointer of the type that the key's value has.
func kindOf(key string) any {
	for _, s := range everything().settings() {
		if shown(s.key) == key {
			return s.dst
		}
	}
	return nil
}

// entries are those of the file that no variable takes the place of, and one for
// each variable.
func (r *reader) entries() []entry {
	var all []entry
	replaced := r.replaced
	for i, o := range r.environment {
		if o.path != nil {
			e := entry{path: o.path, key: r.variable(i), value: r.variable(i), nth: o.nth}
			all = append(all, e)
			replaced = append(replaced, e.indexed().String())
		}
	}
	written := slices.DeleteFunc(scan(r.src), func(e entry) bool {
		return slices.ContainsFunc(replaced, func(key string) bool { return isBelow(e.indexed().String(), key) })
	})
	return append(written, all...)
}

// where is the place of an offset: in the file, or a variable behind it.
func (r *reader) where(offset int) string {
	switch i := offset - r.variable(0); {
	case offset < 0:
		return r.name
	case i >= 0:
		return r.environment[i].name
	}
	return place(r.name, r.src, offset)
}
