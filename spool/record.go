package spool

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool/crashpoint"
)

// Record stores what an attempt did. Recipients that are settled stay so. When
// the last one is, the message is finished in the same transaction: history
// written, record and content gone. The result is the message as it is now.
func (s *Spool) Record(id ID, a *Attempt) (*Message, error) {
	return s.change(id, func(tx *bolt.Tx, m *Message) error {
		row, err := encode(a)
		if err != nil {
			return err
		}
		key := binary.BigEndian.AppendUint32(id.key(), uint32(m.Attempts))
		if err := tx.Bucket(bucketAttempt).Put(key, row); err != nil {
			return err
		}
		for _, o := range a.Outcomes {
			if o.Recipient < 0 || o.Recipient >= len(m.Recipients) {
				return fmt.Errorf("%s has no recipient %d", id, o.Recipient)
			}
		}
		m.Attempts++
		m.apply(a)
		m.Captured = m.Captured || a.Keep
		return nil
	})
}

// apply has an attempt decide what becomes of the recipients that it was for and
// that are not settled.
func (m *Message) apply(a *Attempt) {
	for _, o := range a.Outcomes {
		if o.Recipient < 0 || o.Recipient >= len(m.Recipients) {
			continue
		}
		if r := &m.Recipients[o.Recipient]; !r.Status.Settled() {
			r.Status, r.Next, r.Reply = o.Status, o.Next, o.Reply
			r.Attempts++
		}
	}
}

// Hold stops all attempts for a message until Release. why must not be empty.
func (s *Spool) Hold(id ID, why string) (*Message, error) {
	return s.change(id, func(_ *bolt.Tx, m *Message) error {
		m.Held, m.HeldBy = why, ""
		return nil
	})
}

// Retry makes the unsettled recipients of a message due at once, and releases it
// when it is held and release says so.
func (s *Spool) Retry(id ID, release bool) (*Message, error) {
	return s.change(id, func(_ *bolt.Tx, m *Message) error {
		if release {
			m.Held, m.HeldBy = "", ""
		}
		for i := range m.Recipients {
			m.Recipients[i].Next = time.Time{}
		}
		return nil
	})
}

// Fail settles the unsettled recipients of a message with one Reply, without an
// attempt: an administrator gave it up.
func (s *Spool) Fail(id ID, reply Reply) (*Message, error) {
	return s.change(id, func(_ *bolt.Tx, m *Message) error {
		for i := range m.Recipients {
			if r := &m.Recipients[i]; !r.Status.Settled() {
				r.Status, r.Reply = Failed, reply
			}
		}
		return nil
	})
}

// change is one arrow of the state table: it reads a message, has f change it,
// and writes it back or, when it is settled, finishes it.
func (s *Spool) change(id ID, f func(*bolt.Tx, *Message) error) (*Message, error) {
	var m *Message
	err := s.update(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketMessage).Get(id.key())
		if v == nil {
			return fmt.Errorf("%s: %w", id, ErrNotFound)
		}
		var err error
		if m, err = decodeMessage(v); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		if err := f(tx, m); err != nil {
			return err
		}
		if m.Settled() {
			return settle(tx, m)
		}
		return putMessage(tx, m)
	}, func() { s.notify(m) })
	if err != nil {
		return nil, err
	}
	if m.Content.File && m.Settled() && !m.Captured {
		// After the commit. Should we die here, the next Open sweeps it.
		crashpoint.Here("settle.unlink.before")
		_ = os.Remove(s.contentPath(id))
		crashpoint.Here("settle.unlink.after")
	}
	return m, nil
}

func settle(tx *bolt.Tx, m *Message) error {
	m.Finished = time.Now()
	m.Held, m.HeldBy = "", ""
	row, err := encode(m)
	if err != nil {
		return err
	}
	key := m.ID.key()
	if err := tx.Bucket(bucketHistory).Put(key, row); err != nil {
		return err
	}
	if !m.Captured {
		if err := tx.Bucket(bucketContent).Delete(key); err != nil {
			return err
		}
	}
	return dropMessage(tx, m.ID)
}
