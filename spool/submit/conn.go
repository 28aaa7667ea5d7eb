package submit

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"postino/spool"
)

const (
	// idleTimeout bounds one read of a client: a front end sends as fast as it can.
	idleTimeout = 60 * time.Second
	// maxCommandLine, in octets, is far above RFC 5321 §4.5.3.1.4 with every
	// parameter we know, and far below what would hurt.
	maxCommandLine = 16 << 10
)

var errLongLine = errors.New("command line too long")

// conn is what go-smtp's server gets to read and write. It adds what the server
// lacks: a deadline for each read, a limit on command lines that leaves content
// alone, and an end for good at the first read error. Without the last, a BDAT
// chunk cut short would count as complete: the server copies a chunk until EOF
// and asks nobody how much there was.
type conn struct {
	net.Conn
	origin spool.Origin
	// arrived is when the message was handed in, if that was before now.
	arrived time.Time

	err   error
	line  []byte // the command line so far
	chunk int64  // octets of a BDAT chunk still to come
	data  bool   // content comes after DATA, until the next reply

	// refused: a command since the last MAIL was. A submission is all or nothing,
	// although its commands and content come in one write.
	refused   atomic.Bool
	committed spool.ID // of the last message that was taken
}

// trusted reports whether the kernel vouches for who is at the other end.
func (c *conn) trusted() bool {
	return c.origin.Via == spool.ViaSocket || c.origin.Via == spool.ViaDrop
}

func (c *conn) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	// Some carriers have no deadlines and need none: a file does not wait.
	_ = c.Conn.SetReadDeadline(time.Now().Add(idleTimeout))
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		// Only between commands is this a proper end, and there the server treats
		// both alike.
		err = io.ErrUnexpectedEOF
	}
	if err == nil && !c.data {
		err = c.follow(p[:n])
	}
	c.err = err
	return n, err
}

// follow keeps track of commands and chunks, and fails when a command line gets
// too long: the server would keep it in memory until it ends.
func (c *conn) follow(p []byte) error {
	for len(p) > 0 {
		if n := min(c.chunk, int64(len(p))); n > 0 {
			c.chunk -= n
			p = p[n:]
			continue
		}
		line, rest := p, []byte(nil)
		i := bytes.IndexByte(p, '\n')
		if i >= 0 {
			line, rest = p[:i+1], p[i+1:]
		}
		if len(c.line)+len(line) > maxCommandLine {
			return errLongLine
		}
		c.line = append(c.line, line...)
		if i >= 0 {
			c.chunk = chunkSize(string(c.line))
			c.line = c.line[:0]
		}
		p = rest
	}
	return nil
}

// chunkSize is how many octets of content follow a command line. It must agree
// with the server: what is skipped here and a command there has no limit.
func chunkSize(line string) int64 {
	line = strings.TrimRight(line, "\r\n")
	if len(line) < 6 || !strings.EqualFold(line[:5], "BDAT ") {
		return 0
	}
	args := strings.Fields(line[5:])
	if len(args) == 0 || len(args) > 2 || len(args) == 2 && !strings.EqualFold(args[1], "LAST") {
		return 0
	}
	n, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return 0
	}
	return int64(n)
}

// Write notes what the server answers. It writes whole replies.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) > 0 && (p[0] == '4' || p[0] == '5') {
		c.refused.Store(true)
	}
	c.data = bytes.HasPrefix(p, []byte("354"))
	return c.Conn.Write(p)
}

// SetReadDeadline keeps the server from undoing ours.
func (c *conn) SetReadDeadline(time.Time) error { return nil }
