package handoff

import (
	"errors"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool/crashpoint"
)

const (
	dropName = "drop"
	// dropMode of drop/: everybody may leave a file (0733) and nobody take another's
	// (sticky), and files belong to the runner's group (setgid on a directory).
	dropMode = 0o3733
	// fileMode of a drop file: for the submitter and the runner's group.
	fileMode = 0o640
)

const askSetup = `start "postino run", which lays it out`

// dropDir is the open directory that drop files are left in. The descriptor is
// good for names only: ordinary users may not read the directory.
type dropDir struct {
	path string
	fd   int
}

// openDrop opens drop/ in the spool directory, and makes it when the spool
// directory is our own.
func openDrop(spool string) (*dropDir, *Failure) {
	d := &dropDir{path: path.Join(spool, dropName)}
	const how = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	parent, err := unix.Open(spool, how, 0)
	if err != nil {
		return nil, &Failure{Path: spool, Err: err, Create: true,
			Remedy: `make it, owned by the user who runs "postino run", or name another in POSTINO_SPOOL`}
	}
	defer unix.Close(parent)
	d.fd, err = unix.Openat(parent, dropName, how, 0)
	if err == unix.ENOENT && owned(parent) {
		if err = makeDrop(spool); err == nil {
			d.fd, err = unix.Openat(parent, dropName, how, 0)
		}
	}
	if err != nil {
		return nil, &Failure{Path: d.path, Err: err, Create: true, Remedy: askSetup}
	}
	if failure := d.check(parent); failure != nil {
		d.close()
		return nil, failure
	}
	return d, nil
}

// check refuses a directory in which a message would not be safe: a stranger's, or
// one in which anybody may take away what another has left.
func (d *dropDir) check(parent int) *Failure {
	var st, spool unix.Stat_t
	err := unix.Fstat(d.fd, &st)
	if err == nil {
		err = unix.Fstat(parent, &spool)
	}
	f := &Failure{Path: d.path, Err: err, Create: true}
	const othersWrite = 0o022
	switch {
	case err != nil:
	case st.Uid != 0 && st.Uid != spool.Uid && int(st.Uid) != unix.Geteuid():
		f.Err = errors.New("it belongs to uid " + strconv.Itoa(int(st.Uid)) + ", who neither owns the spool directory nor is root")
		f.Remedy = "give it to the owner of the spool directory"
	case st.Mode&othersWrite != 0 && st.Mode&unix.S_ISVTX == 0:
		f.Err = errors.New("it is not sticky, so that anybody may take mail out of it")
		f.Remedy = `chmod 3733, as "postino run" does when it starts`
	default:
		return nil
	}
	return f
}

// owned reports whether the file behind fd is ours.
func owned(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && int(st.Uid) == unix.Geteuid()
}

// makeDrop makes drop/, and sees to it that it outlives a power cut.
func makeDrop(spool string) error {
	dir, err := unix.Open(spool, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	// mkdir obeys the umask and drops the special bits, chmod neither.
	if err := unix.Mkdirat(dir, dropName, 0o700); err != nil && err != unix.EEXIST {
		return err
	}
	if err := unix.Fchmodat(dir, dropName, dropMode, 0); err != nil {
		return err
	}
	crashpoint.Here("makedrop.dirsync.before")
	err = fsync(dir)
	crashpoint.Here("makedrop.dirsync.after")
	return err
}

func (d *dropDir) close() { unix.Close(d.fd) }

// createNameless makes a file that vanishes with its descriptor unless it is
// linked. Where the file system has none, it is a file whose name is gone.
func (d *dropDir) createNameless(flags int, mode uint32) (fd int, failure *Failure) {
	fd, err := unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_CLOEXEC|flags, mode)
	if err == nil {
		return fd, nil
	}
	name := temporaryName(hexID(NewID(time.Now())))
	fd, failure = d.createNamed(name, flags, mode)
	if failure == nil {
		crashpoint.Here("buffer.unlink.before")
		_ = unix.Unlinkat(d.fd, name, 0) // left behind, it is swept by the runner
		crashpoint.Here("buffer.unlink.after")
	}
	return fd, failure
}

// createNamed makes a file that has a name from the start.
func (d *dropDir) createNamed(name string, flags int, mode uint32) (fd int, failure *Failure) {
	fd, err := unix.Openat(d.fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, mode)
	if err == nil {
		return fd, nil
	}
	failure = writeFailure(d.path, err)
	failure.Create = true
	if failure.Remedy == "" {
		failure.Remedy = askSetup
	}
	return -1, failure
}

// temporaryName is a name that the runner does not take for a drop file.
func temporaryName(hex string) string { return "tmp." + hex }

const askRoom = "make room and send it again"

// full reports whether err says that there is no room.
func full(err error) bool { return err == unix.ENOSPC || err == unix.EDQUOT }

// writeFailure is err met while writing at path.
func writeFailure(path string, err error) *Failure {
	f := &Failure{Path: path, Err: err}
	switch {
	case full(err):
		f.Remedy = askRoom
	case err == unix.EFBIG:
		f.Remedy = "raise the limit on the size of files (ulimit -f)"
	case err == unix.EROFS:
		f.Remedy = "mount it for writing, or name another spool in POSTINO_SPOOL"
	}
	return f
}

// drop leaves s as a file in drop/. It returns nil only when the file and its name
// are on stable storage; after a failure neither is there.
func drop(spool string, s *Submission) *Failure {
	d, failure := openDrop(spool)
	if failure != nil {
		return failure
	}
	defer d.close()
	if failure = d.leaveNameless(s); failure != nil && failure.Err == errNoLink {
		failure = d.leaveNamed(s)
	}
	return failure
}

