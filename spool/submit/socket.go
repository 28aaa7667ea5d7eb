package submit

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"postino/spool"
)

// maxPerUID is how many submissions one user may have open at a time. Whoever is
// above it gets no answer, and his front ends leave drop files instead; others
// are not kept waiting. Root has no limit.
const maxPerUID = 200

// maxConnections is how many submissions all users but root may have open at a time,
// or half as many as there may be open files, if that is less: who has many uids, as in
// user namespaces, shall not keep the runner from opening anything else.
const maxConnections = 500

// socketListener asks the kernel who is calling.
type socketListener struct {
	*net.UnixListener
	srv   *Server
	limit int // of all but root
	mu    sync.Mutex
	open  map[uint32]int // guarded by mu: connections by uid
	total int            // guarded by mu: those of all but root
}

func newSocketListener(l *net.UnixListener, srv *Server) *socketListener {
	limit := maxConnections
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil && files.Cur/2 < maxConnections {
		limit = int(files.Cur / 2)
	}
	return &socketListener{UnixListener: l, srv: srv, limit: limit, open: make(map[uint32]int)}
}

func (l *socketListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		cred, err := peer(c)
		if err != nil || !l.enter(cred.Uid) {
			c.Close()
			continue
		}
		pid, program := caller(int(cred.Pid))
		origin := spool.Origin{Via: spool.ViaSocket, UID: int(cred.Uid), PID: pid, Program: program}
		place := &counted{UnixConn: c, leave: sync.OnceFunc(func() { l.leave(cred.Uid) })}
		return l.srv.register(newConn(place, origin, idleTimeout)), nil
	}
}

func (l *socketListener) enter(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uid != 0 {
		if l.open[uid] >= maxPerUID || l.total >= l.limit {
			return false
		}
		l.total++
	}
	l.open[uid]++
	return true
}

func (l *socketListener) leave(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uid != 0 {
		l.total--
	}
	if l.open[uid]--; l.open[uid] == 0 {
		delete(l.open, uid)
	}
}

// counted gives its place back when it is closed.
type counted struct {
	*net.UnixConn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.UnixConn.Close()
}

func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	return cred, err
}

// maxShells is how many shells between a program and the front end are looked
// through: PHP and cron start sendmail by "sh -c".
const maxShells = 3

// caller names the program that called the front end with this pid. It is for
// people to read; nothing is decided by it. What /proc does not show is left out.
func caller(pid int) (int, string) {
	name := ""
	for range maxShells + 1 {
		parent := parentOf(pid)
		if parent <= 0 {
			break
		}
		pid, name = parent, programOf(parent)
		if !isShell(name) {
			break
		}
	}
	if name == "" {
		return 0, ""
	}
	return pid, name
}

func isShell(name string) bool {
	switch name {
	case "sh", "dash", "bash", "ash", "ksh", "zsh":
		return true
	}
	return false
}

func programOf(pid int) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return spool.CleanText(string(comm))
}

func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// pid (comm) state ppid …, where comm may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}
