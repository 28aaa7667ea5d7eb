package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

// newSuffix ends the name of a database that is being made. It counts only once
// it has been synced and renamed.
const newSuffix = ".new"

// Aside is a damaged spool file that was set aside.
type Aside struct {
	Path string
	// Err is what is wrong with it; nil when an earlier Open found it.
	Err error
}

// openFile opens spool.db, making it when there is none. The whole file is checked
// before bbolt sees it, and rewritten first if the spool had fenced itself. One that
// is damaged is set aside for Salvage, and a new one takes its place.
func (s *Spool) openFile() (*bolt.DB, error) {
	path := s.path(dbFile)
	switch err := verifyPath(path); {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(path); err != nil {
			return nil, err
		}
		s.fresh = true
	case errors.Is(err, ErrDamagedFile):
		return s.startAnew(path, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case s.lock.fenced():
		// The memory of the machine may hold what the disk does not: every octet has
		// to be written once more.
		db, err := rewrite(path, nil)
		if err == nil {
			err = errors.Join(install(db, path), db.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("%s has to be rewritten after an I/O error: %w", path, err)
		}
	}
	db, err := openDB(path, false)
	if errors.Is(err, ErrDamagedFile) {
		return s.startAnew(path, err)
	}
	if err != nil {
		return nil, err
	}
	if err := s.lock.setFenced(false); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

func verifyPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return verify(f)
}

// startAnew sets a damaged file aside and opens an empty one in its place. It is
// renamed, never removed: until Salvage is done the mail in it is nowhere else.
func (s *Spool) startAnew(path string, why error) (*bolt.DB, error) {
	aside := path + damagedInfix + time.Now().UTC().Format(asideTime)
	err := os.Rename(path, aside)
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err == nil {
		err = create(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be set aside: %w", why, err)
	}
	s.found = Aside{Path: aside, Err: why}
	if err := s.lock.setFenced(false); err != nil {
		return nil, err
	}
	return openDB(path, false)
}

// openDB has bbolt open a database. A panic of bbolt is ErrDamagedFile; what it
// had open then stays so until the process ends.
func openDB(path string, readOnly bool) (db *bolt.DB, err error) {
	err = guarded(func() (err error) {
		db, err = bolt.Open(path, 0o600, dbOptions(readOnly))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return db, nil
}

// guarded runs f, which reads the mapped file, and makes an error of what bbolt
// does when it meets a bad page, which is to panic, and of what the kernel does
// where a page cannot be read, which is SIGBUS.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if bad := recover(); bad != nil {
			err = fmt.Errorf("%w: %v", ErrDamagedFile, bad)
		}
	}()
	return f()
}

// view runs f in a read transaction. A bad page fences the spool: the next Open
// looks at the whole file.
func (s *Spool) view(f func(*bolt.Tx) error) error {
	s.swap.RLock()
	defer s.swap.RUnlock()
	err := guarded(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			err := f(tx)
			s.residence.bound(tx)
			return err
		})
	})
	if errors.Is(err, ErrDamagedFile) && s.lock != nil {
		return s.fail(err)
	}
	return err
}

// fail fences the spool: nothing more is written, and the next Open rewrites the
// file or sets it aside. It returns err as an ErrFenced.
func (s *Spool) fail(err error) error {
	s.fenceOnce.Do(func() {
		if markErr := s.lock.setFenced(true); markErr != nil {
			err = fmt.Errorf("%w; and that could not be noted for the next start: %w", err, markErr)
		}
		s.broken.Store(errors.Is(err, ErrDamagedFile))
		s.why = fmt.Errorf("%w: %w", ErrFenced, err)
		close(s.fence)
	})
	return fmt.Errorf("%w: %w", ErrFenced, err)
}
