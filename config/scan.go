package config

import (
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// entry is one key or table header of the source and where it stands. The
// decoder remembers places of values alone, and of the last one where tables
// repeat, so we look for ourselves.
type entry struct {
	path toml.Key // from the root, table header included
	// key and value are offsets in octets. A header's are both those of its
	// bracket.
	key, value int
	// nth says which of the tables of a list at the top ([[route]]) the entry belongs
	// to, from 1; 0 when it is in none.
	nth int
}

// isList reports whether there may be several tables of a name: [[route]], [[dkim]].
func isList(table string) bool { return table == "route" || table == "dkim" }

// indexed is the entry's path, with its place in the list where there may be a list
// of such tables: route.0.host.
func (e entry) indexed() toml.Key {
	if e.nth == 0 || !isList(e.path[0]) {
		return e.path
	}
	return append(toml.Key{e.path[0], strconv.Itoa(e.nth - 1)}, e.path[1:]...)
}

// scan lists the entries of src in order, those of inline tables included and
// those inside arrays left out. src must be TOML that the decoder accepted;
// of anything else scan makes something, but ends and does not panic.
func scan(src string) []entry {
	s := scanner{src: src, lists: make(map[string]int)}
	var table toml.Key
	for s.skip(" \t\r\n"); s.i < len(src); s.skip(" \t\r\n") {
		if src[s.i] != '[' {
			s.pair(table)
			continue
		}
		start := s.i
		s.skip("[")
		list := s.i > start+1
		table = s.name()
		s.skip(" \t]")
		if list && len(table) == 1 {
			s.lists[table[0]]++
		}
		s.add(table, start, start)
	}
	return s.entries
}

type scanner struct {
	src     string
	i       int // the offset to go on from
	entries []entry
	lists   map[string]int // how many [[…]] of a name there were
}

func (s *scanner) add(path toml.Key, key, value int) {
	s.entries = append(s.entries, entry{path, key, value, s.lists[path[0]]})
}

// skip goes past the octets in set, and past comments, which may stand wherever
// a line may end.
func (s *scanner) skip(set string) {
	lines := strings.Contains(set, "\n")
	for s.i < len(s.src) {
		switch c := s.src[s.i]; {
		case lines && c == '#':
			s.until("\n")
		case strings.IndexByte(set, c) >= 0:
			s.i++
		default:
			return
		}
	}
}

// until goes to the next octet in set and returns what it passed.
func (s *scanner) until(set string) string {
	rest := s.src[s.i:]
	n := strings.IndexAny(rest, set)
	if n < 0 {
		n = len(rest)
	}
	s.i += n
	return rest[:n]
}

// pair reads key = value below the given table.
func (s *scanner) pair(table toml.Key) {
	start := s.i
	name := s.name()
	s.skip(" \t=")
	path := append(append(toml.Key{}, table...), name...)
	s.add(path, start, s.i)
	if s.i == start {
		s.i++ // not TOML; go on all the same
		return
	}
	s.value(path)
}

// name reads a key and its dots.
func (s *scanner) name() toml.Key {
	var key toml.Key
	for {
		s.skip(" \t")
		start := s.i
		if s.i < len(s.src) && (s.src[s.i] == '"' || s.src[s.i] == '\'') {
			s.text()
			key = append(key, unquote(s.src[start:s.i]))
		} else {
			key = append(key, s.until(" \t\r\n.=]\"'#{}[,"))
		}
		s.skip(" \t")
		if s.i >= len(s.src) || s.src[s.i] != '.' {
			return key
		}
		s.i++
	}
}

// unquote leaves escapes to the one who knows them.
func unquote(quoted string) string {
	var v struct{ K string }
	if _, err := toml.Decode("k = "+quoted, &v); err != nil {
		return quoted
	}
	return v.K
}

// value goes past a value. A nil path means that it is inside an array, where
// keys have no name.
func (s *scanner) value(path toml.Key) {
	if s.i >= len(s.src) {
		return
	}
	switch s.src[s.i] {
	case '"', '\'':
		s.text()
	case '[':
		s.i++
		for s.skip(" \t\r\n,"); s.i < len(s.src) && s.src[s.i] != ']'; s.skip(" \t\r\n,") {
			before := s.i
			s.value(nil)
			s.i = max(s.i, before+1)
		}
		s.i++
	case '{':
		s.i++
		n := len(s.entries)
		for s.skip(" \t\r\n,"); s.i < len(s.src) && s.src[s.i] != '}'; s.skip(" \t\r\n,") {
			s.pair(path)
		}
		if path == nil {
			s.entries = s.entries[:n]
		}
		s.i++
	default:
		s.until(",]}#\r\n")
	}
	s.i = min(s.i, len(s.src))
}

// text goes past a string of any of the four kinds.
func (s *scanner) text() {
	quote := s.src[s.i : s.i+1]
	delimiter := quote
	if strings.HasPrefix(s.src[s.i:], strings.Repeat(quote, 3)) {
		delimiter = strings.Repeat(quote, 3)
	}
	s.i += len(delimiter)
	for s.i < len(s.src) && !strings.HasPrefix(s.src[s.i:], delimiter) {
		if quote == `"` && s.src[s.i] == '\\' {
			s.i++
		}
		s.i++
	}
	s.i += len(delimiter)
	// One or two quotes may stand right before the closing three.
	for n := 0; len(delimiter) == 3 && n < 2 && s.i < len(s.src) && s.src[s.i] == quote[0]; n++ {
		s.i++
	}
	s.i = min(s.i, len(s.src))
}
