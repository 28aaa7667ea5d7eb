package spool

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Salvaged is what came out of a damaged spool file.
type Salvaged struct {
	File string `json:"file"`
	// Faults are the first few things that are wrong with the file.
	Faults []string `json:"faults"`
	// Queued are back in the queue as they were. Held are back too, and wait for a
	// person, because it is not known whether they were sent already or because
	// their content is damaged.
	Queued int `json:"queued"`
	Held   int `json:"held"`
	// Finished are back in the history.
	Finished int `json:"finished"`
	// Known were in the spool already, by their ID or that of their submission.
	Known int `json:"known"`
	// Partial says of what is not whole what is left of it.
	Partial []string `json:"partial"`
}

const (
	// damagedInfix stands between the name of a spool file that was set aside and
	// the time of that.
	damagedInfix = ".damaged."
	asideTime    = "20060102T150405.000000Z"
	// doneSuffix ends the name of the report about a file that was salvaged.
	doneSuffix = ".salvaged"
	// salvagedDir holds content whose envelope is lost, for a person to look at.
	salvagedDir = "salvaged"

	// restoreStep is how many messages, and restoreSize how many octets of content,
	// one transaction brings back: submissions wait behind it.
	restoreStep = 100
	restoreSize = 4 << 20
	// maxPartial is how many partial messages a report names.
	maxPartial = 1000
)

// Why a salvaged message is held.
const (
	heldUnknown = "salvaged from a damaged spool: may have been sent already"
	heldDamaged = "salvaged from a damaged spool: its content is damaged"
	heldLost    = "salvaged from a damaged spool: its content is lost"
)

// SetAside returns the damaged spool files, oldest first, that were set aside, by
// this Open or an earlier one, and not salvaged yet.
func (s *Spool) SetAside() ([]Aside, error) {
	names, err := filepath.Glob(s.path(dbFile + damagedInfix + "*"))
	if err != nil {
		return nil, err
	}
	var list []Aside
	for _, name := range names {
		if strings.HasSuffix(name, doneSuffix) || slices.Contains(names, name+doneSuffix) {
			continue
		}
		a := Aside{Path: name}
		if name == s.found.Path {
			a = s.found
		}
		list = append(list, a)
	}
	return list, nil
}

// Salvage brings everything readable from a damaged spool file into the spool, and
// leaves the file as it is. Large content that is not in the spool yet is copied from
// content/ beside the file. It may run again, and while the spool is in use: what is in
// the spool already stays as it is. It ends early when ctx does.
func (s *Spool) Salvage(ctx context.Context, path string) (report Salvaged, err error) {
	// Whatever is in that file, it must not be able to stop the runner.
	defer func() {
		if bug := recover(); bug != nil {
			err = fmt.Errorf("%s: not salvaged: %v", path, bug)
		}
	}()
	// It may be linked, but not changed, while it is read.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return report, err
	}
	defer f.Close()
	d, err := readDB(f)
	if err != nil {
		return report, err
	}
	readAhead(f, d.size)
	x := index{f: d}
	if err := x.build(ctx); err != nil {
		return report, err
	}
	v := salvage{ctx: ctx, s: s, x: &x, beside: s.beside(path), report: Salvaged{File: path, Faults: x.faultTexts(), Partial: []string{}}}
	if err := v.run(); err != nil {
		return v.report, fmt.Errorf("%s: %w", path, err)
	}
	return v.report, s.noteSalvaged(path, v.report)
}

// noteSalvaged writes the report beside a file that was set aside in the spool
// directory, so that it is not salvaged again at the next start.
func (s *Spool) noteSalvaged(path string, report Salvaged) error {
	if filepath.Dir(path) != filepath.Clean(s.dir) || !strings.HasPrefix(filepath.Base(path), dbFile+damagedInfix) {
		return nil
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+doneSuffix, append(text, '\n'), 0o600); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	left, err := s.SetAside()
	s.mu.Lock()
	s.salvaging = err != nil || len(left) > 0
	s.mu.Unlock()
	return err
}

// entry is where a row of the file is.
type entry struct {
	id   ID
	n    uint32 // of an attempt
	size uint32
	off  int64
	// raw: no tree leads to it. It may be lost, or an older copy in a page that is
	// free by now.
	raw bool
}

// index is what there is in a damaged file, in the tree and out of it.
type index struct {
	f                                             *pageFile
	gaps                                          []gap
	message, history, attempt, content, suspended []entry
}

// build reads the file twice: along the tree, and then each page that the tree does
// not lead to.
func (x *index) build(ctx context.Context) error {
	w := walk{
		f:   x.f,
		row: func(bucket string, r row) error { x.add(bucket, r, false); return ctx.Err() },
		gap: func(g gap) { x.gaps = append(x.gaps, g) },
	}
	if err := w.run(); err != nil {
		return err
	}
	for id := uint64(2); id < uint64(x.f.size/x.f.pageSize); id++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if w.reached(id) {
			continue
		}
		for r := range x.f.strayRows(id) {
			x.addStray(r)
		}
	}
	for _, list := range [][]entry{x.message, x.history, x.attempt, x.content, x.suspended} {
		slices.SortStableFunc(list, func(a, b entry) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.n, b.n)) })
	}
	return nil
}

