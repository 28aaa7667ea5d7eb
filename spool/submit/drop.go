package submit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool"
	"postino/spool/crashpoint"
)

const (
	// maxDropSize, in octets, is the front end's own cap of 1 GiB and as much
	// envelope as may come before it.
	maxDropSize = 1<<30 + 64<<20
	// dropWorkers files are read at a time, so that they share commits, and
	// dropPerOwner of one owner: they may be large.
	dropWorkers  = 20
	dropPerOwner = 16
	// dropBatch names are read from the directory at a time, and dropListed wait their
	// turn at a time, some 200 octets each: it may hold any number.
	dropBatch  = 1000
	dropListed = 100_000
	// dropArrivals names are remembered that come meanwhile. More are found later.
	dropArrivals = 1000
	// dropInterval is how often drop/ is looked at without being told to. The
	// notice of a new file may be lost without harm.
	dropInterval = 10 * time.Second
	// dropLeftover is the age at which an unfinished or rejected file is removed.
	dropLeftover = spool.SubmissionAge
	// sweepInterval is how often such files are looked for: there may be many.
	sweepInterval = time.Hour

	rejectedPrefix  = "rejected."
	temporaryPrefix = "tmp."
)

// Drops takes drop files until ctx ends: those that are there, then each one as
// it arrives.
func (srv *Server) Drops(ctx context.Context) error {
	d := newDropDir(srv)
	d.arrived = make(chan string, dropArrivals)
	notices, stop := watch(ctx, d.path, d.arrived)
	defer stop()
	tick := time.NewTicker(dropInterval)
	defer tick.Stop()
	for {
		began, before := time.Now(), d.taken.Load()
		if err := d.scan(ctx); err != nil {
			srv.often.Error("drop directory not read", "err", err)
		}
		rest := time.Duration(0)
		if d.taken.Load() == before {
			// Whoever makes names there for nothing has half of our time at most.
			rest = min(time.Since(began), dropInterval)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-notices:
		}
	}
}

// ScanDrops takes the drop files that are there now.
func (srv *Server) ScanDrops(ctx context.Context) error { return newDropDir(srv).scan(ctx) }

// DropsWaiting reports whether there are drop files in a spool directory.
func DropsWaiting(spoolDir string) (bool, error) {
	found := false
	err := readDir(filepath.Join(spoolDir, spool.DropDir), func(entries []fs.DirEntry) bool {
		found = slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
			_, ok := dropID(e.Name())
			return ok && e.Type().IsRegular()
		})
		return !found
	})
	return found, err
}

// readDir calls f with some entries of a directory at a time, in the order of their
// names, until it returns false.
func readDir(path string, f func([]fs.DirEntry) bool) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(dropBatch)
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
		if len(entries) > 0 && !f(entries) || err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

type dropDir struct {
	srv   *Server
	path  string
	taken atomic.Int64 // counts the files that are gone from here
	swept time.Time    // when leftovers were last looked for
	left  leftFiles
	full  bool // there was no room when last looked
	// arrived has the names of files that came; nil where nobody watches.
	arrived chan string
}

func newDropDir(srv *Server) *dropDir {
	return &dropDir{srv: srv, path: filepath.Join(srv.spool.Dir(), spool.DropDir), left: leftFiles{log: srv.log, often: srv.often}}
}

func (d *dropDir) scan(ctx context.Context) error {
	if d.waits() {
		return nil
	}
	sweep := time.Since(d.swept) > sweepInterval
	if sweep {
		d.swept = time.Now()
	}
	d.left.begin()
	defer d.left.end()
	wait := newDropTurns()
	err := readDir(d.path, func(entries []fs.DirEntry) bool {
		for _, e := range entries {
			if d.isDrop(e, sweep) && !d.left.waits(e.Name()) {
				d.list(wait, e.Name())
			}
		}
		if wait.length >= dropListed {
			d.takeAll(ctx, wait)
			wait = newDropTurns()
		}
		return ctx.Err() == nil
	})
	d.takeAll(ctx, wait)
	return err
}

// list has a file wait for its turn.
func (d *dropDir) list(wait *dropTurns, name string) {
	var st unix.Stat_t
	err := unix.Lstat(filepath.Join(d.path, name), &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		wait.add(dropFile{name: name, uid: st.Uid})
	}
}

