package submit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"postino/spool"
	"postino/spool/handoff"
)

const (
	// idleTimeout bounds one read of a client: a front end sends as fast as it can.
	idleTimeout = 60 * time.Second
	// readTurn is how long a client is waited for at a time. A machine that stood still,
	// as a virtual one may for half a minute, says nothing about it: that is one turn.
	readTurn = time.Second
	// sessionTimeout bounds a whole session on the socket. A front end has its message
	// complete before it connects; 1 GiB in ten minutes is a slow disk.
	sessionTimeout = 10 * time.Minute
	// maxCommands bounds the commands of a session that the kernel vouches for: the
	// largest limits.max_recipients twice, and some. Others end by themselves.
	maxCommands = 250_000
	// maxCommandLine, in octets, is far above RFC 5321 §4.5.3.1.4 with every
	// parameter we know, and far below what would hurt.
	maxCommandLine = 16 << 10
)

var (
	errLongLine     = errors.New("command line too long")
	errManyCommands = errors.New("too many commands")
)

// conn is what go-smtp's server gets to read and write. It hands out commands a
// line at a time, so that it always knows whether the server reads a command or
// content, and adds what the server lacks: a deadline for each read, a limit on
// command lines that leaves content alone, bare names in commands, clients that
// end lines with LF, and an end for good at the first read error. A session that
// ends within content never looks like its proper end: the server copies a BDAT
// chunk until EOF and asks nobody how much there was.
type conn struct {
	net.Conn
	origin spool.Origin
	// arrived is when the message was handed in, if that was before now.
	arrived time.Time
	idle    time.Duration // for each read; 0 waits for ever
	until   time.Time     // of the session; only with idle
	gone    func()        // called when it is closed; may be nil

	// paced: the client has a place that others wait for. It has made us wait so long
	// and sent so many octets while it had one.
	paced    atomic.Bool
	waited   time.Duration
	received int64

	commands int
	in       *bufio.Reader
	out      []byte // the rest of a line that was begun
	err      error
	started  bool  // the first line has been read
	lf       bool  // which ended with LF, so that all lines do
	chunk    int64 // octets of a BDAT chunk still to come
	data     bool  // content follows DATA, up to the dot
	midLine  bool  // within a line of it
	// noAliases: the client asked for it, by handoff.NoAliases.
	noAliases bool

	// refused: a command since the last MAIL was. A submission is all or nothing,
	// although its commands and content come in one write.
	refused   atomic.Bool
	closed    atomic.Bool // nothing more is read
	committed spool.ID    // of the last message that was taken
	// broken: the carrier failed within content. Whatever the server makes of that,
	// it is no verdict on the message.
	broken atomic.Bool
}

func newConn(c net.Conn, origin spool.Origin, idle time.Duration) *conn {
	sc := &conn{Conn: c, origin: origin, idle: idle, until: time.Now().Add(sessionTimeout)}
	sc.in = bufio.NewReaderSize(source{sc}, maxCommandLine)
	return sc
}

// source reads the carrier, each time with a deadline.
type source struct{ c *conn }

func (s source) Read(p []byte) (n int, err error) {
	c := s.c
	if c.idle == 0 {
		n, err = c.Conn.Read(p)
	} else {
		n, err = s.readInTime(p)
	}
	if err != nil && err != io.EOF && (c.chunk > 0 || c.data) {
		c.broken.Store(true)
	}
	return n, err
}

func (s source) readInTime(p []byte) (int, error) {
	c, paced := s.c, s.c.paced.Load()
	left := c.idle
	if paced {
		// Only what we wait for the client counts, not what the disk takes.
		left = min(left, placeGrace+time.Duration(c.received/placeRate)*time.Second-c.waited)
	}
	for {
		now := time.Now()
		turn := min(left, readTurn, c.until.Sub(now))
		// Some carriers have no deadlines and need none: a file does not wait.
		_ = c.Conn.SetReadDeadline(now.Add(turn))
		n, err := c.Conn.Read(p)
		took := min(time.Since(now), turn)
		left -= took
		if paced {
			c.received += int64(n)
			c.waited += took
		}
		if left <= 0 || turn <= 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// trusted reports whether the kernel vouches for who is at the other end.
func (c *conn) trusted() bool {
	return c.origin.Via == spool.ViaSocket || c.origin.Via == spool.ViaDrop
}

func (c *conn) Read(p []byte) (n int, err error) {
	// The server recovers in its handlers, but reads outside of them.
	defer func() {
		if p := recover(); p != nil {
			c.err = fmt.Errorf("panic while reading: %v\n%s", p, debug.Stack())
			n, err = 0, c.err
		}
	}()
	if c.closed.Load() {
		// The server reads on after QUIT, and what came with it is in our buffer.
		return 0, net.ErrClosed
	}
	if len(c.out) == 0 && c.err == nil {
		if c.chunk > 0 {
			return c.readChunk(p)
		}
		c.readLine()
	}
	if len(c.out) == 0 {
		return 0, c.err
	}
	n = copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

func (c *conn) readChunk(p []byte) (int, error) {
	n, err := c.in.Read(p[:min(int64(len(p)), c.chunk)])
	c.chunk -= int64(n)
	c.err = cutShort(err)
	return n, c.err
}

func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readLine puts the next line, or in content a part of one, into out.
func (c *conn) readLine() {
	line, err := c.in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull && c.data:
		// The rest of it comes next.
	case err == bufio.ErrBufferFull:
		c.err = errLongLine
		return
	case err == io.EOF && len(line) == 0 && !c.data:
		c.err = err // between commands
		return
	case err != nil:
		c.err = cutShort(err)
		return
	}
	whole := err == nil
	if !c.started {
		c.started = true
		c.lf = !bytes.HasSuffix(line, []byte("\r\n"))
	}
	atStart := !c.midLine
	c.midLine = !whole
	if c.lf && whole {
		line = append(bytes.TrimSuffix(bytes.Clone(line[:len(line)-1]), []byte("\r")), "\r\n"...)
	}
	switch {
	case !c.data:
		if c.commands++; c.commands > maxCommands && c.trusted() {
			c.err = errManyCommands
			return
		}
		if c.origin.Via == spool.ViaTCP && isHTTP(line) {
			c.err = errHTTP
			return
		}
		c.noAliases = c.noAliases || c.trusted() && string(bytes.TrimRight(line, "\r\n")) == handoff.NoAliases
		line = boundSize(completePath(line))
		c.chunk = chunkSize(string(line))
		c.midLine = false
	case atStart && string(line) == ".\r\n":
		c.data = false
	}
	c.out = line
}

// Write notes what the server answers. It writes whole lines. A client that one of
// them cannot reach would wait for it, and never learn what became of its message:
// the end of the connection tells it that there is doubt.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) > 0 && (p[0] == '4' || p[0] == '5') {
		c.refused.Store(true)
	}
	if bytes.HasPrefix(p, []byte("354")) {
		c.data = true
	}
	err := net.ErrClosed
	if !c.broken.Load() {
		_, err = c.Conn.Write(standardReply(p))
	}
	if err == nil {
		return len(p), nil
	}
	c.closed.Store(true) // nobody reads what we answer: we take no more
	if c.idle > 0 {
		c.Conn.Close()
	}
	return 0, err
}

// Close closes the carrier.
func (c *conn) Close() error {
	c.closed.Store(true)
	if c.gone != nil {
		c.gone()
	}
	return c.Conn.Close()
}

// SetReadDeadline keeps the server from undoing ours.
func (c *conn) SetReadDeadline(time.Time) error { return nil }
