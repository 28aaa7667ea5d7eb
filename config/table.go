package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"postino/spool/address"
)

// tableOf is the path of the setting that the entry at path belongs to, where that is
// a table whose names are the administrator's; nil where it is none.
func tableOf(settings map[string]setting, path toml.Key) toml.Key {
	for i := range path {
		switch settings[path[:i+1].String()].dst.(type) {
		case *map[string]string, *map[string][]string:
			return path[:i+1]
		}
	}
	return nil
}

// assignTable sets *dst to a table of values that assign takes; an empty one is nil.
func assignTable[T any](dst *map[string]T, v any, assign func(*T, any) error) error {
	values, ok := v.(map[string]any)
	if !ok {
		return errors.New(`not a table: write { "name" = … }`)
	}
	*dst = nil
	for _, name := range slices.Sorted(maps.Keys(values)) {
		var value T
		if err := errors.Join(checkText(name), assign(&value, values[name])); err != nil {
			return fmt.Errorf("%s: %w", quote(name), err)
		}
		if *dst == nil {
			*dst = make(map[string]T)
		}
		(*dst)[name] = value
	}
	return nil
}

func assignText(dst *string, v any) error {
	text, ok := v.(string)
	if !ok {
		return errors.New("not text: write it in quotes")
	}
	*dst = text
	return checkText(text)
}

// keysOf are what a rule about an entry of a table is about.
func keysOf(table, name string) keys {
	return keys{append(toml.Key(strings.Split(table, ".")), name).String(), table}
}

// checkGeneric refuses what names no address, on either side. Names are compared in
// lower case.
func (r *reader) checkGeneric(generic map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(generic)) {
		to, lower := generic[name], strings.ToLower(name)
		switch {
		case !isPattern(name) && !isBareName(name) || name == "*":
			r.failAt(keysOf("from.generic", name), `%s names no address: write one, "@domain" or the name of a user`, quote(name))
		case !isPattern(to) || to == "*":
			r.failAt(keysOf("from.generic", name), `%s is not an address: write one such as ops@example.com, or "@example.com" to keep the user`, quote(to))
		case lower != name && generic[lower] != "":
			r.failAt(keysOf("from.generic", name), "%s is there too: letter case does not matter", quote(lower))
		case lower != name:
			generic[lower] = to
			delete(generic, name)
		}
	}
}

// checkAllowFrom refuses patterns that match nothing.
func (r *reader) checkAllowFrom(allow map[string][]string) {
	for _, user := range slices.Sorted(maps.Keys(allow)) {
		for _, p := range allow[user] {
			if !isPattern(p) && !isBareName(p) {
				r.failAt(keysOf("limits.allow_from", user), `%s is no pattern: write "@domain", an address, the name of a user or "*"`, quote(p))
			}
		}
	}
}

// isBareName reports whether s is a local part without a domain.
func isBareName(s string) bool {
	a, err := address.Parse(s)
	return err == nil && a.Domain == "" && a.Local == s
}
