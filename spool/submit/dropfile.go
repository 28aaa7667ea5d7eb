package submit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool"
	"postino/spool/crashpoint"
)

// setAsideError says that a file will never be one of ours. It is out of the way.
type setAsideError struct {
	uid uint32
	why string
}

func (e *setAsideError) Error() string { return e.why }

// laterError says that a file may be taken another time, and not before a while:
// it was read, and that may have been much.
type laterError struct{ why string }

func (e *laterError) Error() string { return e.why }

// take stores one drop file and removes it. An error says why it was not: a
// *setAsideError, a *laterError, or what has to change about the file first.
func (d *dropDir) take(ctx context.Context, name string) (err error) {
	f, info, err := openDrop(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its owner took it back
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if info.Size > maxDropSize {
		return d.setAside(name, fmt.Sprintf("larger than %d octets", maxDropSize))
	}
	file := &watchedReader{r: f}
	in := bufio.NewReader(io.LimitReader(file, maxDropSize))
	if !begins(in, name) {
		if file.failed != nil {
			return file.later()
		}
		return d.setAside(name, "not a submission of that name")
	}
	c := &dropConn{r: in, done: make(chan struct{})}
	sc := newConn(c, spool.Origin{Via: spool.ViaDrop, UID: int(info.Uid)}, 0)
	sc.arrived = time.Unix(info.Ctim.Unix())
	if !d.srv.drops.pass(sc) {
		return nil // shutting down
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		c.stop.Store(true)
		<-c.done
		if sc.committed == 0 {
			return nil // it is there at the next start
		}
	}
	switch {
	case sc.committed != 0:
		d.taken.Add(1)
		crashpoint.Here("taken.unlink.before")
		err := os.Remove(filepath.Join(d.path, name))
		crashpoint.Here("taken.unlink.after")
		if err != nil {
			return &laterError{"stored, and cannot be removed: " + err.Error()}
		}
		return nil
	case file.failed != nil:
		return file.later()
	case c.temporary():
		return &laterError{"not stored, to be tried again: " + c.verdict()}
	}
	// The front end writes only what the session takes, so this is somebody's
	// handiwork, or a mistake of ours: kept for a while, not read again.
	return d.setAside(name, c.verdict())
}

// watchedReader remembers that the file could not be read, which is no verdict on
// what is in it.
type watchedReader struct {
	r      io.Reader
	failed error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.failed = err
	}
	return n, err
}

func (w *watchedReader) later() error {
	return &laterError{"not read, to be tried again: " + w.failed.Error()}
}

// begins reports whether a session begins with the submission ID that its file is
// named by. Another file that somebody gave such a name does not: nothing of that
// one is looked at, nor quoted.
func begins(r *bufio.Reader, name string) bool {
	id, _ := dropID(name)
	hello := "EHLO " + id.Name()
	begin, err := r.Peek(len(hello))
	return err == nil && string(begin) == hello
}

// setAside renames a drop file, and never over another one: somebody may have made
// one of that name to see it go.
func (d *dropDir) setAside(name, why string) error {
	old, aside := filepath.Join(d.path, name), filepath.Join(d.path, rejectedPrefix+name)
	crashpoint.Here("reject.rename.before")
	err := unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, aside, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		aside = fmt.Sprintf("%s.%016x", aside, rand.Uint64())
		err = unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, aside, unix.RENAME_NOREPLACE)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // its owner took it back
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// A file system that cannot promise it. The number keeps it true.
		aside = fmt.Sprintf("%s.%016x", aside, rand.Uint64())
		err = os.Rename(old, aside)
	}
	crashpoint.Here("reject.rename.after")
	if err != nil {
		return fmt.Errorf("%s, and cannot be set aside: %w", why, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(aside, &st); err != nil {
		return fmt.Errorf("%s, and gone when it was set aside: %w", why, err)
	}
	d.taken.Add(1)
	return &setAsideError{st.Uid, why}
}

// dropID is the ID of the submission in a drop file of that name.
func dropID(name string) (id spool.SubmissionID, ok bool) {
	err := id.UnmarshalText([]byte(name))
	return id, err == nil && id.String() == name // in lower case
}

// openDrop opens a drop file without following or waiting for anything its owner
// may have put in its place, and sees to it that nobody but its owner has written
// it. None of what it refuses has been read.
func openDrop(path string) (*os.File, *unix.Stat_t, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, nil, &fs.PathError{Op: "fstat", Path: path, Err: err}
	}
	if err := checkDrop(fd, &st); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, &st, nil
}

// othersWrite are the mode bits by which somebody else may write a file.
const othersWrite = 0o022

func checkDrop(fd int, st *unix.Stat_t) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a regular file: remove it")
	case st.Nlink == 0:
		return fs.ErrNotExist
	case st.Nlink > 1:
		// Set aside, it would be anybody's who can link to it.
		return errors.New("a file with several names: remove all but one")
	case st.Mode&othersWrite != 0:
		// What others wrote into a file of root, say, and linked in here, is not root's.
		return errors.New("others than its owner may write it: chmod go-w")
	}
	// A file with a hole may be endless without taking any room. What a front end
	// leaves has none, but a file system may see one where it has not written yet, so
	// that the file is looked at again.
	hole, err := unix.Seek(fd, 0, unix.SEEK_HOLE)
	if err == nil && hole < st.Size {
		return errors.New("a file with holes, which no front end leaves: remove it")
	}
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		return err
	}
	return nil
}
