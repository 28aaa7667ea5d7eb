package aliases

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"postino/spool/address"
)

const (
	// maxDepth is how many aliases may lead to one another: more is a mistake.
	maxDepth = 20
	// maxTargets is how many recipients one alias may stand for in the end: a list of
	// that length belongs into a list manager.
	maxTargets = 10_000
)

// ownerPrefix begins the name of the alias of a list's owner.
const ownerPrefix = "owner-"

// Errors of Expand.
var (
	// ErrLoop: the alias leads back to itself.
	ErrLoop = errors.New("the alias leads back to itself")
	// ErrTooMany: more than 10,000 recipients, or aliases more than 20 deep.
	ErrTooMany = errors.New("the alias stands for too many recipients")
)

// Table is an aliases file in which names can be looked up.
type Table struct {
	entries map[string]*Entry
	// problem is what is wrong with the file; the aliases that can be read are there.
	problem error
}

// Open reads an aliases file for Expand. One that is missing is an empty one.
func Open(path string) (*Table, error) {
	text, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Table{}, nil
	}
	if err != nil {
		return nil, err
	}
	return newTable(path, text), nil
}

func newTable(path, text string) *Table {
	p := parser{file: path, lines: make(map[string]int)}
	p.text(text)
	t := &Table{entries: make(map[string]*Entry, len(p.entries)), problem: p.err()}
	for i := range p.entries {
		t.entries[p.entries[i].Name] = &p.entries[i]
	}
	return t
}

// read reads a file of lines, waiting for nothing that may stand in its place.
func read(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(text) > MaxFile {
		err = fmt.Errorf("%s: larger than %d octets: is it an aliases file?", path, MaxFile)
	}
	return string(text), err
}

// Expansion is what a name stands for in the end.
type Expansion struct {
	// Members are addresses, with Final set for a mailbox of this machine, and the
	// programs and files that are no addresses. They are in the order of the file,
	// each once.
	Members []Member
}

// Member is one of those that a name stands for in the end.
type Member struct {
	Target
	// Listed says for a program or a file that an :include: file names it, which is
	// not the administrator's word.
	Listed bool
	// Owner is the alias of those who want to hear of what becomes of mail to this
	// member, "owner-list" where there is one beside "list"; else empty.
	Owner string
}

// Expand follows the aliases from a name of this machine. found is false when it has
// none. isLocal tells which addresses are of this machine, so that their local part
// may be an alias too. A name that the file does not have, in a file that cannot be
// read as a whole, is an error: it may stand where the mistake is.
func (t *Table) Expand(name string, isLocal func(address.Address) bool) (x Expansion, found bool, err error) {
	w := walk{table: t, isLocal: isLocal, seen: make(map[string]bool)}
	e, err := t.find(name)
	if e == nil || err != nil {
		return x, false, err
	}
	if err := w.entry(e, name); err != nil {
		return x, false, err
	}
	return w.out, true, nil
}

// find returns the entry of a name, or the one for all names that have none: "*", or
// "default" as msmtp calls it.
func (t *Table) find(name string) (*Entry, error) {
	if e := t.entries[strings.ToLower(name)]; e != nil {
		return e, nil
	}
	if t.problem != nil {
		return nil, t.problem
	}
	for _, all := range []string{"*", "default"} {
		if e := t.entries[all]; e != nil {
			return e, nil
		}
	}
	return nil, nil
}

type walk struct {
	table   *Table
	isLocal func(address.Address) bool
	path    []*Entry // from the name asked for to here
	owner   string   // of the members here
	out     Expansion
	seen    map[string]bool
}

// entry follows an entry, which name was found to have.
func (w *walk) entry(e *Entry, name string) error {
	if slices.Contains(w.path, e) {
		return fmt.Errorf("%s: %w", e.Name, ErrLoop)
	}
	if len(w.path) == maxDepth {
		return fmt.Errorf("%s: %w", w.path[0].Name, ErrTooMany)
	}
	was := w.owner
	w.path = append(w.path, e)
	defer func() { w.path, w.owner = w.path[:len(w.path)-1], was }()
	if owner := w.table.entries[ownerPrefix+e.Name]; owner != nil {
		w.owner = owner.Name
	}
	return w.targets(e.Targets, name, false)
}

// targets follows what name stands for; listed says that a file of :include: does so.
func (w *walk) targets(list []Target, name string, listed bool) error {
	for _, target := range list {
		var err error
		switch {
		case target.Kind == Include && listed:
			err = fmt.Errorf("%s: an included file may not include another", target.Text)
		case target.Kind == Include:
			err = w.include(target.Text, name)
		case target.Kind == Mailbox && !target.Final && w.local(target.Address):
			err = w.mailbox(target, name)
		default:
			err = w.add(target, listed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) local(a address.Address) bool { return a.Domain == "" || w.isLocal(a) }

// mailbox follows the name of a mailbox on this machine. One that stands for itself,
// beside others or through "*", is the mailbox.
func (w *walk) mailbox(target Target, name string) error {
	next := target.Address.Local
	e, err := w.table.find(next)
	if err != nil {
		return err
	}
	if e == nil || strings.EqualFold(next, name) || e == w.path[len(w.path)-1] && e.Name != strings.ToLower(next) {
		target.Final = true
		return w.add(target, false)
	}
	return w.entry(e, next)
}

// include follows the recipients in a file, which name stands for.
func (w *walk) include(path, name string) error {
	text, err := read(path)
	if err != nil {
		return fmt.Errorf(":include: %w", err)
	}
	var list []Target
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, word := range split(line) {
			target, err := parseTarget(word)
			if err != nil {
				return fmt.Errorf("%s:%d: %w", path, number, err)
			}
			list = append(list, target)
		}
		if len(list) > maxTargets {
			return fmt.Errorf("%s: %w", path, ErrTooMany)
		}
	}
	return w.targets(list, name, true)
}

// add notes a target that stands for nothing else.
func (w *walk) add(target Target, listed bool) error {
	key := fmt.Sprint(target.Kind, target.Text, target.Address.Key())
	if w.seen[key] {
		return nil
	}
	if len(w.out.Members) == maxTargets {
		return fmt.Errorf("%s: %w", w.path[0].Name, ErrTooMany)
	}
	w.seen[key] = true
	w.out.Members = append(w.out.Members, Member{target, listed, w.owner})
	return nil
}
