package config

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
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
func (c *Config) String() string { return text(c.settings()) }

// Format writes the relay's table of the file whatever the verb. Without it, fmt
// would answer a verb it does not know with all fields, the password as it is.
func (r Relay) Format(f fmt.State, _ rune) { io.WriteString(f, text(r.settings("relay."))) }

// text is the settings as TOML, a header before each table.
func text(settings []setting) string {
	var out bytes.Buffer
	inTable := ""
	for _, s := range settings {
		table, name := split(s.key)
		v := reflect.ValueOf(s.dst).Elem()
		if v.IsZero() {
			continue
		}
		if table != inTable {
			out.WriteString(tableHeader(table))
			inTable = table
		}
		line, err := toml.Marshal(map[string]any{name: plain(v)})
		if err != nil {
			panic(err) // what plain returns can be written
		}
		out.Write(line)
	}
	return out.String()
}

// tableHeader is the line above a table, or above one in a list of tables.
func tableHeader(table string) string {
	if list, _, in := strings.Cut(table, "."); in {
		return "\n[[" + list + "]]\n"
	}
	return "\n[" + table + "]\n"
}

// plain is v as something that TOML has: a number, a list of texts or a text.
func plain(v reflect.Value) any {
	switch v := v.Interface().(type) {
	case int, bool, []string:
		return v
	case Hosts:
		return []string(v)
	default:
		return fmt.Sprint(v)
	}
}
