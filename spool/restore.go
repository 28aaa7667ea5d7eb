package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
)

// salvage brings what an index found into a spool.
type salvage struct {
	ctx    context.Context
	s      *Spool
	x      *index
	report Salvaged
	// beside is the directory with the large content of a file that is from elsewhere.
	beside  string
	fetched bool // something of it since the last transaction
	absent  int  // messages whose content would be there, if they are not finished

	batch []restored
	size  int // octets of content in batch
}

// restored is a message as it is to be stored.
type restored struct {
	m        *Message
	content  []byte // nil: in a file, gone, or never wanted
	attempts []restoredAttempt
}

type restoredAttempt struct {
	n       uint32
	record  []byte
	attempt Attempt
}

// run brings mail back first: it is what waits.
func (v *salvage) run() error {
	if err := v.suspensions(); err != nil {
		return err
	}
	for list := v.x.message; len(list) > 0; {
		copies := of(list, list[0].id)
		list = list[len(copies):]
		r, ok := v.message(copies)
		if !ok {
			continue
		}
		if err := v.fetch(&r); err != nil {
			return err
		}
		if err := v.add(r); err != nil {
			return err
		}
	}
	for list := v.x.history; len(list) > 0; {
		copies := of(list, list[0].id)
		list = list[len(copies):]
		r, ok := v.finished(copies)
		if !ok {
			continue
		}
		if err := v.fetch(&r); err != nil {
			return err
		}
		if err := v.add(r); err != nil {
			return err
		}
	}
	if err := v.flush(); err != nil {
		return err
	}
	return v.orphans()
}

// message decides what becomes of a message of which there are those copies of its
// record. The result is false when it is none of the queue's.
//
// A copy that the tree leads to is the message. One beside the tree counts only
// where the tree has a gap, and is an older one if an attempt came after it: the
// attempts, which are never changed, say what happened since. That it is not
// finished is proved by its content, which the tree would not lead to any more. Where
// the proof is missing the message is held.
func (v *salvage) message(copies []entry) (restored, bool) {
	id := copies[0].id
	_, current := tree(copies)
	if !current && !v.x.missing(bucketMessage, id) || len(of(v.x.history, id)) > 0 {
		return restored{}, false
	}
	m := v.newest(copies)
	if m == nil {
		return restored{}, false
	}
	r := restored{m: m, attempts: v.x.attempts(id)}
	for _, a := range r.attempts {
		if int(a.n) >= m.Attempts {
			m.apply(&a.attempt)
			m.Attempts = int(a.n) + 1
		}
	}
	var there, whole, live bool
	if m.Content.File {
		var path string
		path, whole = v.stored(m)
		there, live = path != "", path != ""
	} else {
		r.content, whole, live = v.x.contentOf(m)
		there = r.content != nil
	}
	if !current && !live && (m.Content.File || !v.x.missing(bucketContent, id)) {
		if m.Content.File {
			v.absent++
		}
		return restored{}, false // it is finished, and its content went with that
	}
	switch {
	case m.Settled():
		m.Finished, m.Kept = time.Now(), false
		r.content = nil
	case !there:
		m.Held, m.HeldBy = heldLost, ""
		v.partial("%s from %s: the content is lost", id, m.Sender)
	case !whole:
		m.Held, m.HeldBy = heldDamaged, ""
		v.partial("%s from %s: the content is damaged", id, m.Sender)
	case !current && (!v.x.f.whole || !live || v.x.missing(bucketAttempt, id)) && m.Held == "":
		m.Held, m.HeldBy = heldUnknown, ""
	}
	return r, true
}

// newest returns the message of the copy that the tree leads to, or else that of
// the one with the most attempts, held if any copy says so.
func (v *salvage) newest(copies []entry) *Message {
	if e, ok := tree(copies); ok {
		copies = []entry{e}
	}
	var best *Message
	var held string
	var by Holder
	for _, e := range copies {
		m, err := decodeMessage(v.x.value(e))
		if err != nil || m.ID != e.id {
			continue
		}
		if m.Held != "" {
			held, by = m.Held, m.HeldBy
		}
		if best == nil || m.Attempts > best.Attempts {
			best = m
		}
	}
	if best != nil && best.Held == "" {
		best.Held, best.HeldBy = held, by
	}
	return best
}

// finished decides what becomes of a finished message.
func (v *salvage) finished(copies []entry) (restored, bool) {
	id := copies[0].id
	e, current := tree(copies)
	if !current {
		if !v.x.missing(bucketHistory, id) {
			return restored{}, false // trimmed
		}
		e = copies[0]
	}
	m, err := decodeMessage(v.x.value(e))
	if err != nil || m.ID != id {
		return restored{}, false
	}
	r := restored{m: m, attempts: v.x.attempts(id)}
	whole := true
	if m.keeps() && !m.Content.File {
		r.content, whole, _ = v.x.contentOf(m)
	} else if m.keeps() {
		_, whole = v.stored(m)
	}
	if m.Kept && !whole { // it cannot be sent again
		m.Kept, r.content = false, nil
	}
	return r, true
}

