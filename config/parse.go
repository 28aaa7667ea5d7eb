package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// maxProblems bounds what one reading of the file reports: a screen, and the
// rest is mostly a consequence.
const maxProblems = 5

// Parse reads the text of a file called name. It opens no file and asks for no
// host name: Hostname and Domain stay as written. The error holds up to five
// lines, each with name, line and column (both from 1, the column in octets).
func Parse(name string, data []byte) (*Config, error) {
	r, err := parse(name, data, nil)
	if err != nil {
		return nil, err
	}
	return r.config, nil
}

// parse reads the file's text and then the environment, whose values hold before
// those of the file.
func parse(name string, data []byte, environ []string) (*reader, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, fmt.Errorf("%s:1:1: not UTF-8: save it as UTF-8", name)
	}
	r := &reader{name: name, src: string(data), config: Default(), at: map[string]int{}}
	if _, err := toml.Decode(r.src, &r.tree); err != nil {
		return nil, syntaxError(name, r.src, err)
	}
	r.overrides(environ)
	if table, isTable := r.tree["relay"].(map[string]any); isTable {
		r.config.Relay = relayFor(table)
	}
	if list, isList := r.tree["route"].([]map[string]any); isList {
		for _, table := range list {
			r.config.Routes = append(r.config.Routes, Route{Relay: relayFor(table)})
		}
	}
	if list, isList := r.tree["dkim"].([]map[string]any); isList {
		r.config.DKIM = make([]DKIM, len(list))
	}
	r.read()
	if len(r.problems) == 0 {
		r.check()
	}
	if len(r.problems) > 0 {
		return nil, r.report()
	}
	for _, relay := range r.config.relays() {
		relay.setPort()
	}
	return r, nil
}

// setPort sets a port that is not written.
func (r *Relay) setPort() {
	if r.Port == 0 {
		r.Port = portSubmission
		if r.TLS == Implicit {
			r.Port = portSubmissions
		}
	}
}

// syntaxError is what the TOML decoder said, in our form. What it said about a
// password may hold a part of it. Of its position only the offset is sure: its
// column is wrong at the start of a line.
func syntaxError(name, src string, err error) error {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return fmt.Errorf("%s: %w", name, err)
	}
	message := strings.TrimSuffix(parse.Message, ".")
	if after, ok := strings.CutPrefix(message, "Key "); ok {
		message = "key " + after
	}
	if strings.HasSuffix(parse.LastKey, "password") || strings.HasSuffix(parse.LastKey, "proxy") {
		message = "not a TOML value: write the password in quotes"
	}
	if parse.LastKey != "" {
		message = parse.LastKey + ": " + message
	}
	message = strings.Map(func(c rune) rune {
		if isControl(c) { // the decoder repeats them from the file
			return utf8.RuneError
		}
		return c
	}, message)
	return fmt.Errorf("%s: %s", place(name, src, parse.Position.Start), message)
}

// place is name:line:column of the offset in src.
func place(name, src string, offset int) string {
	before := src[:min(max(offset, 0), len(src))]
	return fmt.Sprintf("%s:%d:%d", name, lineAt(src, offset), len(before)-strings.LastIndex(before, "\n"))
}

func lineAt(src string, offset int) int {
	return strings.Count(src[:min(max(offset, 0), len(src))], "\n") + 1
}

// problem is one refusal and the offset it is about; -1 when it is about
// nothing that is written.
type problem struct {
	offset  int
	message string
}

// reader turns the decoded tree into a Config, in the order of the source, so
// that the same file always gives the same errors.
type reader struct {
	name, src   string
	tree        map[string]any
	environment []override // each has the offset behind src of its place here
	replaced    []string   // keys of the file for which a variable of another key stands
	config      *Config
	at          map[string]int // key → offset of its value, of a table its first mention
	problems    []problem
	// hostname and domain are where these are from, when the system named them.
	hostname, domain string
}

func (r *reader) fail(offset int, format string, args ...any) {
	r.problems = append(r.problems, problem{offset, fmt.Sprintf(format, args...)})
}

