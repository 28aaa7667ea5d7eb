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
	// maxSteps is how many targets are looked at to find them: aliases that share others
	// could have them met again and again.
	maxSteps = 10 * maxTargets
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

// Machine is what aliases have to know of the machine that they are for.
type Machine struct {
	// IsLocal tells which addresses are of this machine, so that their local part may be
	// an alias too.
	IsLocal func(address.Address) bool
	// Forward finds whom a user without an alias forwards mail to; none is nobody. A nil
	// Forward is that for all.
	Forward func(user string) ([]Target, error)
}

// Expand follows the aliases from a name of this machine. found is false when it has
// none. A name that the file does not have, in a file that cannot be read as a whole, is
// an error: it may stand where the mistake is.
func (t *Table) Expand(name string, m Machine) (x Expansion, found bool, err error) {
	root, err := t.Tree(name, m, &x)
	if root == nil || err != nil {
		return Expansion{}, false, err
	}
	return x, true, nil
}

// Node is a target, and what it stands for itself.
type Node struct {
	Target
	Line  int // of the alias that Below is from; 0 where it is none
	Owner string
	Below []*Node
	// Again: it has been met before, and what is below it is not told twice.
	Again bool
}

// Tree is Expand, and tells the way: the result is nil when the name has no alias. It is
// told up to an error too. x may be nil.
func (t *Table) Tree(name string, m Machine, x *Expansion) (*Node, error) {
	w := walk{table: t, machine: m, seen: make(map[string]bool)}
	e, err := w.find(name)
	if e == nil || err != nil {
		return nil, err
	}
	w.at = &Node{Target: Target{Address: address.Address{Local: name}}}
	root := w.at
	if err := w.entry(e, name); err != nil {
		return root, err
	}
	if x != nil {
		*x = w.out
	}
	return root, nil
}

// find is Table.find, or a made-up entry for what a user forwards to.
func (w *walk) find(name string) (*Entry, error) {
	e, err := w.table.find(name)
	if e != nil || err != nil || w.machine.Forward == nil {
		return e, err
	}
	if e := w.forwards[name]; e != nil {
		return e, nil
	}
	list, err := w.machine.Forward(name)
	if len(list) == 0 || err != nil {
		return nil, err
	}
	if w.forwards == nil {
		w.forwards = make(map[string]*Entry)
	}
	w.forwards[name] = &Entry{Name: strings.ToLower(name), Targets: list}
	return w.forwards[name], nil
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
	table    *Table
	machine  Machine
	forwards map[string]*Entry // made up, by user
	path     []*Entry          // from the name asked for to here
	owner    string            // of the members here
	at       *Node
	steps    int
	out      Expansion
	seen     map[string]bool
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
	w.at.Line, w.at.Owner = e.Line, w.owner
	return w.targets(e.Targets, name, w.forwards[name] == e)
}

// targets follows what name stands for; listed says that it is not the administrator
// who says so, but a file of :include: or of a user.
func (w *walk) targets(list []Target, name string, listed bool) error {
	above := w.at
	defer func() { w.at = above }()
	for _, target := range list {
		if w.steps++; w.steps > maxSteps {
			return fmt.Errorf("%s: %w", w.path[0].Name, ErrTooMany)
		}
		w.at = &Node{Target: target}
		above.Below = append(above.Below, w.at)
		var err error
		switch {
		case target.Kind == Include && listed:
			err = fmt.Errorf("%s: a file that is included, or a user's, may not include another", target.Text)
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

func (w *walk) local(a address.Address) bool { return a.Domain == "" || w.machine.IsLocal(a) }

// mailbox follows the name of a mailbox on this machine. One that stands for itself,
// beside others or through "*", is the mailbox.
func (w *walk) mailbox(target Target, name string) error {
	next := target.Address.Local
	e, err := w.find(next)
	if err != nil {
		return err
	}
	if e == nil || strings.EqualFold(next, name) || e == w.path[len(w.path)-1] && e.Name != strings.ToLower(next) {
		target.Final, w.at.Final = true, true
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
	list, err := ParseList(path, text)
	if err != nil {
		return err
	}
	return w.targets(list, name, true)
}

// ParseList reads the text of a file of recipients, in lines and between commas, as one
// that :include: names. The error is about one of its lines, or ErrTooMany.
func ParseList(name, text string) ([]Target, error) {
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
				return nil, fmt.Errorf("%s:%d: %w", name, number, err)
			}
			list = append(list, target)
		}
		if len(list) > maxTargets {
			return nil, fmt.Errorf("%s: %w", name, ErrTooMany)
		}
	}
	return list, nil
}

// add notes a target that stands for nothing else.
func (w *walk) add(target Target, listed bool) error {
	key := fmt.Sprint(target.Kind, target.Text, target.Address.Key())
	if w.seen[key] {
		w.at.Again = true
		return nil
	}
	if len(w.out.Members) == maxTargets {
		return fmt.Errorf("%s: %w", w.path[0].Name, ErrTooMany)
	}
	w.seen[key] = true
	w.out.Members = append(w.out.Members, Member{target, listed, w.owner})
	return nil
}
