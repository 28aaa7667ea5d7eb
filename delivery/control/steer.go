package control

import (
	"errors"
	"fmt"
	"iter"
	"net/http"
	"sync"

	"postino/spool"
)

// Verb is what an administrator does to messages of the queue.
type Verb string

// The verbs.
const (
	Hold    Verb = "hold"    // attempt nothing until Release
	Release Verb = "release" // undo Hold; the message is due at once
	Retry   Verb = "retry"   // due at once, also what is in the failed list; what is held stays so
	Delete  Verb = "delete"  // give it up: its recipients have failed, and nothing is sent
)

// Verbs are all of them.
func Verbs() []Verb { return []Verb{Hold, Release, Retry, Delete} }

// concerns reports whether a verb changes a message that a selection finds. A
// message that is named by its ID is told about whatever its state.
func (v Verb) concerns(m *Message) bool {
	switch v {
	case Hold, Retry:
		return m.Status != StatusHeld
	case Release:
		return m.Status == StatusHeld
	}
	return true
}

// do does it. uid is whoever asked for it.
func (v Verb) do(s *spool.Spool, id spool.ID, uid int) (*spool.Message, error) {
	switch v {
	case Hold:
		return s.Hold(id, fmt.Sprintf("held by uid %d", uid))
	case Release:
		return s.Retry(id, true)
	case Delete:
		if m, err := s.Drop(id); !errors.Is(err, spool.ErrNotFound) {
			return m, err
		}
		return s.Fail(id, spool.Reply{Status: "5.7.1", Text: fmt.Sprintf("deleted by uid %d", uid), Command: spool.CommandDelete})
	}
	m, err := s.Message(id)
	if err == nil && m.Held != "" {
		return nil, fmt.Errorf("%s: %w: it is held: release it", id, ErrConflict)
	}
	if err == nil && m.Kept && !m.Finished.IsZero() {
		return s.Revive(id)
	}
	return s.Retry(id, false)
}

// preview answers with the messages that a verb would change.
func (s *Server) preview(v Verb) func(http.ResponseWriter, *request) error {
	return s.admin(func(w http.ResponseWriter, r *request) error {
		sel, err := ParseSelection(r.URL.Query())
		if err != nil {
			return err
		}
		return stream(w, concerned(r.view, v, sel))
	})
}

// steer does a verb to the messages of a selection and answers with each of them
// as it is then. What is finished meanwhile is passed over, unless it was named.
func (s *Server) steer(v Verb) func(http.ResponseWriter, *request) error {
	return s.admin(func(w http.ResponseWriter, r *request) error {
		sel, err := ParseSelection(r.URL.Query())
		if err != nil {
			return err
		}
		if v == Retry && sel.all() {
			// In the schedule alone: that also sees to attempts under way.
			s.o.Runner.Retry()
			return stream(w, concerned(r.view, v, sel))
		}
		if v == Retry {
			s.o.Runner.Doubt()
		}
		changed := 0
		err = stream(w, func(yield func(Message, error) bool) {
			for m, err := range s.steered(v, sel, r) {
				if err == nil {
					changed++
				}
				if !yield(m, err) {
					return
				}
			}
		})
		s.o.Log.Info(string(v), "by", r.peer.uid, "messages", changed)
		return err
	})
}

// concerned yields what a verb would change.
func concerned(view View, v Verb, sel Selection) iter.Seq2[Message, error] {
	limit := sel.Limit
	sel.Limit = 0
	sel.orFailed = v == Retry || v == Delete
	return first(limit, func(yield func(Message, error) bool) {
		for m, err := range view.Queue(sel) {
			if (err != nil || len(sel.IDs) > 0 || v.concerns(&m)) && !yield(m, err) {
				return
			}
		}
	})
}

// steerGroup is how many messages are changed at a time: as many as share one
// transaction of the spool at most.
const steerGroup = 256

func (s *Server) steered(v Verb, sel Selection, r *request) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		group := make([]steering, 0, steerGroup)
		flush := func() bool {
			s.steerGroup(v, group, r)
			for _, g := range group {
				passed := len(sel.IDs) == 0 && errors.Is(g.err, ErrConflict)
				if !passed && !yield(g.message, g.err) {
					return false
				}
			}
			group = group[:0]
			return true
		}
		for m, err := range concerned(r.view, v, sel) {
			if group = append(group, steering{m, err}); len(group) == steerGroup && !flush() {
				return
			}
		}
		flush()
	}
}

// steering is one message on its way, or why it is not.
type steering struct {
	message Message
	err     error
}

// steerGroup changes all messages of a group at once, so that they share a sync.
func (s *Server) steerGroup(v Verb, group []steering, r *request) {
	var wg sync.WaitGroup
	for i := range group {
		g := &group[i]
		if g.err != nil {
			continue
		}
		wg.Go(func() {
			m, err := v.do(s.o.Spool, g.message.ID, r.peer.uid)
			if errors.Is(err, spool.ErrNotFound) {
				err = s.finishedMeanwhile(g.message.ID, err)
			}
			if g.err = err; err == nil {
				g.message = newMessage(m, r.view.Access)
			}
		})
	}
	wg.Wait()
}

// finishedMeanwhile is ErrConflict for a message that was there a moment ago.
func (s *Server) finishedMeanwhile(id spool.ID, err error) error {
	if _, again := s.o.Spool.Message(id); again == nil {
		return fmt.Errorf("%s: %w: it is finished", id, ErrConflict)
	}
	return err
}

// first yields the first limit elements that are no errors; all if it is 0.
func first[T any](limit int, elements iter.Seq2[T, error]) iter.Seq2[T, error] {
	if limit == 0 {
		return elements
	}
	return func(yield func(T, error) bool) {
		n := 0
		for v, err := range elements {
			if !yield(v, err) {
				return
			}
			if err == nil {
				n++
			}
			if n == limit {
				return
			}
		}
	}
}
