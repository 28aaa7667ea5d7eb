// Package spool holds the nouns of postino (Message, Recipient, Reply, Attempt,
// Batch) and the place where they rest: a bbolt file, with large content in
// files beside it. It is the only package that knows bbolt.
//
// Every arrow of the state table in architecture(7) is one transaction here.
// A method that changes the spool returns nil only after that transaction has
// been synced to disk.
package spool

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
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
	// ErrDamagedFile: spool.db has pages or records that are not as they were
	// written, or is no spool at all.
	ErrDamagedFile = errors.New("the spool file is damaged")
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

// bucketNames returns the buckets that a spool has; the last two came with format 2.
func bucketNames() []string {
	return []string{
		string(bucketAttempt), string(bucketContent), string(bucketHistory), string(bucketMessage),
		string(bucketMeta), string(bucketSubmission), string(bucketSchedule), string(bucketSuspension),
	}
}

// oldBuckets is how many of bucketNames even the oldest format has.
const oldBuckets = 6

// Spool is an open spool. Its methods may be called by several goroutines.
type Spool struct {
	dir    string
	lock   *lock // nil when read-only
	queued func(*Message)
	// reserve is nil when read-only.
	reserve   *reserve
	residence residence

	swap sync.RWMutex // held while db is read, and to put another in its place
	db   *bolt.DB     // guarded by swap; the writer, which alone replaces it, may read it

	ops         chan *op
	compactions chan *compaction
	alive       chan struct{} // unbuffered: who sends is met by the writer
	compacted   func(before, after int64, err error)
	compactFree int64         // octets; the writer's
	idle        time.Duration // before it compacts; the writer's
	writerDone  chan struct{}

	fenceOnce sync.Once
	fence     chan struct{} // closed when the spool fences
	why       error         // set before that
	broken    atomic.Bool   // bbolt may have panicked: its locks are not to be trusted

	found Aside // what Open set aside
	fresh bool  // Open found no spool.db

	mu       sync.Mutex
	reserved map[ID]struct{} // guarded by mu: IDs of open drafts
	swept    []byte          // guarded by mu: where SweepSubmissions goes on
	// salvaging, guarded by mu: a file that was set aside may have messages whose
	// content is in content/.
	salvaging bool
	history   int64 // guarded by mu: octets of history, once it is counted
	counted   bool  // guarded by mu: history was counted
}

// Options are how a spool is opened. The zero value is usable.
type Options struct {
	// Queued is called after each commit that leaves a message with something to
	// attempt: a new one, one released, one to be retried. The calls come from one
	// goroutine in the order of the commits; the function must not block.
	Queued func(*Message)
	// Compacted is called when the spool file has been compacted because it was idle
	// and mostly free, or that failed; sizes are octets.
	Compacted func(before, after int64, err error)
	// CompactFree and CompactIdle are how many octets must be free, and for how long
	// nothing must have been written, before that is done. Zero: 64 MiB, 30 s.
	CompactFree int64
	CompactIdle time.Duration
}

// mapSize is how much address space is reserved for the database file, in
// octets, so that growing it seldom has to wait for readers. It costs no memory.
const mapSize = 1 << 30

// lockWait bounds the wait for bbolt's own lock. Ours is taken first, so that it
// only ever waits for a reader that is about to finish, on a machine that may stand
// still meanwhile.
const lockWait = 30 * time.Second

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
		compactions: make(chan *compaction), alive: make(chan struct{}), compacted: o.Compacted,
		compactFree: cmp.Or(o.CompactFree, compactFree), idle: cmp.Or(o.CompactIdle, compactIdle),
		reserved:  make(map[ID]struct{}),
		residence: newResidence(),
	}
	if err := s.open(); err != nil {
		s.residence.close()
		lock.close()
		return nil, err
	}
	go s.writer()
	return s, nil
}

func (s *Spool) open() error {
	if err := os.Mkdir(s.path(contentDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	db, err := s.openFile()
	if err != nil {
		return err
	}
	s.db = db
	if err = s.migrate(); err == nil {
		err = s.tidyContent()
	}
	if err == nil {
		s.reserve, err = openReserve(s.dir)
	}
	if err != nil {
		db.Close()
		return fmt.Errorf("%s: %w", s.path(dbFile), err)
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
	db, err := openDB(path, true)
	if errors.Is(err, ErrDamagedFile) {
		err = fmt.Errorf("%w: start the runner, it salvages what can be read", err)
	}
	if err != nil {
		return nil, err
	}
	s := &Spool{dir: dir, db: db, residence: newResidence()}
	if err := s.view(checkVersion); err != nil {
		s.residence.close()
		db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// create makes an empty database under another name and renames it when it is
// complete: bbolt's own initialisation does not survive a power cut half way.
func create(path string) error {
	db, err := newDB(path + newSuffix)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return writeVersion(tx)
	})
	if err == nil {
		err = install(db, path)
	}
	return errors.Join(err, db.Close())
}

// Close waits for what is being written and closes the spool. No other method
// may be running or called afterwards.
func (s *Spool) Close() error {
	defer s.residence.close()
	if s.lock == nil {
		return s.db.Close()
	}
	close(s.ops)
	<-s.writerDone
	if s.broken.Load() {
		return s.lock.close() // bbolt might wait for itself; the process ends anyway
	}
	return errors.Join(s.db.Close(), s.lock.close())
}

// Dir is the spool directory.
func (s *Spool) Dir() string { return s.dir }

// FileSize is how many octets the spool file has; 0 when it cannot be told.
func (s *Spool) FileSize() int64 {
	info, err := os.Stat(s.path(dbFile))
	if err != nil {
		return 0
	}
	return info.Size()
}

// Fenced is closed when the spool has fenced itself (ErrFenced); the runner then
// has to end.
func (s *Spool) Fenced() <-chan struct{} { return s.fence }

// FencedBy is why the spool has fenced itself, an ErrFenced; nil while it has not.
func (s *Spool) FencedBy() error {
	if !s.isFenced() {
		return nil
	}
	return s.why
}

func (s *Spool) isFenced() bool {
	select {
	case <-s.fence:
		return true
	default:
		return false
	}
}

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
