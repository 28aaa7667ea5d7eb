package spool

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool/crashpoint"
)

// Record stores what an attempt did. Recipients that are settled stay so. When
// the last one is, the message is finished in the same transaction: history
// written, record and content gone. So are the reports queued, which are used up
// whatever the result. The result is the message as it is now.
func (s *Spool) Record(id ID, a *Attempt, reports ...*Report) (m *Message, err error) {
	defer func() { finishReports(reports, err) }()
	if err := prepareReports(reports); err != nil {
		return nil, err
	}
	return s.change(id, func(tx *bolt.Tx, m *Message) error {
		row, err := encode(a)
		if err != nil {
			return err
		}
		key := binary.BigEndian.AppendUint32(id.key(), uint32(m.Attempts))
		if err := tx.Bucket(bucketAttempt).Put(key, row); err != nil {
			return err
		}
		settled := make([]bool, len(m.Recipients))
		for i := range m.Recipients {
			settled[i] = m.Recipients[i].Status.Settled()
		}
		for _, o := range a.Outcomes {
			if o.Recipient < 0 || o.Recipient >= len(m.Recipients) {
				return fmt.Errorf("%s has no recipient %d", id, o.Recipient)
			}
		}
		m.Attempts++
		m.apply(a)
		m.Captured = m.Captured || a.Keep
		m.Kept = m.Kept || a.KeepFailed
		return putReports(tx, m, reports, settled)
	}, func() {
		for _, r := range reports {
			if r.queued {
				s.notify(r.Message)
			}
		}
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
			r.take(o)
		}
	}
	m.adopt(a.Children)
}

// take is what an attempt does to a recipient.
func (r *Recipient) take(o Outcome) {
	r.Final = r.Final || o.Final
	if !o.Owner.IsNull() {
		r.Owner = o.Owner
	}
	if o.Status == Queued {
		return // nothing was attempted
	}
	r.Status, r.Next, r.Reply = o.Status, o.Next, o.Reply
	r.Attempts++
	if o.Reply.Fault != "" {
		r.Waited++
	}
	r.Warned = r.Warned || o.Warned
}

// adopt adds recipients, those that are there already left out.
func (m *Message) adopt(children []Recipient) {
	if len(children) == 0 {
		return
	}
	known := make(map[string]bool, len(m.Recipients)+len(children))
	for i := range m.Recipients {
		known[m.Recipients[i].key()] = true
	}
	for _, c := range children {
		if key := c.key(); !known[key] {
			known[key] = true
			m.UTF8 = m.UTF8 || c.Address.UTF8()
			m.Recipients = append(m.Recipients, c)
		}
	}
}

// After is the message as it will be when an attempt with these outcomes has been
// recorded; m stays as it is.
func (m *Message) After(outcomes []Outcome) *Message {
	after := *m
	after.Recipients = slices.Clone(m.Recipients)
	for _, o := range outcomes {
		after.Recipients[o.Recipient].take(o)
	}
	return &after
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
		m.Kept = false // nobody wants it any more
		return nil
	})
}

// change is one arrow of the state table: it reads a message, has f change it,
// and writes it back or, when it is settled, finishes it. after is called when that
// is on disk.
func (s *Spool) change(id ID, f func(*bolt.Tx, *Message) error, after ...func()) (*Message, error) {
	var m *Message
	var grown int64
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
			err := settle(tx, m)
			grown = sizeInHistory(tx, id)
			return err
		}
		return putMessage(tx, m)
	}, func() {
		s.growHistory(grown)
		s.notify(m)
		for _, f := range after {
			f()
		}
	})
	if err != nil {
		return nil, err
	}
	s.removeSettled(m)
	return m, nil
}

// removeSettled removes the file with the content of a message that is finished, after
// the commit that says so. Should we die here, the next Open sweeps it.
func (s *Spool) removeSettled(m *Message) {
	if m.Content.File && m.Settled() && !m.keeps() {
		crashpoint.Here("settle.unlink.before")
		_ = os.Remove(s.contentPath(m.ID))
		crashpoint.Here("settle.unlink.after")
	}
}

func settle(tx *bolt.Tx, m *Message) error {
	m.Finished = time.Now()
	m.Held, m.HeldBy = "", ""
	m.Kept = m.Kept && m.hasFailed() && !m.Captured
	row, err := encode(m)
	if err != nil {
		return err
	}
	key := m.ID.key()
	if err := tx.Bucket(bucketHistory).Put(key, row); err != nil {
		return err
	}
	if !m.keeps() {
		if err := tx.Bucket(bucketContent).Delete(key); err != nil {
			return err
		}
	}
	return dropMessage(tx, m.ID)
}
