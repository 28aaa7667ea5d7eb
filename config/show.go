package config

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// WriteTo writes the configuration as TOML, defaults included, keys that are
// empty left out. A password is written as "…", which Parse refuses.
func (c *Config) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, c.String())
	return int64(n), err
}

// String is what WriteTo writes.
func (c *Config) String() string { return list(c.settings(), nil).text() }

// Format writes the relay's table of the file whatever the verb. Without it, fmt
// would answer a verb it does not know with all fields, the password as it is.
func (r Relay) Format(f fmt.State, _ rune) { io.WriteString(f, list(r.settings("relay."), nil).text()) }

// Origin says where the value of a setting is from.
type Origin string

// The origins.
const (
	FromFile        Origin = "file"
	FromEnvironment Origin = "environment"
	FromPreset      Origin = "preset"
	FromSystem      Origin = "system" // what the machine calls itself
	FromDefault     Origin = "default"
)

// Setting is a key that has a value, the number of its table in it where there are
// several (route.0.host), and where the value is from. A password is "…".
type Setting struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin Origin `json:"origin,omitempty"`
	// Where is file:line, the name of a variable or of a preset; empty of a default.
	Where string `json:"where,omitempty"`
}

// Listing is settings in the order of the manual.
type Listing []Setting

// list is the settings that have a value. A nil origin leaves out where it is from.
func list(settings []setting, origin func(key string) (Origin, string)) Listing {
	var l Listing
	for _, s := range settings {
		v := reflect.ValueOf(s.dst).Elem()
		if v.IsZero() {
			continue
		}
		next := Setting{Key: s.key, Value: plain(v)}
		if origin != nil {
			next.Origin, next.Where = origin(s.key)
		}
		l = append(l, next)
	}
	return l
}

// origin says where the value of a key is from.
func (r *reader) origin(key string) (Origin, string) {
	if offset, written := r.at[key]; written {
		if offset > len(r.src) {
			return FromEnvironment, r.where(offset)
		}
		return FromFile, fmt.Sprintf("%s:%d", r.name, lineAt(r.src, offset))
	}
	table, name := split(key)
	preset, _ := lookup(r.tree, append(strings.Split(table, "."), "preset")).(string)
	switch _, given := presets()[preset][name]; {
	case given:
		return FromPreset, preset
	case key == "local_domains" && r.config.LocalDomains != nil:
		return FromSystem, r.hostname
	case key == "hostname" && r.hostname != "":
		return FromSystem, r.hostname
	case key == "domain" && r.domain != "":
		return FromSystem, r.domain
	}
	return FromDefault, ""
}

// WriteTo writes the listing as TOML, with where each value is from as a comment.
func (l Listing) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, l.text())
	return int64(n), err
}

// originColumn is where comments stand, in characters: most values are shorter.
const originColumn = 40

// text is the settings as TOML, a header before each table.
func (l Listing) text() string {
	var out bytes.Buffer
	inTable := ""
	for _, s := range l {
		table, name := split(s.Key)
		if table != inTable {
			out.WriteString(tableHeader(table))
			inTable = table
		}
		line := Line(name, s.Value)
		if s.Origin == "" {
			out.WriteString(line + "\n")
			continue
		}
		comment := strings.TrimSpace(string(s.Origin) + " " + s.Where)
		if s.Origin == FromFile {
			comment = s.Where
		}
		fmt.Fprintf(&out, "%-*s # %s\n", originColumn, line, printable(comment))
	}
	return out.String()
}

// Line is a key and its value as TOML, in one line without its end. The value is a
// number, a truth value, a text, a list of texts or a table of texts or lists.
func Line(key string, value any) string {
	switch table := value.(type) {
	case map[string]string:
		return tableLine(key, table)
	case map[string][]string:
		return tableLine(key, table)
	}
	line, err := toml.Marshal(map[string]any{key: value})
	if err != nil {
		panic(err) // these can be written
	}
	return strings.TrimSuffix(string(line), "\n")
}

func tableLine[T any](key string, table map[string]T) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(table)) {
		pairs = append(pairs, Line(name, table[name]))
	}
	return strings.TrimSuffix(Line(key, 0), "0") + "{ " + strings.Join(pairs, ", ") + " }"
}

// printable has no control characters: the name of a file may have any.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if isControl(c) {
			return '?'
		}
		return c
	}, s)
}

// tableHeader is the line above a table, or above one in a list of tables.
func tableHeader(table string) string {
	list, rest, in := strings.Cut(table, ".")
	if !in || !isList(list) {
		return "\n[" + table + "]\n"
	}
	if _, below, in := strings.Cut(rest, "."); in {
		return "\n[" + list + "." + below + "]\n"
	}
	return "\n[[" + list + "]]\n"
}

// plain is v as something that TOML has: a number, a list of texts, a table or a text.
func plain(v reflect.Value) any {
	switch v := v.Interface().(type) {
	case int, bool, []string, map[string]string, map[string][]string:
		return v
	case Hosts:
		return []string(v)
	default:
		return fmt.Sprint(v)
	}
}
