// Package spool holds the nouns of postino (Message, Recipient, Reply, Attempt,
// Batch) and the place where they rest: a bbolt file, with large content in
// files beside it. It is the only package that knows bbolt.
//
// Every arrow of the state table in architecture(7) is one transaction here.
// A method that changes the spool returns nil only after that transaction has
// been synced to disk.
package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool/crashpoint"
)

// Errors that a caller decides by.
var (
	// ErrNotFound: no message of that ID, or not in that state.
	ErrNotFound = errors.New("no such message")
	// ErrNotSuspended: nothing to resume.
	ErrNotSuspended = errors.New("not suspended")
	// ErrFenced: an earlier write failed in a way that leaves the file's state
	// unknown. Nothing more is written until the spool has been opened anew.
	ErrFenced = errors.New("the spool is fenced after an I/O error: the runner must be restarted")
	// ErrDamaged: content that does not match its checksum or its size.
	ErrDamaged = errors.New("the stored content is damaged: its checksum does not match")
	// ErrNoSpace: refused before anything was changed, for want of room.
	ErrNoSpace = errors.New("no room in the spool")
)

// Names in the spool directory. Drop, SubmitSocket and ControlSocket are known to
// the front end and to people as well; they do not change.
const (
	DropDir       = "drop"
	SubmitSocket  = "submit.sock"
	ControlSocket = "control.sock"
	LogFile       = "postino.log"

	dbFile     = "spool.db"
	contentDir = "content"
)

var (
	bucketMeta       = []byte("meta")
	bucketMessage    = []byte("message")    // ID → Message, unsettled ones
	bucketContent    = []byte("content")    // ID → content of at most smallContent octets
	bucketAttempt    = []byte("attempt")    // ID, number → Attempt
	bucketSubmission = []byte("submission") // uid, SubmissionID → ID
	bucketHistory    = []byte("history")    // ID → Message, finished ones
	bucketSchedule   = []byte("schedule")   // ID → Entry, unsettled ones
	bucketSuspension = []byte("suspension") // uid → Suspension
	keyVersion       = []byte("version")
)

// Spool is an open spool. Its methods may be called by several goroutines.
type Spool struct {
	dir    string
	db     *bolt.DB
	lock   *os.File // nil when read-only
	queued func(*Message)
	// reserve is nil when read-only.
	reserve *reserve

	ops        chan *op
	writerDone chan struct{}
	fence      chan struct{} // closed by the writer when it fences

	mu       sync.Mutex
	reserved map[ID]struct{} // guarded by mu: IDs of open drafts
	swept    []byte          // guarded by mu: where SweepSubmissions goes on
}

// Options are how a spool is opened. The zero value is usable.
type Options struct {
	// Queued is called after each commit that leaves a message with something to
	// attempt: a new one, one released, one to be retried. The calls come from one
	// goroutine in the order of the commits; the function must not block.
	Queued func(*Message)
}

// mapSize is how much address space is reserved for the database file, in
// octets, so that growing it seldom has to wait for readers. It costs no memory.
const mapSize = 1 << 30

// lockWait bounds the wait for bbolt's own lock. Ours is taken first, so that it
// only ever waits for a reader that is about to finish.
const lockWait = 3 * time.Second

// Open opens the spool in dir for the runner, creating what is missing in dir,
// which must exist. It fails with a *LockedError when another process has it.
// Content without a message record, left by a crash, is removed, and a spool of an
// older format is brought up to this one.
func Open(dir string, o Options) (*Spool, error) {
	lock, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	s := &Spool{
		dir: dir, lock: lock, queued: o.Queued,
		ops: make(chan *op, maxGroup), writerDone: make(chan struct{}), fence: make(chan struct{}),
		reserved: make(map[ID]struct{}),
	}
	if err := s.open(); err != nil {
		lock.Close()
		return nil, err
	}
	go s.writer()
	return s, nil
}

func (s *Spool) open() error {
	if err := os.Mkdir(s.path(contentDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	path := s.path(dbFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return err
		}
	}
	db, err := bolt.Open(path, 0o600, dbOptions(false))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s.db = db
	if err = s.migrate(); err == nil {
		err = s.sweepContent()
	}
	if err == nil {
		s.reserve, err = openReserve(s.dir)
	}
	if err != nil {
		db.Close()
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func dbOptions(readOnly bool) *bolt.Options {
	o := &bolt.Options{
		Timeout:        lockWait,
		FreelistType:   bolt.FreelistMapType,
		NoFreelistSync: true, // rebuilt from the tree at each open, so that it cannot rot
		ReadOnly:       readOnly,
	}
	if strconv.IntSize == 64 {
		o.InitialMmapSize = mapSize
	}
	return o
}

// OpenReadOnly opens the spool in dir for reading while no runner has it, and
// changes nothing. The error is fs.ErrNotExist when nothing was ever stored.
func OpenReadOnly(dir string) (*Spool, error) {
	path := filepath.Join(dir, dbFile)
	// bbolt would create it.
	if _, err := os.Lstat(path); err != nil {
		return nil, err
	}
	db, err := bolt.Open(path, 0o600, dbOptions(true))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := db.View(checkVersion); err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Spool{dir: dir, db: db}, nil
}

// create makes an empty database under another name and renames it when it is
// complete: bbolt's own initialisation does not survive a power cut half way.
func create(path string) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(tmp, 0o600, dbOptions(false))
	if err != nil {
		return fmt.Errorf("%s: %w", tmp, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketMessage, bucketContent, bucketAttempt, bucketSubmission, bucketHistory,
			bucketSchedule, bucketSuspension} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return writeVersion(tx)
	})
	crashpoint.Here("create.sync.before")
	err = errors.Join(err, db.Sync(), db.Close())
	crashpoint.Here("create.sync.after")
	if err == nil {
		err = os.Rename(tmp, path)
		crashpoint.Here("create.rename.after")
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
		crashpoint.Here("create.dirsync.after")
	}
	return err
}

// Close waits for what is being written and closes the spool. No other method
// may be running or called afterwards.
func (s *Spool) Close() error {
	if s.lock == nil {
		return s.db.Close()
	}
	close(s.ops)
	<-s.writerDone
	return errors.Join(s.db.Close(), s.reserve.close(), s.lock.Close())
}

// Dir is the spool directory.
func (s *Spool) Dir() string { return s.dir }

// Fenced is closed when the spool has fenced itself (ErrFenced); the runner then
// has to end.
func (s *Spool) Fenced() <-chan struct{} { return s.fence }

func (s *Spool) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (id ID) key() []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func keyID(k []byte) ID {
	if len(k) < 8 {
		return 0
	}
	return ID(binary.BigEndian.Uint64(k))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
