package spool

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool/crashpoint"
)

// The failed list: finished messages of which a recipient failed and whose content is
// kept, so that the mail can still be sent when what was wrong is mended.

// keeps reports whether the content of a finished message stays.
func (m *Message) keeps() bool { return m.Captured || m.Kept }

// Since is when the lifetime of m began: when it arrived, or was queued again.
func (m *Message) Since() time.Time {
	if m.Retried.After(m.Arrived) {
		return m.Retried
	}
	return m.Arrived
}

// hasFailed reports whether a recipient failed, other than by hand.
func (m *Message) hasFailed() bool {
	return slices.ContainsFunc(m.Recipients, func(r Recipient) bool { return r.revivable() })
}

func (r *Recipient) revivable() bool { return r.Status == Failed && !byHand(r) }

// isKept is true for the record of every message of the failed list.
func isKept(record []byte) bool { return bytes.Contains(record, []byte(`"kept":true`)) }

// Failed yields the messages of the failed list, oldest first, as Queue does.
func (s *Spool) Failed() iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		var ids []ID // not the messages: there may be many
		for m, err := range s.FindFinished(isKept) {
			switch {
			case err != nil:
				if !yield(nil, err) {
					return
				}
			case m.Kept:
				ids = append(ids, m.ID)
			}
		}
		for _, id := range slices.Backward(ids) {
			m, err := s.Message(id)
			if err == nil && (!m.Kept || m.Finished.IsZero()) {
				continue // not any more
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// Revive takes a message from the failed list back into the queue: its failed
// recipients are due at once, with a lifetime that begins now. The error is
// ErrNotFound for a message that is not in the list.
func (s *Spool) Revive(id ID) (*Message, error) {
	var m *Message
	var freed int64
	err := s.update(func(tx *bolt.Tx) (err error) {
		if m, err = keptMessage(tx, id); err != nil {
			return err
		}
		freed = sizeInHistory(tx, id)
		for i := range m.Recipients {
			if r := &m.Recipients[i]; r.revivable() {
				r.Status, r.Next, r.Warned = Queued, time.Time{}, false
			}
		}
		m.Kept, m.Refused, m.Finished, m.Retried = false, nil, time.Time{}, time.Now()
		if err := tx.Bucket(bucketHistory).Delete(id.key()); err != nil {
			return err
		}
		m = suspended(tx, m)
		return putMessage(tx, m)
	}, func() {
		s.growHistory(-freed)
		s.notify(m)
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Drop removes a message from the failed list and its content from the spool; history
// goes on to know of it. The error is as of Revive.
func (s *Spool) Drop(id ID) (*Message, error) {
	dropped, err := s.drop([]ID{id}, false)
	if err != nil {
		return nil, err
	}
	return dropped[0], nil
}

// TrimFailed removes from the failed list what finished before the given time, and
// the oldest beyond maxSize octets of content. It returns how many octets are left,
// and how many messages were removed.
func (s *Spool) TrimFailed(before time.Time, maxSize int64) (left int64, removed int, err error) {
	var old []ID
	full := false
	for m, err := range s.FindFinished(isKept) { // newest first
		if err != nil || !m.Kept {
			continue // it is told elsewhere, and goes with its record
		}
		full = full || left+m.Size > maxSize
		if full || m.Finished.Before(before) {
			old = append(old, m.ID)
		} else {
			left += m.Size
		}
	}
	for ids := range slices.Chunk(old, trimStep) {
		dropped, err := s.drop(ids, true)
		removed += len(dropped)
		if err != nil {
			return left, removed, err
		}
	}
	return left, removed, nil
}

// drop removes messages from the failed list; lenient passes over those that are not
// there any more.
func (s *Spool) drop(ids []ID, lenient bool) (dropped []*Message, err error) {
	err = s.update(func(tx *bolt.Tx) error {
		dropped = nil
		for _, id := range ids {
			m, err := keptMessage(tx, id)
			if err != nil && lenient {
				continue
			}
			if err != nil {
				return err
			}
			m.Kept = false
			row, err := encode(m)
			if err != nil {
				return err
			}
			if err := tx.Bucket(bucketHistory).Put(id.key(), row); err != nil {
				return err
			}
			if err := tx.Bucket(bucketContent).Delete(id.key()); err != nil {
				return err
			}
			dropped = append(dropped, m)
		}
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	for _, m := range dropped {
		if m.Content.File {
			crashpoint.Here("failed.unlink.before")
			_ = os.Remove(s.contentPath(m.ID)) // else the next Open sweeps it
			crashpoint.Here("failed.unlink.after")
		}
	}
	return dropped, nil
}

func keptMessage(tx *bolt.Tx, id ID) (*Message, error) {
	v := tx.Bucket(bucketHistory).Get(id.key())
	if v == nil {
		return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	m, err := decodeMessage(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	if !m.Kept {
		return nil, fmt.Errorf("%s: %w in the failed list", id, ErrNotFound)
	}
	return m, nil
}