// leaveNameless writes a file that gets its name when it is complete, so that
// nothing is left when we are killed half-way. The error is errNoLink where the
// system cannot do that: it takes O_TMPFILE, and /proc or a privilege to link.
func (d *dropDir) leaveNameless(s *Submission) *Failure {
	fd, err := unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return &Failure{Path: d.path, Err: errNoLink}
	}
	defer unix.Close(fd)
	return d.leave(s, fd, func(name string) error { return d.link(fd, name) })
}

// leaveNamed writes a file under another name and renames it.
func (d *dropDir) leaveNamed(s *Submission) *Failure {
	temporary := temporaryName(hexID(s.ID))
	fd, failure := d.createNamed(temporary, unix.O_WRONLY, fileMode)
	if failure != nil {
		return failure
	}
	defer unix.Close(fd)
	failure = d.leave(s, fd, func(name string) error {
		return unix.Renameat(d.fd, temporary, d.fd, name)
	})
	if failure != nil {
		crashpoint.Here("temporary.unlink.before")
		_ = unix.Unlinkat(d.fd, temporary, 0) // ENOENT once it was renamed
		crashpoint.Here("temporary.unlink.after")
	}
	return failure
}

// leave writes s to fd, syncs it, has publish give it its name, and syncs that.
func (d *dropDir) leave(s *Submission, fd int, publish func(name string) error) *Failure {
	err := unix.Fchmod(fd, fileMode) // the umask had its say before
	if err == nil {
		err = s.writeContent(fd, appendRecipients(s.opening(), s.Recipients))
	}
	if err == nil {
		crashpoint.Here("drop.sync.before")
		err = fsync(fd)
		crashpoint.Here("drop.sync.after")
	}
	if err == nil {
		err = leavesRoom(fd)
	}
	if err != nil {
		return writeFailure(d.path, err)
	}
	name := hexID(s.ID)
	err = publish(name) // a link, or a rename
	crashpoint.Here("drop.publish.after")
	if err != nil && (err != unix.EEXIST || !d.same(name, fd)) {
		return writeFailure(d.path, err)
	}
	err = d.sync(fd)
	crashpoint.Here("drop.dirsync.after")
	if err != nil {
		_ = unix.Unlinkat(d.fd, name, 0)
		crashpoint.Here("drop.unlink.after")
		return writeFailure(d.path, err)
	}
	return nil
}

const (
	// dropHeadroom octets have to be free besides, or dropShare of a small file system:
	// the runner begins nothing with less.
	dropHeadroom = 4 << 20
	dropShare    = 64
)

// leavesRoom returns ENOSPC when there is not as much room left as fd has taken:
// the runner copies it into the spool before it removes it. Mail that has been
// taken and then finds no way on would wait for a person.
func leavesRoom(fd int) error {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Blocks == 0 || unix.Fstat(fd, &st) != nil {
		return nil // it does not say; the write went well
	}
	block := int64(fs.Bsize)
	if int64(fs.Bavail)*block < st.Size+min(dropHeadroom, int64(fs.Blocks)*block/dropShare) {
		return unix.ENOSPC
	}
	return nil
}

// errNoLink: this system has no way to name a file that was made without one.
var errNoLink = errors.New("cannot link a nameless file")

// link gives the nameless file fd its name.
func (d *dropDir) link(fd int, name string) error {
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	err := unix.Linkat(unix.AT_FDCWD, self, d.fd, name, unix.AT_SYMLINK_FOLLOW)
	if err == nil || err == unix.EEXIST {
		return err
	}
	// No /proc here, as in many a chroot. Linux before 6.10 wants CAP_DAC_READ_SEARCH.
	err = unix.Linkat(fd, "", d.fd, name, unix.AT_EMPTY_PATH)
	if err == nil || err == unix.EEXIST {
		return err
	}
	return errNoLink
}

// same reports whether the file with this name is ours and as long as fd. With
// the ID in its name that makes it the same message.
func (d *dropDir) same(name string, fd int) bool {
	var theirs, ours unix.Stat_t
	if unix.Fstatat(d.fd, name, &theirs, unix.AT_SYMLINK_NOFOLLOW) != nil || unix.Fstat(fd, &ours) != nil {
		return false
	}
	return theirs.Mode&unix.S_IFMT == unix.S_IFREG && theirs.Uid == ours.Uid &&
		theirs.Nlink == 1 && theirs.Size == ours.Size
}

// sync makes the names in the directory durable, and its own: it may have been
// made a moment ago. Who may not read the directory cannot sync it, but may sync
// the whole file system by the file.
func (d *dropDir) sync(file int) error {
	for _, name := range []string{".", ".."} {
		dir, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return syncfs(file)
		}
		if name == "." {
			// Once more, now that it has a name: of a file without one btrfs writes
			// nothing that outlives a power cut, and a directory's sync adds no content.
			err = fsync(file)
		}
		if err == nil {
			err = fsync(dir)
		}
		unix.Close(dir)
		if err == unix.EINVAL { // a file system that cannot sync directories
			return syncfs(file)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func syncfs(fd int) error {
	_, err := retry(func() (int, error) { return 0, unix.Syncfs(fd) })
	return err
}

func fsync(fd int) error {
	_, err := retry(func() (int, error) { return 0, unix.Fsync(fd) })
	return err
}
