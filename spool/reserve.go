package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A full disk must not keep the spool from recording what became of mail that it
// has: to forget that a message was delivered is to send it again. bbolt writes
// changed pages to new places, so that even a deletion needs room. Therefore some
// is taken beforehand, as files in the directory reserve, and given back when it is
// needed; new mail is refused from then on until the reserve is whole again.

const (
	reserveDir = "reserve"
	// maxReserve, in octets, is the size of the reserve. It holds the outcomes of
	// about 30,000 attempts for one recipient each, which take some 500 octets.
	maxReserve = 16 << 20
	// reserveShare is the part of a small file system that the reserve is at most.
	reserveShare = 16
	// reserveSlices: it is so many files, of which one is removed at a time, since
	// whoever filled the disk takes what we leave of it. (To cut a piece off one file
	// frees nothing on btrfs, and is refused there when it is a quota that was met.)
	reserveSlices = 4
	// probeSlice is the name of one more for a moment, to see whether there is room.
	probeSlice = "probe"
	// growth is bbolt's AllocSize in octets: in such steps its file grows.
	growth = 16 << 20
	// probeInterval is how long to wait between attempts to make the reserve whole.
	probeInterval = time.Second
)

// reserve is the reserve of a spool.
type reserve struct {
	spool string // the spool directory
	// slice, in octets, is what is given back at a time, and also the room that there
	// must be beside a whole reserve for a submission to be taken.
	slice int64

	mu     sync.Mutex
	have   int       // guarded by mu: slices that are there, those numbered below it
	spent  bool      // guarded by mu: not whole, or there was no room although it is
	probed time.Time // guarded by mu: when it was last tried to be made whole
}

// openReserve makes the reserve in a spool directory, as far as there is room.
func openReserve(spool string) (*reserve, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(spool, &fs); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: spool, Err: err}
	}
	size := int64(maxReserve)
	if total := int64(fs.Blocks) * int64(fs.Bsize); total > 0 {
		size = min(size, total/reserveShare)
	}
	r := &reserve{spool: spool, slice: size / reserveSlices, spent: true}
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = os.Remove(r.path(probeSlice)) // from a crash; most often it is not there
	err := r.refill()
	r.spent = r.have < reserveSlices
	if err != nil && !noRoom(err) {
		return nil, err
	}
	return r, nil
}

func (r *reserve) path(elem string) string { return filepath.Join(r.spool, reserveDir, elem) }

// give gives a slice back to the file system. The result is false when none was
// left.
func (r *reserve) give() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spent = true
	if r.have == 0 {
		return false
	}
	r.have--
	if os.Remove(r.path(strconv.Itoa(r.have))) != nil {
		return false
	}
	// Some file systems use what was freed only when they are synced: ext4 when it is
	// in the journal, btrfs with a quota at the end of its transaction.
	return syncFilesystem(r.spool) == nil
}

func syncFilesystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// miss notes that there was no room. Until there is again for the reserve and a
// slice beside it, submissions are refused without another attempt: each costs
// bbolt a walk through the whole file. To ask how much is free would not do, since
// a quota does not show there.
func (r *reserve) miss() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spent, r.probed = true, time.Now()
}

// whole reports whether the reserve is whole, after trying to make it so.
func (r *reserve) whole() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probe()
	return !r.spent
}

// half reports whether at least half of the reserve is there, after trying to
// make it whole.
func (r *reserve) half() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probe()
	return r.have >= reserveSlices/2
}

// probe makes the reserve whole if there is that much room and a slice besides. It
// is called with mu held.
func (r *reserve) probe() {
	if !r.spent || time.Since(r.probed) < probeInterval {
		return
	}
	r.probed = time.Now()
	if int64(reserveSlices-r.have+1)*r.slice > free(r.spool) {
		return // do not take, for a moment, what others could still use
	}
	if r.refill() == nil && allocate(r.path(probeSlice), r.slice) == nil {
		r.spent = os.Remove(r.path(probeSlice)) != nil
	}
}

// refill makes the slices that are missing. It is called with mu held.
func (r *reserve) refill() error {
	if err := os.Mkdir(r.path(""), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for r.have < reserveSlices {
		if err := allocate(r.path(strconv.Itoa(r.have)), r.slice); err != nil {
			return err
		}
		r.have++
	}
	return nil
}

// allocate sees to it that a file has that many octets of room, in blocks of its
// own. It leaves none behind where it cannot.
func allocate(path string, size int64) error {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Blocks*512 >= size {
		return nil
	}
	_ = os.Remove(path) // too small, or not there
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	switch {
	case err == nil && unix.Fstat(int(f.Fd()), &st) == nil && st.Blocks*512 >= size:
	case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		// Not every file system can, and ZFS only says that it did.
		err = fill(f, size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// fill writes so many octets. They are random, since some file systems compress.
func fill(f *os.File, size int64) error {
	chunk := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{})
	for at := int64(0); at < size; at += int64(len(chunk)) {
		_, _ = random.Read(chunk) // never fails
		if _, err := f.WriteAt(chunk[:min(int64(len(chunk)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// free is how many octets an ordinary user may still write at path; a lot where
// the file system does not say.
func free(path string) int64 {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil || fs.Blocks == 0 {
		return 1 << 62
	}
	return int64(fs.Bavail) * int64(fs.Bsize)
}

// Room returns nil when a submission can be taken, else an ErrNoSpace that says
// what is missing. It does not look for inodes: only content that gets a file of
// its own needs one, and making that is the question.
func (s *Spool) Room() error {
	r := s.reserve
	if !r.whole() {
		return fmt.Errorf("%w: %s is in use, so that deliveries can be recorded: make room on the file system", ErrNoSpace, r.path(""))
	}
	// Pages that are free inside the file do as well, and more of it needs neither
	// blocks nor leave to grow.
	if s.freePages() >= r.slice {
		return nil
	}
	if left := free(r.spool); left < r.slice {
		return fmt.Errorf("%w: %s has %d KiB left, %d are needed: make room on the file system", ErrNoSpace, r.spool, left>>10, r.slice>>10)
	}
	return s.mayGrow()
}

// mayGrow wants the limit on the size of files to be so far away that the database
// can grow for this submission, and once more for what becomes of it.
func (s *Spool) mayGrow() error {
	var limit unix.Rlimit
	var st unix.Stat_t
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &limit) != nil || unix.Stat(s.path(dbFile), &st) != nil {
		return nil
	}
	if uint64(st.Size)+2*growth > limit.Cur {
		return fmt.Errorf("%w: %s is near the limit on the size of files: raise it (ulimit -f) and restart the runner", ErrNoSpace, s.path(dbFile))
	}
	return nil
}

// CanRecord reports whether there is room for what attempts have to record. It is
// false when more than half of the reserve is used up: the rest is for the attempts
// under way then.
func (s *Spool) CanRecord() bool { return s.reserve.half() }

// noRoom goes on after a commit that found no room and has changed nothing. The
// submissions of the group are refused, since who hands in is still there to be
// told; what happened to mail that is here is tried again with the help of the
// reserve.
func (s *Spool) noRoom(group []*op, err error) {
	s.reserve.miss()
	err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	var changes []*op
	for _, o := range group {
		if o.submission {
			finish([]*op{o}, err)
		} else {
			changes = append(changes, o)
		}
	}
	switch {
	case len(changes) == 0:
	case len(changes) < len(group) || s.reserve.give():
		s.commit(changes)
	default:
		finish(changes, err)
	}
}

// noRoom reports whether err says that there is no room: on the file system, in
// somebody's quota, or below a limit on the size of files.
func noRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}
