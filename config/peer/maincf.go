package peer

import "strings"

const (
	// maxExpansion bounds a value, in octets, maxSteps the parameters that are replaced
	// in it, and maxDepth how deep they may name each other: $a = $b$b has no end.
	maxExpansion = 64 << 10
	maxSteps     = 10_000
	maxDepth     = 20
)

// mainCf reads lines "name = value"; one that begins with a blank goes on with the line
// before, and comments may stand between.
func mainCf(text string) map[string]string {
	set := map[string]string{}
	for _, line := range logical(text) {
		if name, value, found := strings.Cut(line, "="); found {
			set[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return set
}

// get is the value of a parameter, its own default if it is not written.
func (p *postfix) get(name string) string {
	p.steps = 0
	return p.value(name, maxDepth)
}

// raw is the value before $names are replaced.
func (p *postfix) raw(name string) string {
	if v, written := p.set[name]; written {
		return v
	}
	switch name {
	case "myhostname":
		return p.in.Hostname
	case "myorigin":
		return "$myhostname"
	case "mydestination":
		return "$myhostname, localhost.$mydomain, localhost"
	case "queue_directory":
		return "/var/spool/postfix"
	case "config_directory":
		return "/etc/postfix"
	}
	return ""
}

// expand replaces $name, ${name} and $(name); of ${name?text} and ${name:text} it takes
// what holds.
func (p *postfix) expand(s string, depth int) string {
	if p.steps++; depth <= 0 || p.steps > maxSteps {
		p.d.note("parameters that name each other in a circle, or too deep")
		return ""
	}
	var out strings.Builder
	for s != "" && out.Len() < maxExpansion {
		before, after, found := strings.Cut(s, "$")
		out.WriteString(before)
		if !found {
			break
		}
		var name string
		name, s = parameter(after)
		out.WriteString(p.value(name, depth-1))
	}
	return out.String()[:min(out.Len(), maxExpansion)]
}

// parameter cuts the name behind a $ off.
func parameter(s string) (name, rest string) {
	if s != "" && (s[0] == '{' || s[0] == '(') {
		level := 0
		for i, c := range s {
			switch c {
			case '{', '(':
				level++
			case '}', ')':
				if level--; level == 0 {
					return s[1:i], s[i+1:]
				}
			}
		}
		return "", ""
	}
	n := strings.IndexFunc(s, func(c rune) bool {
		return !(c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z')
	})
	if n < 0 {
		n = len(s)
	}
	if n == 0 {
		return "", strings.TrimPrefix(s, "$")
	}
	return s[:n], s[n:]
}

func (p *postfix) value(name string, depth int) string {
	if i := strings.IndexAny(name, "?:"); i >= 0 {
		set := p.expand(p.raw(name[:i]), depth) != ""
		then, otherwise, both := strings.Cut(name[i+1:], "}:{")
		if both {
			then = strings.TrimPrefix(strings.TrimSpace(then), "{")
			otherwise = strings.TrimSuffix(strings.TrimSpace(otherwise), "}")
		}
		switch {
		case name[i] == '?' && set, name[i] == ':' && !set:
			return p.expand(strings.Trim(then, "{}"), depth)
		case both:
			return p.expand(otherwise, depth)
		}
		return ""
	}
	p.seen[name] = true
	if _, written := p.set[name]; name == "mydomain" && !written {
		_, domain, found := strings.Cut(p.value("myhostname", depth-1), ".")
		if !found {
			domain = "localdomain"
		}
		return domain
	}
	return p.expand(p.raw(name), depth)
}

// list divides a value at commas and blanks.
func (p *postfix) list(name string) []string {
	return strings.FieldsFunc(p.get(name), func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
}

func (p *postfix) yes(name string) bool { return yes(p.get(name)) }

// linesOf is a file with a name in each line.
func (p *postfix) linesOf(path string) []string {
	text, err := p.in.read(path)
	if err != nil {
		p.d.note("%v", err)
		return nil
	}
	var list []string
	for line := range strings.SplitSeq(text, "\n") {
		if word, _ := cutSpace(strings.TrimSpace(line)); word != "" && word[0] != '#' {
			list = append(list, word)
		}
	}
	return list
}

// table reads the maps of a parameter, of which the first that has a key counts: the
// keys in order and what they stand for.
func (p *postfix) table(name string) (keys []string, values map[string]string) {
	values = map[string]string{}
	for _, m := range p.list(name) {
		kind, path, found := strings.Cut(strings.TrimPrefix(m, "proxy:"), ":")
		if !found && strings.HasPrefix(m, "/") {
			kind, path = "texthash", m
		}
		switch kind {
		case "hash", "texthash", "btree", "lmdb", "cdb", "dbm", "sdbm":
		default:
			p.d.note("%s: %s is a map that cannot be read here", name, kind)
			continue
		}
		text, err := p.in.read(path)
		if err != nil {
			p.d.note("%s: the text that the map was made of is needed: %v", name, err)
			continue
		}
		// Like main.cf, but the key ends at a blank.
		for _, line := range logical(text) {
			key, value := cutSpace(line)
			key = strings.ToLower(strings.Trim(key, `"`))
			if _, known := values[key]; !known {
				keys = append(keys, key)
				values[key] = value
			}
		}
	}
	return keys, values
}

// logical are the lines of main.cf or of a map, those that go on joined.
func logical(text string) []string {
	var lines []string
	var parts []string
	end := func() {
		if len(parts) > 0 {
			lines = append(lines, strings.Join(parts, " "))
		}
		parts = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			end()
		}
		parts = append(parts, trimmed)
	}
	end()
	return lines
}
