package spool

import (
	"bytes"
	"fmt"
	"iter"
	"time"

	bolt "go.etcd.io/bbolt"
)

// findStep is how many records Find looks at in one transaction; see walkStep. It
// is more, since what is not wanted is not copied.
const findStep = 4000

// FindQueued yields the unsettled messages whose record want accepts, newest first.
// want sees the record as the JSON of a Message, which is much less work than to
// decode it, and must not keep it; nil accepts all. A record that cannot be read is
// yielded as an error, and the walk goes on.
func (s *Spool) FindQueued(want func(record []byte) bool) iter.Seq2[*Message, error] {
	return s.find(bucketMessage, want)
}

// FindFinished is FindQueued for the finished messages.
func (s *Spool) FindFinished(want func(record []byte) bool) iter.Seq2[*Message, error] {
	return s.find(bucketHistory, want)
}

func (s *Spool) find(bucket []byte, want func([]byte) bool) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		for before, more := []byte(nil), true; more; {
			var keys, records [][]byte
			keys, records, before, more = s.pageBack(bucket, before, want)
			for i, record := range records {
				m, err := decodeMessage(record)
				if err != nil {
					err = fmt.Errorf("%s: %w", keyID(keys[i]), err)
				}
				if !yield(m, err) {
					return
				}
			}
		}
	}
}

// pageBack copies what is wanted among the findStep records before a key, at most
// walkStep. last is where the next call goes on.
func (s *Spool) pageBack(bucket, before []byte, want func([]byte) bool) (keys, records [][]byte, last []byte, more bool) {
	_ = s.view(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		k, v := c.Last()
		if before != nil {
			if k, _ = c.Seek(before); k == nil {
				k, v = c.Last() // what was at before and behind it is gone
			} else {
				k, v = c.Prev()
			}
		}
		for looked := 0; k != nil; k, v = c.Prev() {
			if looked++; looked > findStep || len(records) == walkStep {
				more = true
				return nil
			}
			// Whatever is damaged is told, wanted or not.
			if want == nil || len(v) < sumSize || want(v[sumSize:]) {
				keys, records = append(keys, bytes.Clone(k)), append(records, bytes.Clone(v))
			}
			last = append(last[:0], k...)
		}
		return nil
	})
	return keys, records, last, more
}

// RecordFinished is when the message of a record finished, without decoding the
// rest of it; zero when it is not finished, or the record makes no sense.
func RecordFinished(record []byte) time.Time {
	// A quote in a text is behind a backslash, so that no text can look like this.
	const field = `"finished":"`
	i := bytes.LastIndex(record, []byte(field))
	if i < 0 {
		return time.Time{}
	}
	text, _, _ := bytes.Cut(record[i+len(field):], []byte(`"`))
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return time.Time{}
	}
	return t
}
