package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	bolt "go.etcd.io/bbolt"
)

// Examine checks the spool in dir while no runner has it (else the error is a
// *LockedError), and changes nothing in it. It returns what is wrong; the error is
// that it could not look.
func Examine(dir string) (faults []error, err error) {
	l, err := acquireToRead(dir)
	if err != nil {
		return nil, err
	}
	defer l.close()
	s := &Spool{dir: dir}
	aside, err := s.SetAside()
	if err != nil {
		return nil, err
	}
	for _, a := range aside {
		faults = append(faults, fmt.Errorf("%s: damaged, set aside and not salvaged yet: the next runner does that", a.Path))
	}
	switch err := verifyPath(s.path(dbFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return faults, nil // nothing was ever stored
	case errors.Is(err, ErrDamagedFile):
		return append(faults, fmt.Errorf("%s: %w: the next runner sets it aside and salvages it", s.path(dbFile), err)), nil
	case err != nil:
		return nil, err
	}
	if s, err = OpenReadOnly(dir); err != nil {
		return nil, err
	}
	if found, ok := s.Check().(interface{ Unwrap() []error }); ok {
		faults = append(faults, found.Unwrap()...)
	}
	return faults, s.Close()
}

// Check reads the whole spool and reports everything that the state table does
// not allow: damaged pages and records, content that is missing, damaged or
// nobody's, settled messages in the queue, unsettled ones in history, and a schedule
// that does not agree with the queue. Nothing may be written meanwhile.
func (s *Spool) Check() error {
	var found []error
	report := func(format string, args ...any) { found = append(found, fmt.Errorf(format, args...)) }
	err := s.view(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			report("%s: %w", dbFile, err)
		}
		for _, bucket := range [][]byte{bucketContent, bucketAttempt} {
			c := tx.Bucket(bucket).Cursor()
			for k, _ := c.First(); k != nil; k, _ = c.Next() {
				if tx.Bucket(bucketMessage).Get(k[:8]) == nil && tx.Bucket(bucketHistory).Get(k[:8]) == nil {
					report("%s: %s without a message", keyID(k), bucket)
				}
			}
		}
		checkSchedule(tx, report)
		return nil
	})
	if err != nil {
		return err
	}
	for m, err := range s.Queue() {
		switch {
		case err != nil:
			report("%w", err)
		case m.Settled():
			report("%s: settled and in the queue", m.ID)
		default:
			found = append(found, s.checkContent(m))
		}
	}
	for m, err := range s.History() {
		switch {
		case err != nil:
			report("%w", err)
		case !m.Settled():
			report("%s: unsettled and in the history", m.ID)
		case m.keeps():
			found = append(found, s.checkContent(m))
		}
	}
	files, err := os.ReadDir(s.path(contentDir))
	if err != nil {
		return err
	}
	for _, f := range files {
		id, err := ParseID(f.Name())
		if err == nil {
			_, err = s.Message(id)
		}
		if err != nil {
			report("%s/%s: nobody's: %w", contentDir, f.Name(), err)
		}
	}
	return errors.Join(found...)
}

func (s *Spool) checkContent(m *Message) error {
	r, err := s.Content(m)
	if err != nil {
		return fmt.Errorf("%s: %w", m.ID, err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("%s: %w", m.ID, err)
	}
	return nil
}
