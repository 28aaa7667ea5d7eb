package spool

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// version is the format of spool.db. Open brings older ones up to it and refuses
// newer ones.
//
//	1  message, content, attempt, submission, history
//	2  schedule and suspension as well
const version = 2

func readVersion(tx *bolt.Tx) (int, error) {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return 0, errors.New("not a postino spool: move it away and start again, or restore the right file")
	}
	text := string(meta.Get(keyVersion))
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || n < 1:
		return 0, fmt.Errorf("spool format %q, which no postino ever wrote: restore the right file", text)
	case n > version:
		return 0, fmt.Errorf("spool format %d, this postino knows up to %d: use the version that wrote it, or a later one", n, version)
	}
	return n, nil
}

func writeVersion(tx *bolt.Tx) error {
	return tx.Bucket(bucketMeta).Put(keyVersion, []byte(strconv.Itoa(version)))
}

// checkVersion is for those who only read. They read format 1 as well.
func checkVersion(tx *bolt.Tx) error {
	_, err := readVersion(tx)
	return err
}

// migrateStep is how many entries one transaction of a migration writes: some 200
// KiB, so that a million messages cost neither memory nor much time.
const migrateStep = 5000

// migrate brings the file up to version. The number is written last: after a crash
// the next Open begins again, and until then an older postino may still use the
// file.
func (s *Spool) migrate() error {
	var from int
	err := s.view(func(tx *bolt.Tx) (err error) {
		from, err = readVersion(tx)
		return err
	})
	if err != nil || from == version {
		return err
	}
	if err := s.makeSchedule(); err != nil {
		return fmt.Errorf("spool format %d not brought up to %d: %w", from, version, err)
	}
	return nil
}

// makeSchedule is the step from format 1 to 2.
func (s *Spool) makeSchedule() error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		// One that an earlier migration left is of no use: an older postino may have
		// had the file since.
		if err := tx.DeleteBucket(bucketSchedule); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
			return err
		}
		if _, err := tx.CreateBucketIfNotExists(bucketSuspension); err != nil {
			return err
		}
		_, err := tx.CreateBucket(bucketSchedule)
		return err
	})
	var after []byte
	for more := true; more && err == nil; {
		err = s.db.Update(func(tx *bolt.Tx) (err error) {
			after, more, err = scheduleSome(tx, after)
			if err == nil && !more {
				err = writeVersion(tx)
			}
			return err
		})
	}
	return err
}

// scheduleSome writes the entries of the messages behind the key after, at most
// migrateStep. It returns the last key, and whether there may be more. A record
// that cannot be read gets none: Schedule reports it each time.
func scheduleSome(tx *bolt.Tx, after []byte) (last []byte, more bool, err error) {
	schedule := tx.Bucket(bucketSchedule)
	schedule.FillPercent = 1 // in order, and nothing comes between
	c := tx.Bucket(bucketMessage).Cursor()
	n := 0
	last = after
	for k, v := c.Seek(behind(after)); k != nil; k, v = c.Next() {
		if n == migrateStep {
			return bytes.Clone(last), true, nil
		}
		n++
		last = k
		m, err := decodeMessage(v)
		if err != nil {
			continue
		}
		if err := schedule.Put(k, m.Entry().encode()); err != nil {
			return nil, false, err
		}
	}
	return nil, false, nil
}
