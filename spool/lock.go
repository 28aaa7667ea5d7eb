package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockFile is locked by whoever writes the spool, for as long as it does. The
// database file cannot serve for that: compaction puts another in its place. It
// is 0600, since whoever may open a file may lock it.
const lockFile = "lock"

// LockedError says that another process has the spool.
type LockedError struct {
	Dir string
	PID int // 0 when unknown
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = "pid " + strconv.Itoa(e.PID)
	}
	return fmt.Sprintf("%s: the spool is held by %s: stop that runner first", e.Dir, who)
}

// The lock file is two lines: the process that has the spool, for people and for
// LockedError, and a mark that outlives it. Its length never changes, so that the
// mark can be written on a full disk, and without a sync: it says not to trust
// what the kernel has in memory, and a power cut that loses it loses that too.
const (
	pidWidth   = 20
	markAt     = pidWidth + 1
	markFenced = 'F'
	markGood   = '-'
)

// lock is the lock file, locked; acquireToRead may have none.
type lock struct{ f *os.File }

func acquire(dir string) (*lock, error) {
	l, err := openLock(dir, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	mark := markGood
	if l.fenced() {
		mark = markFenced
	}
	if _, err := l.f.WriteAt(fmt.Appendf(nil, "%-*d\n%c\n", pidWidth, os.Getpid(), mark), 0); err != nil && !noRoom(err) { // what stands there is as good as that
		l.close()
		return nil, fmt.Errorf("%s: %w", l.f.Name(), err)
	}
	return l, nil
}

// acquireToRead is acquire for who writes nothing. It is enough for a file system that is
// mounted so, such as a backup's; without the file nobody can have that spool.
func acquireToRead(dir string) (*lock, error) {
	l, err := acquire(dir)
	if !errors.Is(err, unix.EROFS) {
		return l, err
	}
	l, err = openLock(dir, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return new(lock), nil
	}
	return l, err
}

func openLock(dir string, flags int) (*lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), flags|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: flock: %w: the spool needs a local file system", f.Name(), err)
		}
		text, _ := io.ReadAll(io.LimitReader(f, pidWidth))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return nil, &LockedError{Dir: dir, PID: pid}
	}
	return &lock{f}, nil
}

// fenced reports whether the spool has fenced itself since it was last rewritten.
func (l *lock) fenced() bool {
	var mark [1]byte
	_, err := l.f.ReadAt(mark[:], markAt)
	return err == nil && mark[0] == markFenced
}

func (l *lock) setFenced(fenced bool) error {
	if l.fenced() == fenced {
		return nil // where a file is written anew for each change even that needs room
	}
	mark := byte(markGood)
	if fenced {
		mark = markFenced
	}
	if _, err := l.f.WriteAt([]byte{mark}, markAt); err != nil {
		return fmt.Errorf("%s: %w", l.f.Name(), err)
	}
	return nil
}

func (l *lock) close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}