func (v *salvage) partial(format string, args ...any) {
	if len(v.report.Partial) < maxPartial {
		v.report.Partial = append(v.report.Partial, fmt.Sprintf(format, args...))
	}
}

func (v *salvage) add(r restored) error {
	v.batch = append(v.batch, r)
	if v.size += len(r.content); len(v.batch) < restoreStep && v.size < restoreSize {
		return nil
	}
	return v.flush()
}

// flush stores the batch in one transaction.
func (v *salvage) flush() error {
	if err := v.ctx.Err(); err != nil {
		return err
	}
	if v.fetched {
		if err := syncDir(v.s.path(contentDir)); err != nil {
			return err
		}
		v.fetched = false
	}
	var counts Salvaged
	var queued []*Message
	err := v.s.update(func(tx *bolt.Tx) error {
		counts, queued = Salvaged{}, nil
		for _, r := range v.batch {
			known, err := r.put(tx)
			switch {
			case err != nil:
				return err
			case known:
				counts.Known++
			case !r.m.Finished.IsZero():
				counts.Finished++
			case r.m.Held == heldUnknown || r.m.Held == heldDamaged || r.m.Held == heldLost:
				counts.Held++
			default:
				counts.Queued++
				queued = append(queued, r.m)
			}
		}
		return nil
	}, func() {
		for _, m := range queued {
			v.s.notify(m)
		}
	})
	if err != nil {
		return err
	}
	v.report.Known += counts.Known
	v.report.Finished += counts.Finished
	v.report.Held += counts.Held
	v.report.Queued += counts.Queued
	v.batch, v.size = v.batch[:0], 0
	return nil
}

// put stores a message unless it is known.
func (r *restored) put(tx *bolt.Tx) (known bool, err error) {
	if knows(tx, r.m) {
		return true, nil
	}
	key := r.m.ID.key()
	record, err := encode(r.m)
	if err != nil {
		return false, err
	}
	for _, a := range r.attempts {
		if err := tx.Bucket(bucketAttempt).Put(binary.BigEndian.AppendUint32(key, a.n), a.record); err != nil {
			return false, err
		}
	}
	if err := putContent(tx, r.m, r.content); err != nil {
		return false, err
	}
	if r.m.Finished.IsZero() {
		return false, putRecord(tx, r.m, record)
	}
	return false, tx.Bucket(bucketHistory).Put(key, record)
}

// suspensions come first, so that nothing of theirs is released.
func (v *salvage) suspensions() error {
	return v.s.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketSuspension)
		for _, e := range v.x.suspended {
			key := binary.BigEndian.AppendUint32(nil, e.n)
			if e.raw && !v.x.missing(bucketSuspension, 0) || b.Get(key) != nil {
				continue
			}
			if err := b.Put(key, v.x.value(e)); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}

// orphans keeps the content of messages whose records are lost: what the tree leads
// to is written to a file in salvaged/, what is in a file of ours goes there.
func (v *salvage) orphans() error {
	for _, e := range v.x.content {
		if e.raw || !v.x.missing(bucketMessage, e.id) || len(of(v.x.history, e.id)) > 0 {
			continue
		}
		if _, err := v.s.Message(e.id); err == nil {
			continue
		}
		name, err := v.s.orphanPath(e.id.String())
		if err == nil {
			err = os.WriteFile(name, v.x.value(e), 0o600)
		}
		if err != nil {
			return err
		}
		v.partial("%s: the envelope is lost; the content is in %s", e.id, name)
	}
	missing := !v.x.f.whole || v.messagesMissing()
	if v.beside != "" {
		return v.nameOrphans(missing)
	}
	if !missing {
		return nil
	}
	moved, err := v.s.moveOrphans()
	for _, name := range moved {
		v.partial("the envelope is lost; the content is in %s", name)
	}
	return err
}

func (v *salvage) messagesMissing() bool {
	for _, g := range v.x.gaps {
		if g.bucket == "" || g.bucket == string(bucketMessage) {
			return true
		}
	}
	return false
}

// orphanPath is where the content of a lost message is kept.
func (s *Spool) orphanPath(name string) (string, error) {
	if err := os.Mkdir(s.path(salvagedDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return s.path(salvagedDir, name+".eml"), nil
}

// moveOrphans moves the content files that no record names and no draft is making
// to salvaged/.
func (s *Spool) moveOrphans() (moved []string, err error) {
	entries, err := os.ReadDir(s.path(contentDir))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		id, _ := ParseID(e.Name())
		s.mu.Lock()
		_, open := s.reserved[id]
		if !open {
			err = s.view(func(tx *bolt.Tx) error {
				open = named(tx, id)
				return nil
			})
		}
		if err == nil && !open {
			var to string
			if to, err = s.orphanPath(e.Name()); err == nil {
				err = os.Rename(s.path(contentDir, e.Name()), to)
			}
			moved = append(moved, to)
		}
		s.mu.Unlock()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return moved, err
		}
	}
	return moved, nil
}