// read assigns every entry of the source or refuses it.
func (r *reader) read() {
	settings := map[string]setting{}
	for _, s := range r.config.settings() {
		settings[s.key] = s
	}
	tables := append(tableNames(), tablesOf(r.config.settings())...)
	var refused []string
	assigned := map[string]bool{} // settings that are tables
	for _, e := range r.entries() {
		path := e.indexed()
		key := path.String()
		if len(e.path) > 1 {
			r.remember(e.path[:1].String(), e.key)
		}
		r.remember(key, e.value)
		if table := tableOf(settings, path); table != nil {
			if path, key = table, table.String(); assigned[key] {
				continue // with its first entry
			}
			r.remember(key, e.value)
			assigned[key] = true
		}
		if slices.ContainsFunc(refused, func(table string) bool { return isBelow(key, table) }) {
			continue // said once
		}
		before := len(r.problems)
		if s, known := settings[key]; known {
			if err := s.assign(lookup(r.tree, path)); err != nil {
				r.fail(e.value, "%s: %v", shown(key), err)
			}
		} else if isList(e.path[0]) && e.nth == 0 {
			key = e.path[0]
			r.fail(e.key, "%s: not a list of tables: write [[%s]] above each of them", key, key)
		} else if slices.Contains(tables, key) {
			if _, ok := lookup(r.tree, path).(map[string]any); !ok {
				r.fail(e.key, "%s: not a table: write [%s], once", key, key)
			}
		} else {
			key = r.refuse(e)
		}
		if len(r.problems) > before {
			refused = append(refused, key)
		}
		if len(r.problems) == maxProblems {
			return
		}
	}
}

// remember keeps the first offset of key.
func (r *reader) remember(key string, offset int) {
	if _, known := r.at[key]; !known {
		r.at[key] = offset
	}
}

// refuse reports a key that is not in this version and returns what it named:
// the key, or the table that makes everything in it wrong.
func (r *reader) refuse(e entry) string {
	refused, key := e.path[:1].String(), e.path[:1].String()
	if slices.Contains(tableNames(), key) || slices.Contains(keyNames(), key) {
		refused, key = e.indexed().String(), e.path.String()
	}
	hint := ""
	if near := suggest(key); near != "" {
		hint = fmt.Sprintf(": did you mean %q?", near)
	}
	r.fail(e.key, "unknown key %s%s", quote(key), hint)
	return refused
}

// shown is a key as it is written: without its place in a list of tables.
func shown(key string) string {
	parts := strings.SplitN(key, ".", 3)
	if len(parts) == 3 && strings.Trim(parts[1], "0123456789") == "" {
		return parts[0] + "." + parts[2]
	}
	return key
}

// Mistake is one refusal of a configuration.
type Mistake struct {
	// Where is name:line:column, a variable, or the name alone; Line is 0 then.
	Where   string
	Line    int
	Message string
}

func (m *Mistake) Error() string { return m.Where + ": " + m.Message }

// report is the first problems in the order of the file, each a *Mistake.
func (r *reader) report() error {
	slices.SortStableFunc(r.problems, func(a, b problem) int { return cmp.Compare(a.offset, b.offset) })
	var errs []error
	for _, p := range r.problems[:min(len(r.problems), maxProblems)] {
		m := &Mistake{Where: r.where(p.offset), Message: p.message}
		if p.offset >= 0 && p.offset <= len(r.src) {
			m.Line = lineAt(r.src, p.offset)
		}
		errs = append(errs, m)
	}
	return errors.Join(errs...)
}

// lookup finds the value at path, in which the place in a list of tables is a
// number; nil where there is none.
func lookup(tree map[string]any, path toml.Key) any {
	var v any = tree
	for _, name := range path {
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []map[string]any:
			n, err := strconv.Atoi(name)
			if err != nil || n >= len(in) {
				return nil
			}
			v = in[n]
		default:
			return nil
		}
	}
	return v
}

// isBelow reports whether key is table or a key in it.
func isBelow(key, table string) bool {
	return key == table || strings.HasPrefix(key, table+".")
}

// keyNames are all keys of this version, whether there is a relay and a route or
// not.
func keyNames() []string {
	var names []string
	for _, s := range everything().settings() {
		names = append(names, shown(s.key))
	}
	return names
}

// everything is a Config with one of each table.
func everything() *Config {
	return &Config{Relay: &Relay{}, Routes: []Route{{Relay: &Relay{}}}, DKIM: make([]DKIM, 1)}
}

// tableNames are the tables that the keys of this version stand in.
func tableNames() []string {
	tables := map[string]bool{}
	for _, key := range keyNames() {
		if table, _, ok := strings.Cut(key, "."); ok {
			tables[table] = true
		}
	}
	return slices.Sorted(maps.Keys(tables))
}

// tablesOf are the tables of the settings of one Config: those of a list with their
// place in it.
func tablesOf(settings []setting) []string {
	var tables []string
	for _, s := range settings {
		if table, _ := split(s.key); table != "" && !slices.Contains(tables, table) {
			tables = append(tables, table)
		}
	}
	return tables
}
