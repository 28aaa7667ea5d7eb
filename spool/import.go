package spool

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Errors of messages that move from one spool to another.
var (
	// ErrExists: the message, or another one of that ID, is here already.
	ErrExists = errors.New("here already")
	// ErrChanged: the message is not as it was exported any more.
	ErrChanged = errors.New("changed since it was exported")
)

// The commands in the Reply of a recipient that was settled by a person and not by
// an attempt. A message that was given up so can be imported again.
const (
	CommandDelete = "delete"
	CommandExport = "export"
)

func byHand(r *Recipient) bool {
	return r.Reply.Command == CommandDelete || r.Reply.Command == CommandExport
}

// NewImport begins a message that comes from another spool, under the ID that it
// had there. The error is ErrExists when a message has that ID: one in the queue, or
// a finished one that no person gave up.
func (s *Spool) NewImport(id ID) (*Draft, error) {
	if err := s.Room(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.reserved[id]; open || id == 0 {
		return nil, fmt.Errorf("%s: %w", id, ErrExists)
	}
	err := s.view(func(tx *bolt.Tx) error {
		_, err := givenUp(tx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.reserved[id] = struct{}{}
	return &Draft{s: s, id: id}, nil
}

// givenUp returns the finished message of that ID if a person gave it up, and nil
// when there is no message of that ID.
func givenUp(tx *bolt.Tx, id ID) (*Message, error) {
	if tx.Bucket(bucketMessage).Get(id.key()) != nil {
		return nil, fmt.Errorf("%s: %w: it is in the queue", id, ErrExists)
	}
	v := tx.Bucket(bucketHistory).Get(id.key())
	if v == nil {
		return nil, nil
	}
	m, err := decodeMessage(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", id, ErrExists, err)
	}
	for i := range m.Recipients {
		if byHand(&m.Recipients[i]) && !m.Captured {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%s: %w: it is finished", id, ErrExists)
}

// Import makes the draft, which NewImport began, a queued message and returns when
// that is on disk. The content must be the one that m.Size and m.Content.Sum tell of,
// or the error is ErrDamaged. What happened here to recipients of a message that was
// given up counts, where it is more than that. m becomes the message as it is now;
// the draft is used up, whatever the result.
func (d *Draft) Import(m *Message) error {
	defer d.release()
	err := d.checkImport(m)
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		d.removeFile()
		return err
	}
	m.ID, m.EightBit = d.id, d.high
	m.Content.File = d.file != nil
	stored := m
	freed := int64(0)
	err = d.s.submit(len(d.buf), func(tx *bolt.Tx) error {
		copied := *m
		copied.Recipients = append([]Recipient(nil), m.Recipients...)
		stored = &copied
		old, err := givenUp(tx, d.id)
		if err == nil && old != nil {
			freed = sizeInHistory(tx, d.id)
			err = stored.goOnFrom(old)
		}
		if first := priorSubmission(tx, m); err == nil && first != 0 && first != d.id {
			err = fmt.Errorf("%s: %w: it was handed in here as %s", d.id, ErrExists, first)
		}
		if err != nil {
			return err
		}
		stored = suspended(tx, stored)
		record, err := encode(stored)
		if err != nil {
			return err
		}
		if err := tx.Bucket(bucketHistory).Delete(d.id.key()); err != nil {
			return err
		}
		return d.put(tx, stored, record)
	}, func() {
		d.s.growHistory(-freed)
		d.s.notify(stored)
	})
	if err != nil {
		if !errors.Is(err, ErrFenced) { // else the sweep of the next Open decides
			d.removeFile()
		}
		return err
	}
	*m = *stored
	return nil
}

func (d *Draft) checkImport(m *Message) error {
	if d.size != m.Size || d.sum != m.Content.Sum {
		return fmt.Errorf("%s: %w", d.id, ErrDamaged)
	}
	if m.Settled() {
		return fmt.Errorf("%s: %w: it is finished", d.id, ErrExists)
	}
	return nil
}

// goOnFrom takes over what became of m before it was given up.
func (m *Message) goOnFrom(old *Message) error {
	if len(old.Recipients) != len(m.Recipients) || old.Content.Sum != m.Content.Sum || old.Size != m.Size {
		return fmt.Errorf("%s: %w: another message has that ID", m.ID, ErrExists)
	}
	for i := range old.Recipients {
		if r := &old.Recipients[i]; r.Status.Settled() && !byHand(r) {
			m.Recipients[i] = *r
		}
	}
	m.Attempts = max(m.Attempts, old.Attempts)
	if m.Settled() {
		return fmt.Errorf("%s: %w: it is finished", m.ID, ErrExists)
	}
	return nil
}

// GiveAway settles the unsettled recipients of a held message that another spool
// answers for from now on: they are Relayed, with that reply. attempts is how many
// had been recorded when the message was read; the error is ErrChanged when there are
// others, or the message is not held any more.
func (s *Spool) GiveAway(id ID, attempts int, reply Reply) (*Message, error) {
	return s.change(id, func(_ *bolt.Tx, m *Message) error {
		if m.Held == "" || m.Attempts != attempts {
			return fmt.Errorf("%s: %w", id, ErrChanged)
		}
		for i := range m.Recipients {
			if r := &m.Recipients[i]; !r.Status.Settled() {
				r.Status, r.Reply = Relayed, reply
			}
		}
		return nil
	})
}
