package spool

import (
	"bytes"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool/crashpoint"
)

// SubmissionAge is how long a SubmissionID is remembered: longer than a drop file
// may wait and be handed in a second time.
const SubmissionAge = 8 * 24 * time.Hour

// trimStep is how many records one transaction removes, so that no submission
// waits long behind it.
const trimStep = 500

// TrimHistory removes what finished before the given time, and the oldest beyond
// maxSize octets of records; content kept by capture goes with its message.
// It returns how many messages were removed.
func (s *Spool) TrimHistory(before time.Time, maxSize int64) (int, error) {
	total := 0
	for {
		ids := s.oldHistory(before, maxSize)
		if len(ids) == 0 {
			return total, nil
		}
		var files []ID
		err := s.update(func(tx *bolt.Tx) error {
			files = files[:0]
			for _, id := range ids {
				if m, err := decodeMessage(tx.Bucket(bucketHistory).Get(id.key())); err == nil && m.Content.File && m.Captured {
					files = append(files, id)
				}
				if err := forget(tx, id); err != nil {
					return err
				}
			}
			return nil
		}, nil)
		if err != nil {
			return total, err
		}
		for _, id := range files {
			crashpoint.Here("trim.unlink.before")
			_ = os.Remove(s.contentPath(id)) // else the next Open sweeps it
			crashpoint.Here("trim.unlink.after")
		}
		total += len(ids)
	}
}

// oldHistory returns up to trimStep finished messages that are to go. IDs are in
// the order of arrival, so the walk is from the newest and what is left is older.
func (s *Spool) oldHistory(before time.Time, maxSize int64) []ID {
	var ids []ID
	_ = s.view(func(tx *bolt.Tx) error {
		var size int64
		attempts := tx.Bucket(bucketAttempt).Cursor()
		c := tx.Bucket(bucketHistory).Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			size += int64(len(v))
			for ak, av := attempts.Seek(k); bytes.HasPrefix(ak, k); ak, av = attempts.Next() {
				size += int64(len(av))
			}
			if size > maxSize || finishedBefore(v, before) {
				ids = append(ids, keyID(k))
			}
			if len(ids) > trimStep {
				ids = ids[1:] // keep the oldest
			}
		}
		return nil
	})
	return ids
}

// finishedBefore is true for a record that cannot be read: nothing will.
func finishedBefore(v []byte, t time.Time) bool {
	m, err := decodeMessage(v)
	return err != nil || m.Finished.Before(t)
}

func forget(tx *bolt.Tx, id ID) error {
	key := id.key()
	c := tx.Bucket(bucketAttempt).Cursor()
	for k, _ := c.Seek(key); bytes.HasPrefix(k, key); k, _ = c.Seek(key) {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	if err := tx.Bucket(bucketContent).Delete(key); err != nil {
		return err
	}
	return tx.Bucket(bucketHistory).Delete(key)
}

// SweepSubmissions forgets SubmissionIDs that are older than SubmissionAge. One
// call looks at trimStep of them and the next goes on behind; it reports whether
// there are more.
func (s *Spool) SweepSubmissions(now time.Time) (more bool, err error) {
	s.mu.Lock()
	after := s.swept
	s.mu.Unlock()
	keys, values := s.page(bucketSubmission, after, trimStep)
	var old [][]byte
	for i, v := range values {
		if now.Sub(keyID(v).Time()) > SubmissionAge {
			old = append(old, keys[i])
		}
	}
	if len(old) > 0 {
		err = s.update(func(tx *bolt.Tx) error {
			for _, k := range old {
				if err := tx.Bucket(bucketSubmission).Delete(k); err != nil {
					return err
				}
			}
			return nil
		}, nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.swept = nil; len(keys) == trimStep {
		s.swept = keys[trimStep-1]
	}
	return s.swept != nil, err
}
