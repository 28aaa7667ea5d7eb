package submit

import (
	"net"
	"sync"
	"time"

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

// crowd counts who is connected, by whatever carrier.
type crowd struct {
	limit int // of all but root

	mu    sync.Mutex
	open  map[int]int // guarded by mu: connections by uid
	total int         // guarded by mu: those of all but root
}

func newCrowd() *crowd {
	limit := maxConnections
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil && files.Cur/2 < maxConnections {
		limit = int(files.Cur / 2)
	}
	return &crowd{limit: limit, open: make(map[int]int)}
}

func (c *crowd) enter(uid int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uid != 0 {
		if c.open[uid] >= maxPerUID || c.total >= c.limit {
			return false
		}
		c.total++
	}
	c.open[uid]++
	return true
}

func (c *crowd) leave(uid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uid != 0 {
		c.total--
	}
	if c.open[uid]--; c.open[uid] == 0 {
		delete(c.open, uid)
	}
}

// admit lets a client in, or closes its connection where there are too many: then the
// result is nil.
func (srv *Server) admit(c net.Conn, origin spool.Origin, idle, session time.Duration) net.Conn {
	if !srv.crowd.enter(origin.UID) {
		c.Close()
		return nil
	}
	place := &counted{Conn: c, leave: sync.OnceFunc(func() { srv.crowd.leave(origin.UID) })}
	admitted := newConn(place, origin, idle)
	admitted.until = time.Now().Add(session)
	return srv.register(admitted)
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
