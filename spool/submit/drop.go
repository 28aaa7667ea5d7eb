package submit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"postino/spool"
	"postino/spool/crashpoint"
)

const (
	// maxDropSize, in octets, is the front end's own cap of 1 GiB and as much
	// envelope as may come before it.
	maxDropSize = 1<<30 + 16<<20
	// dropWorkers read drop files at a time, so that they share commits.
	dropWorkers = 16
	// dropBatch names are read from the directory at a time: it may hold 100,000.
	dropBatch = 1000
	// dropInterval is how often drop/ is looked at without being told to. The
	// notice of a new file may be lost without harm.
	dropInterval = 10 * time.Second
	// dropLeftover is the age at which an unfinished or rejected file is removed.
	dropLeftover = spool.SubmissionAge

	rejectedPrefix  = "rejected."
	temporaryPrefix = "tmp."
)

// Drops takes drop files until ctx ends: those that are there, then each one as
// it arrives.
func (srv *Server) Drops(ctx context.Context) error {
	dir := filepath.Join(srv.spool.Dir(), spool.DropDir)
	notices, stop := watch(ctx, dir)
	defer stop()
	d := &dropDir{srv: srv, path: dir, reported: make(map[string]bool)}
	tick := time.NewTicker(dropInterval)
	defer tick.Stop()
	for {
		if err := d.scan(ctx); err != nil {
			srv.log.Error("drop directory not read", "err", err)
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
func (srv *Server) ScanDrops(ctx context.Context) error {
	d := &dropDir{srv: srv, path: filepath.Join(srv.spool.Dir(), spool.DropDir), reported: make(map[string]bool)}
	return d.scan(ctx)
}

// DropsWaiting reports whether there are drop files in a spool directory.
func DropsWaiting(spoolDir string) (bool, error) {
	dir, err := os.Open(filepath.Join(spoolDir, spool.DropDir))
	if err != nil {
		return false, err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(dropBatch)
		if slices.ContainsFunc(names, isDropName) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

type dropDir struct {
	srv  *Server
	path string
	// reported holds the names of which something was said, so that it is said
	// once. It never grows beyond what is in the directory.
	reported map[string]bool
	full     bool // there was no room when last looked
}

func (d *dropDir) scan(ctx context.Context) error {
	if d.waits() {
		return nil
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	var present []string
	for ctx.Err() == nil {
		names, err := dir.Readdirnames(dropBatch)
		if len(names) > 0 {
			slices.Sort(names) // the names begin with the time
			d.takeAll(ctx, names)
			for _, n := range names {
				if d.reported[n] {
					present = append(present, n)
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	clear(d.reported)
	for _, n := range present {
		d.reported[n] = true
	}
	return nil
}

// waits reports whether there is no room to take anything in, and says so once.
func (d *dropDir) waits() bool {
	err := d.srv.spool.Room()
	if err != nil && !d.full {
		d.srv.log.Warn("drop files wait", "err", err)
	}
	d.full = err != nil
	return d.full
}

func (d *dropDir) takeAll(ctx context.Context, names []string) {
	work := make(chan string)
	problems := make(chan problem)
	var wg sync.WaitGroup
	for range min(dropWorkers, len(names)) {
		wg.Go(func() {
			for name := range work {
				if err := d.take(ctx, name); err != nil {
					problems <- problem{name, err}
				}
			}
		})
	}
	go func() {
		defer close(problems)
		for _, n := range names {
			if ctx.Err() == nil {
				work <- n
			}
		}
		close(work)
		wg.Wait()
	}()
	for p := range problems {
		if !d.reported[p.name] {
			d.reported[p.name] = true
			d.srv.log.Warn("drop file left", "file", p.name, "err", p.err)
		}
	}
}

type problem struct {
	name string
	err  error
}

// take stores one drop file and removes it. An error means that it stays.
func (d *dropDir) take(ctx context.Context, name string) error {
	switch {
	case strings.HasPrefix(name, rejectedPrefix), strings.HasPrefix(name, temporaryPrefix):
		return d.removeOld(name)
	case !isDropName(name):
		return errors.New("not the name of a drop file: remove it")
	}
	f, info, err := openDrop(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its owner took it back
	}
	if err != nil {
		return err
	}
	defer f.Close()
	c := &dropConn{r: io.LimitReader(f, maxDropSize), done: make(chan struct{})}
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
		crashpoint.Here("taken.unlink.before")
		err := os.Remove(filepath.Join(d.path, name))
		crashpoint.Here("taken.unlink.after")
		return err
	case c.temporary():
		return fmt.Errorf("not stored, to be tried again: %s", c.verdict())
	}
	// The front end writes only what the session takes, so this is somebody's
	// handiwork, or a mistake of ours: kept for a while, not read again.
	crashpoint.Here("reject.rename.before")
	err = os.Rename(filepath.Join(d.path, name), filepath.Join(d.path, rejectedPrefix+name))
	crashpoint.Here("reject.rename.after")
	if err != nil {
		return err
	}
	d.srv.log.Warn("drop file rejected", "file", name, "uid", info.Uid, "err", c.verdict())
	return nil
}

func isDropName(name string) bool {
	_, err := hex.DecodeString(name)
	return err == nil && len(name) == 2*len(spool.SubmissionID{}) && strings.ToLower(name) == name
}

// openDrop opens a drop file without following or waiting for anything its owner
// may have put in its place.
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
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		f.Close()
		return nil, nil, fmt.Errorf("not a regular file with one name: remove it")
	}
	return f, &st, nil
}

func (d *dropDir) removeOld(name string) error {
	info, err := os.Lstat(filepath.Join(d.path, name))
	if err != nil || time.Since(info.ModTime()) < dropLeftover {
		return nil
	}
	crashpoint.Here("leftover.unlink.before")
	err = os.Remove(filepath.Join(d.path, name))
	crashpoint.Here("leftover.unlink.after")
	return err
}

// watch sends a notice when something is linked into dir. Without inotify there
// are none, and dropInterval has to do.
func watch(ctx context.Context, dir string) (notices chan struct{}, stop func()) {
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
			if _, err := f.Read(buf); err != nil {
				return
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

// handover is a listener that is given its connections.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newHandover() *handover {
	h := &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
	h.close = sync.OnceFunc(func() { close(h.closed) })
	return h
}

func (h *handover) pass(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.closed:
		return false
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.close()
	return nil
}

func (h *handover) Addr() net.Addr { return carrier{} }

// dropConn plays a recorded session to the server and keeps the refusal that
// counts: the first permanent one, else the first.
type dropConn struct {
	carrier
	r       io.Reader
	refusal []byte
	done    chan struct{}
	once    sync.Once
	stop    atomic.Bool // read no further
}

func (c *dropConn) Read(p []byte) (int, error) {
	if c.stop.Load() {
		return 0, net.ErrClosed
	}
	return c.r.Read(p)
}

func (c *dropConn) Write(p []byte) (int, error) {
	if len(p) > 0 && (p[0] == '5' && !c.permanent() || p[0] == '4' && len(c.refusal) == 0) {
		c.refusal = slices.Clone(p)
	}
	return len(p), nil
}

func (c *dropConn) permanent() bool { return len(c.refusal) > 0 && c.refusal[0] == '5' }

// temporary reports whether the same file may be taken later. Not so a session that
// was cut short, which the server calls a connection error (421 4.4.x): it will
// not get longer.
func (c *dropConn) temporary() bool {
	return len(c.refusal) > 0 && c.refusal[0] == '4' && !strings.HasPrefix(string(c.refusal), "421 4.4.")
}

func (c *dropConn) verdict() string {
	if len(c.refusal) == 0 {
		return "it ends before its content does"
	}
	return spool.CleanText(string(c.refusal))
}

func (c *dropConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return nil
}

// carrier is the part of a net.Conn that a carrier without a network has.
type carrier struct{}

func (carrier) LocalAddr() net.Addr              { return carrier{} }
func (carrier) RemoteAddr() net.Addr             { return carrier{} }
func (carrier) SetDeadline(time.Time) error      { return nil }
func (carrier) SetReadDeadline(time.Time) error  { return nil }
func (carrier) SetWriteDeadline(time.Time) error { return nil }
func (carrier) Network() string                  { return "local" }
func (carrier) String() string                   { return "local" }
