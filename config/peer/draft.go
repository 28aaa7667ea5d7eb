package peer

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"postino/config"
)

const (
	// maxRoutes and maxNotes are how many are written: more than a person reads, and a
	// runner looks through all routes for each recipient.
	maxRoutes = 1000
	maxNotes  = 1000
	// maxRounds is how often lines that are refused are taken away, some at a time.
	maxRounds = 20
)

// draft is a postino.toml being made.
type draft struct {
	peer, secrets string
	tables        []*table
	routes        int
	notes         []string
	passwords     []Password
}

// table is a table and its lines. The name of one in a list has a number, as in
// "route.0".
type table struct {
	name  string
	lines []line
}

// line is a key, its value, and which setting of the peer it is from.
type line struct {
	key   string
	value any
	from  string
}

// set writes a key. An empty text or list writes nothing.
func (d *draft) set(tableName, key string, value any, from string) {
	switch v := value.(type) {
	case string:
		if v == "" {
			return
		}
	case []string:
		if len(v) == 0 {
			return
		}
	}
	d.unset(tableName, key) // the last one counts
	t := d.table(tableName)
	t.lines = append(t.lines, line{key, value, from})
}

// unset takes a key back.
func (d *draft) unset(tableName, key string) {
	t := d.table(tableName)
	t.lines = slices.DeleteFunc(t.lines, func(l line) bool { return l.key == key })
}

// table is the table of that name, made if it is not there yet.
func (d *draft) table(name string) *table {
	for _, t := range d.tables {
		if t.name == name {
			return t
		}
	}
	t := &table{name: name}
	d.tables = append(d.tables, t)
	return t
}

// has reports whether a key is set.
func (d *draft) has(tableName, key string) bool {
	return slices.ContainsFunc(d.tables, func(t *table) bool {
		return t.name == tableName && slices.ContainsFunc(t.lines, func(l line) bool { return l.key == key })
	})
}

// route begins another [[route]] and returns its name. One too many is not written.
func (d *draft) route() string {
	name := "route." + strconv.Itoa(d.routes)
	if d.routes++; d.routes > maxRoutes {
		d.note("of more than %d routes the first", maxRoutes)
		return tooMany
	}
	return name
}

// tooMany is a table that is not written.
const tooMany = "too many"

// portOf says that mail was taken by SMTP on the loopback, by a setting of that name. The
// runner may not open port 25, and one that is told to does not start.
func (d *draft) portOf(setting string) {
	d.note("%s: port 25 of the loopback is root's to open: if a program sends by SMTP, have it use another, or have systemd open it; see listen in [smtp]", setting)
}

// note says what was not taken over.
func (d *draft) note(format string, args ...any) {
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, fmt.Sprintf(format, args...))
	if len(d.notes) < maxNotes && !slices.Contains(d.notes, text) {
		d.notes = append(d.notes, text)
	}
}

// smarthost is a smarthost as peers describe it.
type smarthost struct {
	hosts    []string
	port     int
	tls      string // as in postino.toml; "" is for credentials to decide
	user     string
	password string
	from     string // which setting of the peer names it
	login    string // and which the user
}

// relay writes a smarthost into a table.
func (d *draft) relay(tableName string, s smarthost) {
	d.set(tableName, "host", s.hosts, s.from)
	if s.port != 0 {
		d.set(tableName, "port", s.port, s.from)
	}
	if s.tls == "" {
		s.tls = "opportunistic"
		if s.user != "" {
			s.tls = "starttls"
		}
	}
	d.set(tableName, "tls", s.tls, s.from)
	d.set(tableName, "username", s.user, s.login)
	switch {
	case s.user == "":
	case s.password != "":
		d.password(tableName, s.password, s.login)
	default:
		// Without it, mail would go out without AUTH; with it, mail waits for the file.
		d.set(tableName, "password_file", d.secretPath(tableName), s.login)
	}
}

func (d *draft) secretPath(tableName string) string {
	return filepath.Join(d.secrets, d.peer+"-"+strings.ReplaceAll(tableName, ".", "-")+".password")
}

