package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"postino/spool"
)

// listen makes one of the sockets of the spool directory, which everybody may
// connect to. The caller has the spool, so that whatever is there is left over.
func listen(dir, name string) (*net.UnixListener, error) {
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// By a descriptor, since a path may be longer than the 107 octets of an address.
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name)})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // by then the name may be another's
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// maxLogFile is the size, in octets, at which the log file of a runner that was
// started for the moment is moved aside, when the next one starts.
const maxLogFile = 1 << 20

// logOutput is standard error. A runner started for the moment by a front end has
// none, and logs into the spool directory.
func logOutput(a *app, untilEmpty bool) (io.Writer, error) {
	if !untilEmpty || !isDevNull(os.Stderr) {
		return a.stderr, nil
	}
	path := filepath.Join(a.spool, spool.LogFile)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogFile {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
}

func isDevNull(f *os.File) bool {
	var st, null unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && unix.Stat(os.DevNull, &null) == nil && st.Rdev == null.Rdev && st.Mode == null.Mode
}
