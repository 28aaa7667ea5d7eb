package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool/crashpoint"
)

// smallContent is the largest content, in octets, that is kept in the database.
// Above it a file is faster (25 MiB: 23 ms against 230 ms and more).
const smallContent = 64 << 10

// A queue ID that a submission proposes must be of a time near now, or it would
// spoil the order of the others. A drop file may have waited for its runner.
const (
	maxProposedAge  = 8 * 24 * time.Hour
	maxProposedLead = 10 * time.Minute
)

// Draft is a message on its way in: its content is being written and nothing
// answers for it yet (state S1). A draft that is not committed leaves nothing.
type Draft struct {
	s    *Spool
	id   ID
	buf  []byte
	file *os.File
	sum  uint32
	size int64
	high bool
}

// NewDraft begins a message. Its ID is the proposed one, if that is a time near
// now and free, else a new one. The error is ErrNoSpace when there is no room for
// new mail.
func (s *Spool) NewDraft(proposed ID) (*Draft, error) {
	if err := s.Room(); err != nil {
		return nil, err
	}
	return s.newDraft(proposed)
}

// NewReportDraft is NewDraft for a report that is stored together with an outcome.
// It is begun without asking for room: what happened to mail that is here must be
// recorded, and the reserve is for that.
func (s *Spool) NewReportDraft() (*Draft, error) { return s.newDraft(0) }

func (s *Spool) newDraft(proposed ID) (*Draft, error) {
	now := time.Now()
	id := proposed
	if age := now.Sub(id.Time()); id == 0 || age > maxProposedAge || age < -maxProposedLead {
		id = NewID(now)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.view(func(tx *bolt.Tx) error {
		for s.taken(tx, id) {
			id = NewID(now)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.reserved[id] = struct{}{}
	return &Draft{s: s, id: id}, nil
}

// taken is called with mu held.
func (s *Spool) taken(tx *bolt.Tx, id ID) bool {
	_, open := s.reserved[id]
	if s.salvaging && !open {
		_, err := os.Lstat(s.contentPath(id))
		open = err == nil
	}
	key := id.key()
	return open || tx.Bucket(bucketMessage).Get(key) != nil || tx.Bucket(bucketHistory).Get(key) != nil
}

// ID is the queue ID that the message will have.
func (d *Draft) ID() ID { return d.id }

// Write adds to the content. The error wraps ErrNoSpace when there is no room.
func (d *Draft) Write(p []byte) (int, error) {
	n, err := d.write(p)
	if noRoom(err) {
		if d.file != nil { // else it is an inode that is missing
			d.s.reserve.miss()
		}
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return n, err
}

func (d *Draft) write(p []byte) (int, error) {
	if d.file == nil && len(d.buf)+len(p) > smallContent {
		f, err := os.OpenFile(d.s.contentPath(d.id), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return 0, err
		}
		d.file = f
		if _, err := f.Write(d.buf); err != nil {
			return 0, err
		}
		d.buf = nil
	}
	if d.file == nil {
		d.buf = append(d.buf, p...)
	} else if _, err := d.file.Write(p); err != nil {
		return 0, err
	}
	d.sum = crc32.Update(d.sum, castagnoli, p)
	d.size += int64(len(p))
	if !d.high {
		for _, b := range p {
			d.high = d.high || b > 127
		}
	}
	return len(p), nil
}

// Commit makes the draft a queued message and returns its ID when that is on
// disk. m's ID, Size, EightBit and Content are set from the draft. When the same
// uid has handed in the same SubmissionID before, m is dropped and the ID is that
// of the first. Mail of a uid that is suspended is held, which m then says. The
// draft is used up, whatever the result.
func (d *Draft) Commit(m *Message) (ID, error) {
	defer d.release()
	record, err := d.prepare(m)
	if err != nil {
		return 0, err
	}
	id, stored := d.id, m
	err = d.s.submit(len(d.buf), func(tx *bolt.Tx) error {
		id, stored = d.id, m
		if first := priorSubmission(tx, m); first != 0 {
			id = first
			return nil
		}
		if stored = suspended(tx, m); stored == m {
			return d.put(tx, m, record)
		}
		record, err := encode(stored)
		if err != nil {
			return err
		}
		return d.put(tx, stored, record)
	}, func() {
		if id == d.id {
			d.s.notify(stored)
		}
	})
	*m = *stored
	if err != nil && errors.Is(err, ErrFenced) {
		// The record may be on disk although we cannot say so: its content stays,
		// and the sweep of the next Open decides.
		return 0, err
	}
	if err != nil || id != d.id {
		d.removeFile()
	}
	if err != nil {
		return 0, err
	}
	return id, nil
}

func (d *Draft) put(tx *bolt.Tx, m *Message, record []byte) error {
	buf := d.buf
	if buf == nil && !m.Content.File {
		buf = []byte{}
	}
	if err := putContent(tx, m, buf); err != nil {
		return err
	}
	return putRecord(tx, m, record)
}

// putContent stores what goes with the record of a message: its content, unless
// that is nil, and the name of its submission.
func putContent(tx *bolt.Tx, m *Message, content []byte) error {
	key := m.ID.key()
	if content != nil {
		if err := tx.Bucket(bucketContent).Put(key, content); err != nil {
			return err
		}
	}
	if m.Submission == (SubmissionID{}) {
		return nil
	}
	return tx.Bucket(bucketSubmission).Put(submissionKey(m), key)
}

// sync makes large content durable, its name in the directory included, before
// the record that names it can be.
func (d *Draft) sync() error {
	if d.file == nil {
		return nil
	}
	crashpoint.Here("content.sync.before")
	if err := d.file.Sync(); err != nil {
		return err
	}
	crashpoint.Here("content.sync.after")
	if err := d.file.Close(); err != nil {
		return err
	}
	err := syncDir(d.s.path(contentDir))
	crashpoint.Here("content.dirsync.after")
	return err
}

// Discard gives the draft up.
func (d *Draft) Discard() {
	d.removeFile()
	d.release()
}

func (d *Draft) removeFile() {
	if d.file != nil {
		d.file.Close() // again after Commit: harmless
		crashpoint.Here("draft.unlink.before")
		_ = os.Remove(d.s.contentPath(d.id))
		crashpoint.Here("draft.unlink.after")
	}
}

func (d *Draft) release() {
	d.s.mu.Lock()
	delete(d.s.reserved, d.id)
	d.s.mu.Unlock()
}

// priorSubmission returns the ID under which m was handed in before, or 0.
func priorSubmission(tx *bolt.Tx, m *Message) ID {
	if m.Submission == (SubmissionID{}) {
		return 0
	}
	return keyID(tx.Bucket(bucketSubmission).Get(submissionKey(m)))
}

func submissionKey(m *Message) []byte {
	k := binary.BigEndian.AppendUint32(nil, uint32(m.Origin.UID))
	return append(k, m.Submission[:]...)
}

func (s *Spool) notify(m *Message) {
	if _, due := m.Next(); due && s.queued != nil {
		s.queued(m)
	}
}
