package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockWait is how long to wait for an mbox that a mail program has locked; the
	// mail is then tried again later. lockPause is between two looks.
	lockWait  = 30 * time.Second
	lockPause = 100 * time.Millisecond
	// staleLock is the age of a lock file whose owner must have died.
	staleLock = 5 * time.Minute
)

// appendMbox appends a message to an mbox, which is made if need be and mayMake says so, and syncs it. After an error the file is as long as it was. A message that is the last of the file
// already is not appended again.
func appendMbox(ctx context.Context, base *os.Root, path string, mayMake bool, l *letter) (err error) {
	flags := os.O_RDWR | syscall.O_NONBLOCK
	if mayMake {
		flags |= os.O_CREATE
	}
	f, err := base.OpenFile(path, flags, fileRights)
	if !mayMake && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: it must exist and be its user's: make it, or set local.helper", err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	unlock, err := lockMbox(ctx, f, base, path+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if there, err := endsWith(f, end, l); there || err != nil {
		return errors.Join(err, f.Sync())
	}
	if err = writeEntry(f, end, l); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(err, f.Truncate(end))
	}
	return syncIn(base, filepath.Dir(path))
}

// writeEntry writes the message behind what is in the file, on a line of its own.
func writeEntry(f *os.File, end int64, l *letter) error {
	if end > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, end-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			if _, err := io.WriteString(f, "\n\n"); err != nil {
				return err
			}
		}
	}
	return l.entry(f)
}

// entry writes the message as an mbox has it: the line that begins it, the message,
// and an empty line.
func (l *letter) entry(w io.Writer) error {
	if _, err := io.WriteString(w, l.begin()); err != nil {
		return err
	}
	if err := l.write(w, true); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// begin is the line that begins a message in a file of mail.
func (l *letter) begin() string {
	from := "MAILER-DAEMON"
	if !l.message.Sender.IsNull() {
		from = strings.ReplaceAll(l.message.Sender.String(), " ", "-")
	}
	return "From " + from + " " + l.message.Arrived.UTC().Format(time.ANSIC) + "\n"
}

// endsWith reports whether the message is the last in the file.
func endsWith(f *os.File, end int64, l *letter) (bool, error) {
	var size counter
	if err := l.entry(&size); err != nil {
		return false, err
	}
	if int64(size) > end {
		return false, nil
	}
	err := l.entry(&comparer{in: io.NewSectionReader(f, end-int64(size), int64(size))})
	if errors.Is(err, errOther) {
		return false, nil
	}
	return err == nil, err
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

var errOther = errors.New("something else is there")

// comparer fails with errOther when what is written is not what is in the file.
type comparer struct {
	in  io.Reader
	buf []byte
}

func (c *comparer) Write(p []byte) (int, error) {
	c.buf = append(c.buf[:0], p...)
	if _, err := io.ReadFull(c.in, c.buf); err != nil {
		return 0, err
	}
	if !bytes.Equal(c.buf, p) {
		return 0, errOther
	}
	return len(p), nil
}

// lockMbox locks a file as Debian does: fcntl(2) first, then a file beside it. The lock
// of fcntl is the open file's and not the process's, which may have it open for another
// message.
func lockMbox(ctx context.Context, f *os.File, base *os.Root, dot string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	mark := lockMark()
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			if err = dotLock(base, dot, mark); err == nil {
				return func() { _ = base.Remove(dot) }, nil // fcntl's goes when f is closed
			}
			// Who locks in the other order waits for us, and we must not for them.
			_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
		}
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EACCES) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is locked: %w", f.Name(), err)
		case <-time.After(lockPause):
		}
	}
}

// lockMark is what our lock files hold: that they are ours, and of this kernel since it
// was booted. It is empty where that cannot be told.
func lockMark() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return "postino " + string(boot)
}

// dotLock makes a lock file. One that is there is taken for left behind when it is old,
// or when it is ours: as long as we have one we have the lock of fcntl, which the caller
// has now, so that whoever made it was killed.
func dotLock(base *os.Root, path, mark string) error {
	info, err := base.Lstat(path)
	if err == nil && (time.Since(info.ModTime()) > staleLock || mark != "" && holds(base, path, mark)) {
		_ = base.Remove(path) // where that fails the next line says so
	}
	f, err := base.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, _ = f.WriteString(mark) // without it the file is a lock all the same
	return f.Close()
}

// holds reports whether the text is all that is in a file.
func holds(base *os.Root, path, text string) bool {
	f, err := base.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	got, err := io.ReadAll(io.LimitReader(f, int64(len(text))+1))
	return err == nil && string(got) == text
}