// isDrop reports whether something in the directory may be a drop file, and sees to
// it if it is none.
func (d *dropDir) isDrop(e fs.DirEntry, sweep bool) bool {
	name := e.Name()
	_, named := dropID(name)
	switch {
	case e.IsDir():
		// It may hold anything, and what is in there is not ours to remove.
		d.left.note(name, errors.New("a directory: remove it"))
	case named && e.Type().IsRegular():
		return true
	case named:
		d.left.note(name, d.setAside(name, "not a regular file"))
	case strings.HasPrefix(name, rejectedPrefix), strings.HasPrefix(name, temporaryPrefix):
		if sweep {
			d.left.note(name, d.removeOld(name))
		}
	default:
		err := errors.New("not the name of a drop file: remove it")
		if sweep {
			err = cmp.Or(d.removeOld(name), err)
		}
		d.left.note(name, err)
	}
	return false
}

// waits reports whether there is no room to take anything in, and says so when that begins.
func (d *dropDir) waits() bool {
	err := d.srv.spool.Room()
	if err != nil && !d.full {
		d.srv.often.Warn("drop files wait", "err", err)
	}
	d.full = err != nil
	return d.full
}

// takeAll takes the files that wait, and those that come meanwhile.
func (d *dropDir) takeAll(ctx context.Context, wait *dropTurns) {
	type outcome struct {
		dropFile
		err error
	}
	wait.sort()
	finished := make(chan outcome)
	for running := 0; ; {
		for running < dropWorkers && ctx.Err() == nil {
			d.hear(wait)
			f, ok := wait.next()
			if !ok {
				break
			}
			running++
			go func() { finished <- outcome{f, d.take(ctx, f.name)} }()
		}
		if running == 0 {
			return
		}
		select {
		case o := <-finished:
			running--
			wait.done(o.dropFile)
			d.left.note(o.name, o.err)
		case name := <-d.arrived:
			d.hearOf(wait, name)
		}
	}
}

// hear has those wait who came meanwhile.
func (d *dropDir) hear(wait *dropTurns) {
	for range dropArrivals {
		select {
		case name := <-d.arrived:
			d.hearOf(wait, name)
		default:
			return
		}
	}
}

func (d *dropDir) hearOf(wait *dropTurns, name string) {
	if _, ok := dropID(name); ok && len(wait.known) < 2*dropListed {
		d.list(wait, name)
	}
}

// removeOld removes what nobody has changed for a long time. The change time is the
// one that an owner cannot set.
func (d *dropDir) removeOld(name string) error {
	path := filepath.Join(d.path, name)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || time.Since(time.Unix(st.Ctim.Unix())) < dropLeftover {
		return nil
	}
	crashpoint.Here("leftover.unlink.before")
	err := unix.Unlink(path) // not os.Remove, which removes a directory as well
	crashpoint.Here("leftover.unlink.after")
	if err != nil {
		return fmt.Errorf("left over, and cannot be removed: %w", err)
	}
	return nil
}

// watch sends a notice when something is linked into dir, and its name to arrived
// while that has room. Without inotify there are none, and dropInterval has to do.
func watch(ctx context.Context, dir string, arrived chan<- string) (notices chan struct{}, stop func()) {
	notices = make(chan struct{}, 1)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return notices, func() {}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		f.Close()
		return notices, func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			for _, name := range eventNames(buf[:n]) {
				select {
				case arrived <- name:
				default:
				}
			}
			select {
			case notices <- struct{}{}:
			default:
			}
		}
	}()
	return notices, func() {
		f.Close()
		<-done
	}
}

// eventNames are the names in what inotify(7) tells.
func eventNames(b []byte) (names []string) {
	for len(b) >= unix.SizeofInotifyEvent {
		length := int(binary.NativeEndian.Uint32(b[unix.SizeofInotifyEvent-4:]))
		b = b[unix.SizeofInotifyEvent:]
		if length > len(b) {
			return names
		}
		name, _, _ := bytes.Cut(b[:length], []byte{0})
		names, b = append(names, string(name)), b[length:]
	}
	return names
}
