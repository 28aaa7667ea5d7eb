package submit

import (
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postino/spool"
)

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
