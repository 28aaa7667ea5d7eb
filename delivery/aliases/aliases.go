// Package aliases reads aliases(5) files: which names stand for which recipients.
package aliases

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"postino/spool/address"
)

const (
	// MaxFile is the largest file read, in octets: 100,000 aliases with room to
	// spare, and a bound on what a mistaken path costs.
	MaxFile = 16 << 20
	// maxProblems is how many problems an error names.
	maxProblems = 10
)

// Kind is what an alias stands for.
type Kind int

// The kinds of targets.
const (
	Mailbox Kind = iota // an address, or a bare name that may be an alias again
	Program             // "|command"
	File                // "/path"
	Include             // ":include:/path"
)

// Target is one of the recipients that an alias stands for.
type Target struct {
	Kind Kind
	// Address is set for a Mailbox. Text is the command or the path of the others.
	Address address.Address
	Text    string
	// Final: written with a backslash, "\name", and not to be expanded again.
	Final bool
}

// Entry is one alias. Name is in lower case, since names are compared so.
type Entry struct {
	Name    string
	Targets []Target
	Line    int // where it begins, from 1
}

// Parse reads the text of an aliases file; name stands before the line number in
// errors. What is right is returned even so: one wrong line must not take the
// others away. The error names up to ten problems, each on a line of its own.
func Parse(name, text string) ([]Entry, error) {
	p := parser{file: name, lines: make(map[string]int)}
	p.text(text)
	p.loops()
	return p.entries, p.err()
}

func (p *parser) text(text string) {
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		p.line(strings.TrimSuffix(line, "\r"), number)
	}
	p.end()
}

// Load reads an aliases file. One that is missing is an empty one; the error is
// that of reading it or, with what is right in it, Parse's.
func Load(path string) ([]Entry, error) {
	text, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

type parser struct {
	file     string
	entries  []Entry
	lines    map[string]int // name → where it was defined
	problems []string
	more     int

	logical string // the entry so far, its continuation lines joined
	begun   int    // where it begins; 0 when there is none
}

func (p *parser) fail(line int, format string, args ...any) {
	if len(p.problems) == maxProblems {
		p.more++
		return
	}
	p.problems = append(p.problems, fmt.Sprintf("%s:%d: ", p.file, line)+fmt.Sprintf(format, args...))
}

func (p *parser) err() error {
	if p.more > 0 {
		p.problems = append(p.problems, fmt.Sprintf("%s: and %d more", p.file, p.more))
	}
	if len(p.problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(p.problems, "\n"))
}

func (p *parser) line(line string, number int) {
	blank := strings.Trim(line, " \t") == ""
	switch {
	case strings.HasPrefix(line, "#"), blank:
		p.end()
	case line[0] == ' ' || line[0] == '\t':
		if p.begun == 0 {
			p.fail(number, "a line that begins with a blank continues an alias, and there is none before it")
			return
		}
		p.logical += " " + strings.Trim(line, " \t")
	default:
		p.end()
		p.logical, p.begun = line, number
	}
}

// end takes the entry that was being read.
func (p *parser) end() {
	text, line := p.logical, p.begun
	p.logical, p.begun = "", 0
	if line == 0 {
		return
	}
	name, rest, ok := cutName(text)
	if !ok {
		p.fail(line, "%q is no alias: want name: recipient, recipient", clip(text))
		return
	}
	if at := p.lines[name]; at != 0 {
		p.fail(line, "%q is defined in line %d already: join them", name, at)
		return
	}
	p.lines[name] = line
	e := Entry{Name: name, Line: line}
	for _, word := range split(rest) {
		t, err := parseTarget(word)
		if err != nil {
			p.fail(line, "%s: %v", name, err)
			return
		}
		e.Targets = append(e.Targets, t)
	}
	if len(e.Targets) == 0 {
		p.fail(line, "%q stands for nobody: name a recipient, or /dev/null", name)
		return
	}
	p.entries = append(p.entries, e)
}

// cutName takes the name off an entry; it may be quoted.
func cutName(text string) (name, rest string, ok bool) {
	if strings.HasPrefix(text, `"`) {
		name, rest, ok = strings.Cut(text[1:], `"`)
		if !ok {
			return "", "", false
		}
		rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " \t"), ":")
	} else {
		name, rest, ok = strings.Cut(text, ":")
		name = strings.TrimRight(name, " \t")
		ok = ok && !strings.ContainsAny(name, " \t,\"")
	}
	return strings.ToLower(name), rest, ok && name != ""
}