// bucketOf guesses the bucket of a row that no tree leads to. Records describe
// themselves; what has a message's key and is no record may be content.
func bucketOf(r row) string {
	record := checkSum(r.value) == nil
	switch {
	case len(r.key) == 8 && record && names(r.value, keyID(r.key)):
		if isFinished(r.value) {
			return string(bucketHistory)
		}
		return string(bucketMessage)
	case len(r.key) == 8 && len(r.value) <= smallContent:
		return string(bucketContent)
	case len(r.key) == 12 && record:
		return string(bucketAttempt)
	case len(r.key) == 4 && record:
		return string(bucketSuspension)
	}
	return ""
}

// addStray adds a row that no tree leads to, or those of a bucket that is so small
// that it is one.
func (x *index) addStray(r row) {
	if !r.bucket {
		x.add(bucketOf(r), r, true)
		return
	}
	if p, err := r.inline(); err == nil {
		for i := range p.count {
			if r := p.row(i); !r.bucket {
				x.add(bucketOf(r), r, true)
			}
		}
	}
}

func (x *index) add(bucket string, r row, raw bool) {
	e := entry{id: keyID(r.key), size: uint32(len(r.value)), off: r.off, raw: raw}
	switch bucket {
	case string(bucketMessage):
		x.message = append(x.message, e)
	case string(bucketHistory):
		x.history = append(x.history, e)
	case string(bucketContent):
		x.content = append(x.content, e)
	case string(bucketAttempt):
		if len(r.key) == 12 {
			e.n = binary.BigEndian.Uint32(r.key[8:])
			x.attempt = append(x.attempt, e)
		}
	case string(bucketSuspension):
		if len(r.key) == 4 {
			e.n = binary.BigEndian.Uint32(r.key)
			x.suspended = append(x.suspended, e)
		}
	}
}

// value reads a row again; nil if that fails.
func (x *index) value(e entry) []byte {
	b := make([]byte, e.size)
	if _, err := x.f.r.ReadAt(b, e.off); err != nil {
		return nil
	}
	return b
}

// of returns the entries of one message.
func of(list []entry, id ID) []entry {
	first, _ := slices.BinarySearchFunc(list, id, func(e entry, id ID) int { return cmp.Compare(e.id, id) })
	end := first
	for end < len(list) && list[end].id == id {
		end++
	}
	return list[first:end]
}

// missing reports whether a bucket may have had rows of id that the tree does not
// lead to.
func (x *index) missing(bucket []byte, id ID) bool {
	if !x.f.whole {
		return true // the newest transaction may be lost
	}
	key := id.key()
	return slices.ContainsFunc(x.gaps, func(g gap) bool {
		if g.bucket == "" {
			return g.lo == nil
		}
		// lo may be longer than the keys of a message: an attempt.
		return g.bucket == string(bucket) && (g.lo == nil || string(key) >= string(g.lo[:min(8, len(g.lo))])) &&
			(g.hi == nil || string(key) < string(g.hi))
	})
}

func (x *index) faultTexts() []string {
	var texts []string
	for _, err := range x.f.faults {
		texts = append(texts, err.Error())
	}
	for _, g := range x.gaps {
		if len(texts) >= maxFaults {
			break
		}
		texts = append(texts, g.err.Error())
	}
	return texts
}

// tree returns the entry that the tree leads to.
func tree(list []entry) (entry, bool) {
	i := slices.IndexFunc(list, func(e entry) bool { return !e.raw })
	if i < 0 {
		return entry{}, false
	}
	return list[i], true
}

// attempts returns the attempts of a message, in order, each once. Copies of one
// attempt are equal.
func (x *index) attempts(id ID) []restoredAttempt {
	var list []restoredAttempt
	for _, e := range of(x.attempt, id) {
		if len(list) > 0 && list[len(list)-1].n == e.n {
			continue
		}
		a := restoredAttempt{n: e.n, record: x.value(e)}
		if decode(a.record, &a.attempt) == nil {
			list = append(list, a)
		}
	}
	return list
}

// contentOf returns the content of a message that is whole, or without such a one
// that which the tree leads to. current: the tree leads to content of m, so that m
// is not finished.
func (x *index) contentOf(m *Message) (b []byte, whole, current bool) {
	for _, e := range of(x.content, m.ID) {
		v := x.value(e)
		current = current || !e.raw
		switch {
		case int64(len(v)) == m.Size && crc32.Checksum(v, castagnoli) == m.Content.Sum:
			b, whole = v, true
		case !whole && !e.raw:
			b = v
		}
	}
	return b, whole, current
}
