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
// maxSize octets of records, attempts included; content kept by capture goes with
// its message. It returns how many messages were removed.
//
// The first call reads all history to learn its size. Later ones read what they
// remove, and the messages that had been on their way for longer than history is
// kept.
func (s *Spool) TrimHistory(before time.Time, maxSize int64) (int, error) {
	excess := s.historySize() - maxSize
	total := 0
	for after, more := []byte(nil), true; more; {
		var old []ID
		old, after, more = s.oldHistory(after, before, excess)
		freed, err := s.forgetAll(old)
		if err != nil {
			return total, err
		}
		total += len(old)
		excess -= freed
	}
	return total, nil
}

// forgetAll removes finished messages and returns how many octets of history that
// were.
func (s *Spool) forgetAll(ids []ID) (freed int64, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	var files []ID
	err = s.update(func(tx *bolt.Tx) error {
		files, freed = files[:0], 0
		for _, id := range ids {
			if m, err := decodeMessage(tx.Bucket(bucketHistory).Get(id.key())); err == nil && m.Content.File && m.keeps() {
				files = append(files, id)
			}
			freed += sizeInHistory(tx, id)
			if err := forget(tx, id); err != nil {
				return err
			}
		}
		return nil
	}, func() { s.growHistory(-freed) })
	if err != nil {
		return 0, err
	}
	for _, id := range files {
		crashpoint.Here("trim.unlink.before")
		_ = os.Remove(s.contentPath(id)) // else the next Open sweeps it
		crashpoint.Here("trim.unlink.after")
	}
	return freed, nil
}

// oldHistory returns up to trimStep finished messages that are to go, of those
// behind a key: what finished too early, and the oldest until excess octets are
// gone. IDs are in the order of arrival, and nothing finishes before it arrives.
func (s *Spool) oldHistory(after []byte, before time.Time, excess int64) (ids []ID, last []byte, more bool) {
	_ = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketHistory).Cursor()
		k, v := c.First()
		if after != nil {
			if k, v = c.Seek(after); bytes.Equal(k, after) {
				k, v = c.Next()
			}
		}
		for looked := 0; k != nil; k, v = c.Next() {
			if excess <= 0 && keyID(k).Time().After(before) {
				return nil
			}
			if looked++; looked > findStep || len(ids) == trimStep {
				more = true
				return nil
			}
			if excess > 0 || finishedBefore(v, before) {
				ids = append(ids, keyID(k))
				excess -= sizeInHistory(tx, keyID(k))
			}
			last = append(last[:0], k...)
		}
		return nil
	})
	return ids, last, more
}

// finishedBefore is true for a record that cannot be read: nothing will.
func finishedBefore(v []byte, t time.Time) bool {
	return len(v) < sumSize || RecordFinished(v[sumSize:]).Before(t)
}

// historySize is how many octets history has. It is counted once; what finishes
// meanwhile may count twice.
func (s *Spool) historySize() int64 {
	s.mu.Lock()
	counted := s.counted
	if !counted {
		s.history = 0 // what it grew by so far is in the records that follow
	}
	s.mu.Unlock()
	sum := int64(0)
	for after, more := []byte(nil), !counted; more; {
		more = false
		_ = s.view(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketHistory).Cursor()
			k, _ := c.Seek(append(after, 0)) // nil is before all others
			for looked := 0; k != nil; k, _ = c.Next() {
				if looked++; looked > findStep {
					more = true
					return nil
				}
				sum += sizeInHistory(tx, keyID(k))
				after = append(after[:0], k...)
			}
			return nil
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history, s.counted = s.history+sum, true
	return s.history
}

func (s *Spool) growHistory(octets int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history += octets
}

// sizeInHistory is how many octets of history a finished message has.
func sizeInHistory(tx *bolt.Tx, id ID) int64 {
	key := id.key()
	size := int64(len(tx.Bucket(bucketHistory).Get(key)))
	c := tx.Bucket(bucketAttempt).Cursor()
	for k, v := c.Seek(key); bytes.HasPrefix(k, key); k, v = c.Next() {
		size += int64(len(v))
	}
	return size
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