// split cuts a list at the commas that are not quoted, and leaves empty elements
// out.
func split(list string) []string {
	var words []string
	quoted, start := false, 0
	add := func(end int) {
		if w := strings.Trim(list[start:end], " \t"); w != "" {
			words = append(words, w)
		}
		start = end + 1
	}
	for i := 0; i < len(list); i++ {
		switch list[i] {
		case '"':
			quoted = !quoted
		case '\\':
			i++
		case ',':
			if !quoted {
				add(i)
			}
		}
	}
	if start <= len(list) {
		add(len(list))
	}
	return words
}

func parseTarget(word string) (Target, error) {
	text := word
	if inner, ok := strings.CutPrefix(word, `"`); ok && strings.HasSuffix(inner, `"`) && len(inner) > 1 {
		text = strings.ReplaceAll(inner[:len(inner)-1], `\"`, `"`)
	}
	switch {
	case strings.HasPrefix(text, "|"):
		command := strings.Trim(text[1:], " \t")
		if command == "" {
			return Target{}, fmt.Errorf("%q names no command", clip(word))
		}
		return Target{Kind: Program, Text: command}, nil
	case strings.HasPrefix(text, "/"):
		return Target{Kind: File, Text: text}, nil
	case strings.HasPrefix(text, ":include:"):
		path := strings.Trim(strings.TrimPrefix(text, ":include:"), " \t")
		if !strings.HasPrefix(path, "/") {
			return Target{}, fmt.Errorf("%q: want an absolute path, such as :include:/etc/mail/list", clip(word))
		}
		return Target{Kind: Include, Text: path}, nil
	}
	final, isFinal := strings.CutPrefix(word, `\`)
	a, err := address.Parse(final)
	return Target{Address: a, Final: isFinal}, err
}

// loops reports aliases that lead back to themselves. Each chain is walked once.
func (p *parser) loops() {
	byName := make(map[string]*Entry, len(p.entries))
	for i := range p.entries {
		byName[p.entries[i].Name] = &p.entries[i]
	}
	const walking, done = 1, 2
	state := make(map[string]int, len(p.entries))
	for i := range p.entries {
		// A stack of our own: the file chooses the depth.
		type frame struct {
			e    *Entry
			next int
		}
		if state[p.entries[i].Name] != 0 {
			continue
		}
		stack := []frame{{e: &p.entries[i]}}
		state[p.entries[i].Name] = walking
		for len(stack) > 0 {
			f := &stack[len(stack)-1]
			if f.next == len(f.e.Targets) {
				state[f.e.Name] = done
				stack = stack[:len(stack)-1]
				continue
			}
			t := f.e.Targets[f.next]
			f.next++
			to := byName[strings.ToLower(t.Address.Local)]
			if t.Kind != Mailbox || t.Final || t.Address.Domain != "" || to == nil || to == f.e {
				continue // an alias for itself means the mailbox of that name
			}
			switch state[to.Name] {
			case walking:
				p.fail(f.e.Line, "%s leads back to %s: mail for it would go in circles", f.e.Name, to.Name)
			case 0:
				state[to.Name] = walking
				stack = append(stack, frame{e: to})
			}
		}
	}
}

// clip cuts text to what fits a message.
func clip(text string) string {
	const most = 60 // octets
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