// password writes a password into a file of its own.
func (d *draft) password(tableName, text, from string) {
	path := d.secretPath(tableName)
	d.passwords = append(d.passwords, Password{path, text})
	d.set(tableName, "password_file", path, from)
}

// finish writes the draft. Lines that config.Parse refuses become notes.
func (d *draft) finish() (*Imported, error) {
	d.tables = slices.DeleteFunc(d.tables, func(t *table) bool { return t.name == tooMany })
	for range maxRounds {
		text, places := d.text()
		c, err := config.Parse(d.peer, []byte(text))
		if err == nil {
			if to := c.Local.Deliver.Transport.Kind; to == config.ViaMbox || to == config.ViaMaildir {
				d.note("the right to write mailboxes: mail for users of this machine waits until local.helper does it, see postino-mailbox(8)")
			}
			return &Imported{Text: d.comments() + text, Notes: d.notes, Passwords: d.written()}, nil
		}
		if !d.mend(err, places) {
			return nil, err
		}
	}
	return nil, errors.New("too much of it cannot be taken over: write the configuration anew")
}

// written are the passwords that the draft still names.
func (d *draft) written() []Password {
	return slices.DeleteFunc(d.passwords, func(p Password) bool {
		return !slices.ContainsFunc(d.tables, func(t *table) bool {
			return slices.ContainsFunc(t.lines, func(l line) bool { return l.value == p.Path })
		})
	})
}

// place is what stands in a line of the text; the header of a table has no key.
type place struct {
	table *table
	key   string
}

// mend takes away the lines that err is about and reports whether there were any.
func (d *draft) mend(err error, places map[int]place) bool {
	var list interface{ Unwrap() []error }
	if !errors.As(err, &list) {
		return false
	}
	mended := false
	for _, err := range list.Unwrap() {
		var m *config.Mistake
		if !errors.As(err, &m) {
			return false
		}
		p, known := places[m.Line]
		if !known || p.table == nil {
			continue
		}
		mended = true
		d.note("%s", m.Message)
		if p.key == "" {
			p.table.lines = nil
			if p.table.name == "relay" {
				d.note("there is no smarthost now: write [relay], or mail goes directly to the exchangers of its recipients")
			}
		} else {
			p.table.lines = slices.DeleteFunc(p.table.lines, func(l line) bool { return l.key == p.key })
		}
	}
	return mended
}

// text is the draft as TOML, and what stands in which line.
func (d *draft) text() (string, map[int]place) {
	var out bytes.Buffer
	places := map[int]place{}
	n := 1
	write := func(p place, line string) {
		places[n] = p
		out.WriteString(line + "\n")
		n++
	}
	tables := slices.Clone(d.tables)
	// Keys of the top belong before the first table.
	slices.SortStableFunc(tables, func(a, b *table) int { return min(len(a.name), 1) - min(len(b.name), 1) })
	for _, t := range tables {
		if len(t.lines) == 0 {
			continue
		}
		if t.name != "" {
			if n > 1 {
				write(place{}, "")
			}
			header := "[" + t.name + "]"
			if list, _, in := strings.Cut(t.name, "."); in {
				header = "[[" + list + "]]"
			}
			write(place{table: t}, header)
		}
		for _, l := range t.lines {
			write(place{t, l.key}, l.text())
		}
	}
	return out.String(), places
}

// commentColumn is where comments stand, in characters.
const commentColumn = 40

func (l line) text() string {
	text := config.Line(l.key, l.value)
	if l.from == "" {
		return text
	}
	return fmt.Sprintf("%-*s # %s", commentColumn, text, oneLine(l.from))
}

// oneLine is text for a comment.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return ' '
		}
		return c
	}, s)
}

// comments are what stands above everything.
func (d *draft) comments() string {
	var out strings.Builder
	fmt.Fprintf(&out, "# Taken over from %s by postino config import.\n", d.peer)
	if len(d.notes) > 0 {
		out.WriteString("#\n# What was not taken over, and why:\n")
	}
	for _, n := range d.notes {
		fmt.Fprintf(&out, "# - %s\n", oneLine(n))
	}
	out.WriteString("\n")
	return out.String()
}
