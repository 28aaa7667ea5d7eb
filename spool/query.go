package spool

import (
	"bytes"
	"fmt"
	"iter"

	bolt "go.etcd.io/bbolt"
)

// Message returns the message of that ID, be it queued or finished.
func (s *Spool) Message(id ID) (*Message, error) {
	var m *Message
	err := s.view(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketMessage).Get(id.key())
		if v == nil {
			v = tx.Bucket(bucketHistory).Get(id.key())
		}
		if v == nil {
			return fmt.Errorf("%s: %w", id, ErrNotFound)
		}
		var err error
		m, err = decodeMessage(v)
		return err
	})
	return m, err
}

// Queue yields the unsettled messages, oldest first. A record that cannot be read
// is yielded as an error, and the walk goes on. Changes made meanwhile may or may
// not be seen.
func (s *Spool) Queue() iter.Seq2[*Message, error] { return s.walk(bucketMessage) }

// History yields the finished messages, oldest first, as Queue does.
func (s *Spool) History() iter.Seq2[*Message, error] { return s.walk(bucketHistory) }

// walkStep is how many records are read in one transaction: a consumer may be
// slow, and a long read transaction keeps freed pages from being used again.
const walkStep = 200

func (s *Spool) walk(bucket []byte) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		var after []byte
		for {
			keys, values := s.page(bucket, after, walkStep)
			for i, v := range values {
				m, err := decodeMessage(v)
				if err != nil {
					err = fmt.Errorf("%s: %w", keyID(keys[i]), err)
				}
				if !yield(m, err) {
					return
				}
			}
			if len(keys) < walkStep {
				return
			}
			after = keys[len(keys)-1]
		}
	}
}

// page copies at most n entries of a bucket, those behind the key after.
func (s *Spool) page(bucket, after []byte, n int) (keys, values [][]byte) {
	// View fails only on a closed database; then there is nothing to read.
	_ = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		k, v := c.First()
		if after != nil {
			if k, v = c.Seek(after); bytes.Equal(k, after) {
				k, v = c.Next()
			}
		}
		for ; k != nil && len(keys) < n; k, v = c.Next() {
			keys = append(keys, bytes.Clone(k))
			values = append(values, bytes.Clone(v))
		}
		return nil
	})
	return keys, values
}

// Attempts returns what was attempted for a message, in order.
func (s *Spool) Attempts(id ID) ([]Attempt, error) {
	var attempts []Attempt
	prefix := id.key()
	err := s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketAttempt).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			var a Attempt
			if err := decode(v, &a); err != nil {
				return fmt.Errorf("attempt of %s: %w", id, err)
			}
			attempts = append(attempts, a)
		}
		return nil
	})
	return attempts, err
}
