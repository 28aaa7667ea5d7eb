package control

import (
	"net"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a connection, as the kernel says it.
type peer struct {
	pid    int // of who connected or listens; 0 in another PID namespace
	uid    int
	groups []uint32 // the effective one included
}

func peerOf(c *net.UnixConn) (peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var p peer
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); sockErr == nil {
			p.pid, p.uid = int(cred.Pid), int(cred.Uid)
			p.groups = append(peerGroups(int(fd)), cred.Gid)
		}
	})
	if err == nil {
		err = sockErr
	}
	return p, err
}

// peerGroups returns the supplementary groups of a peer, none where the kernel
// does not tell (Linux before 4.13): then there are fewer rights, not more.
func peerGroups(fd int) []uint32 {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		need := int(size / 4)
		switch {
		case errno == 0:
			return groups[:need]
		case errno == unix.ERANGE && need > len(groups):
			groups = make([]uint32, need)
		default:
			return nil
		}
	}
}

const (
	// maxPerUID is how many connections an ordinary user may have at a time, and
	// maxConnections all ordinary users together. They do not count those who
	// administer the runner, who must get in when others crowd the socket.
	maxPerUID      = 16
	maxConnections = 128
	// maxAdmins is how many connections administrators may have at a time.
	maxAdmins = 128
)

// gate is a listener that lets in so many connections at a time; the rest is
// closed without an answer.
type gate struct {
	net.Listener
	isAdmin func(peer) bool

	mu      sync.Mutex
	users   map[int]int // guarded by mu: connections of ordinary users
	total   int         // guarded by mu: their sum
	nAdmins int         // guarded by mu
}

// visitor is a connection whose peer is known.
type visitor struct {
	net.Conn
	peer  peer
	leave func()
}

func (v *visitor) Close() error {
	v.leave()
	return v.Conn.Close()
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if v := g.admit(c); v != nil {
			return v, nil
		}
		c.Close()
	}
}

func (g *gate) admit(c net.Conn) net.Conn {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil // nobody vouches for the peer
	}
	p, err := peerOf(u)
	if err != nil {
		return nil
	}
	admin := g.isAdmin(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	if admin {
		if g.nAdmins >= maxAdmins {
			return nil
		}
		g.nAdmins++
	} else {
		if g.total >= maxConnections || g.users[p.uid] >= maxPerUID {
			return nil
		}
		g.total++
		g.users[p.uid]++
	}
	return &visitor{Conn: c, peer: p, leave: sync.OnceFunc(func() { g.leave(p.uid, admin) })}
}

func (g *gate) leave(uid int, admin bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if admin {
		g.nAdmins--
		return
	}
	g.total--
	if g.users[uid]--; g.users[uid] == 0 {
		delete(g.users, uid)
	}
}

// isAdmin reports whether p may administer a runner with that owner and group.
func (o *Options) isAdmin(p peer) bool {
	return p.uid == 0 || p.uid == o.Owner || slices.Contains(p.groups, uint32(o.Group))
}
