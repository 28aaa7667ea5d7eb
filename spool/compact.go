package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool/crashpoint"
)

const (
	// copyStep is how many octets of rows one transaction of a copy takes: more need
	// memory, fewer write the upper pages of the tree again and again.
	copyStep = 8 << 20
	// fillPercent is how full a copy makes its pages. Records of queued mail grow
	// with each attempt; some room saves splitting all pages at once.
	fillPercent = 0.9
	// compactFree and compactShare say when a file is worth compacting: so many
	// octets in free pages, and so large a part of it. Below, the next burst of mail
	// would only make it grow again.
	compactFree  = 64 << 20
	compactShare = 0.5
	// compactIdle is how long nothing must have been written: a pause between two
	// bursts is not the end of them.
	compactIdle = 30 * time.Second
)

// errStopped: somebody wants to write.
var errStopped = errors.New("stopped")

// Compact writes the spool file anew without its free pages, and returns its size
// before and after, in octets. Readers go on meanwhile; writers wait. Whatever
// happens, the file is the old one or the new one, whole.
func (s *Spool) Compact() (before, after int64, err error) {
	c := compaction{done: make(chan struct{})}
	s.compactions <- &c
	<-c.done
	return c.before, c.after, c.err
}

// compaction is a request to the writer and its result.
type compaction struct {
	before, after int64
	err           error
	done          chan struct{}
}

// compactWhenWorth is called by the writer when it has been idle. It stops as soon
// as somebody wants to write, so that no submission waits for more than a step.
func (s *Spool) compactWhenWorth() {
	if s.isFenced() || !s.worthCompacting() {
		return
	}
	before, after, err := s.compact(func() bool { return len(s.ops) > 0 })
	if !errors.Is(err, errStopped) && s.compacted != nil {
		s.compacted(before, after, err)
	}
}

func (s *Spool) worthCompacting() bool {
	info, err := os.Stat(s.path(dbFile))
	if err != nil {
		return false
	}
	free := s.freePages()
	return free > s.compactFree && float64(free) > compactShare*float64(info.Size())
}

// freePages is how many octets of the spool file are free for what comes next.
func (s *Spool) freePages() int64 {
	s.swap.RLock()
	defer s.swap.RUnlock()
	stats := s.db.Stats()
	return int64(stats.FreePageN+stats.PendingPageN) * int64(s.db.Info().PageSize)
}

// compact is called by the writer, so that nothing is written meanwhile.
func (s *Spool) compact(stop func() bool) (before, after int64, err error) {
	if s.isFenced() {
		return 0, 0, ErrFenced
	}
	path := s.path(dbFile)
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	db, err := rewrite(path, stop)
	if errors.Is(err, ErrDamagedFile) {
		err = s.fail(err)
	}
	if err != nil {
		return info.Size(), info.Size(), err
	}
	if err := install(db, path); err != nil {
		// Under which name the new file is found after a power cut is not known.
		return info.Size(), info.Size(), errors.Join(s.fail(err), db.Close())
	}
	s.swap.Lock()
	old := s.db
	s.db = db
	err = old.Close()
	s.swap.Unlock()
	now, statErr := os.Stat(path)
	if err = errors.Join(err, statErr); err != nil {
		return info.Size(), info.Size(), err
	}
	return info.Size(), now.Size(), nil
}

// rewrite copies the database at path, each page of which is checked, into a new
// one beside it and returns that, synced and not yet installed. It ends with
// errStopped when stop says so.
func rewrite(path string, stop func() bool) (*bolt.DB, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, err := readDB(f)
	if err != nil {
		return nil, err
	}
	if len(d.faults) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrDamagedFile, errors.Join(d.faults...))
	}
	db, err := newDB(path + newSuffix)
	if err != nil {
		return nil, err
	}
	c := copier{db: db, stop: stop}
	w := walk{f: d, row: c.put, gap: func(g gap) { c.gap = errors.Join(c.gap, g.err) }}
	err = w.run()
	if err == nil && c.gap != nil {
		err = fmt.Errorf("%w: %w", ErrDamagedFile, c.gap)
	}
	if err == nil {
		err = c.end()
	}
	if err != nil {
		return nil, errors.Join(err, c.abort(path+newSuffix))
	}
	return db, nil
}

// copier puts rows into a database, many in a transaction.
type copier struct {
	db   *bolt.DB
	tx   *bolt.Tx
	size int // octets in tx
	stop func() bool
	gap  error
}

func (c *copier) put(bucket string, r row) error {
	if c.stop != nil && c.stop() {
		return errStopped
	}
	if c.gap != nil {
		return nil // it will not be used; go on to see all that is wrong
	}
	if c.size > copyStep {
		if err := c.end(); err != nil {
			return err
		}
	}
	if c.tx == nil {
		tx, err := c.db.Begin(true)
		if err != nil {
			return err
		}
		c.tx, c.size = tx, 0
	}
	c.size += len(r.key) + len(r.value)
	b := c.tx.Bucket([]byte(bucket))
	b.FillPercent = fillPercent
	return b.Put(r.key, r.value)
}

func (c *copier) end() error {
	if c.tx == nil {
		return nil
	}
	tx := c.tx
	c.tx = nil
	return tx.Commit()
}

func (c *copier) abort(path string) error {
	var err error
	if c.tx != nil {
		err = c.tx.Rollback()
	}
	return errors.Join(err, c.db.Close(), os.Remove(path))
}

// newDB makes a database with our buckets, all of them empty, in the place of
// whatever a crash left there. Its writes are not synced before install.
func newDB(path string) (*bolt.DB, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	db, err := bolt.Open(path, 0o600, dbOptions(false))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	db.NoSync = true
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range bucketNames() {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close(), os.Remove(path))
	}
	return db, nil
}

// install syncs a database made by newDB and gives it its name. Before the rename
// a failure leaves the old one, and a leftover that the next newDB removes.
func install(db *bolt.DB, path string) error {
	crashpoint.Here("create.sync.before")
	if err := db.Sync(); err != nil {
		return err
	}
	crashpoint.Here("create.sync.after")
	db.NoSync = false
	if err := os.Rename(path+newSuffix, path); err != nil {
		return err
	}
	crashpoint.Here("create.rename.after")
	err := syncDir(filepath.Dir(path))
	crashpoint.Here("create.dirsync.after")
	return err
}
