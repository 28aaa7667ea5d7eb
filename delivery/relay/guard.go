package relay

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// maxReplyLine is the longest reply line taken, in octets with its line end.
	// RFC 5321 §4.5.3.1.5 allows 512; go-smtp stops at 2,000.
	maxReplyLine = 1990
	// maxReply is how many octets the replies to one command may have: far more
	// than any EHLO, little enough for a runner with many connections.
	maxReply = 64 << 10
)

// What a remote can do wrong in a reply. All of them end the session.
var (
	errGarbage  = errors.New("not an SMTP reply")
	errMixed    = errors.New("a reply whose lines have different codes")
	errTooLong  = errors.New("a reply line that is too long")
	errTooMuch  = errors.New("a reply that is too long")
	errUnasked  = errors.New("a reply that nobody asked for")
	errTooSlow  = errors.New("content taken too slowly")
	errProtocol = []error{errGarbage, errMixed, errTooLong, errTooMuch, errUnasked}
)

// answer is a whole reply of the remote: its code and the text of its lines.
type answer struct {
	code  int
	lines []string
}

// guard is the connection as go-smtp sees it. It reads strictly, a line at a
// time, so that no buffer above it ever holds what the remote has yet to be
// asked for; it keeps the last reply whole; and each wait has its deadline.
type guard struct {
	net.Conn // the socket, or TLS over it
	socket   net.Conn
	in       *bufio.Reader

	// replay is what the reader above is handed before anything of the remote's,
	// and muted says that the next write is an EHLO that has already been said.
	replay []byte
	muted  bool

	out   []byte // the rest of a line of which a part has been handed out
	last  answer // the reply to the last command, as far as it was read
	ended bool   // last is complete
	spent int    // octets of reply since the last command
	sent  bool   // the last write reached the kernel whole
	err   error  // the first error: nothing is read or written after it

	deadline time.Time // of reading, as it was set last
	// patience is how long one write may take; until, unless it is zero, is when
	// the last one must be over.
	patience time.Duration
	until    time.Time
}

// newGuard guards conn, which is socket or TLS over it.
func newGuard(conn, socket net.Conn, patience time.Duration) *guard {
	return &guard{Conn: conn, socket: socket, in: bufio.NewReaderSize(conn, maxReplyLine), patience: patience}
}

// SetDeadline sets the deadline of reading: it holds for a whole reply however
// many reads that takes. Zero, by which go-smtp lifts a deadline, changes
// nothing, since nobody may wait without one. Write sets its own.
func (g *guard) SetDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	g.deadline = t
	return g.Conn.SetReadDeadline(t)
}

// Read hands out at most one line.
func (g *guard) Read(p []byte) (int, error) {
	if len(g.replay) > 0 {
		end := bytes.IndexByte(g.replay, '\n') + 1
		n := copy(p, g.replay[:end])
		g.replay = g.replay[n:]
		return n, nil
	}
	if len(g.out) == 0 {
		line, err := g.line()
		if err != nil {
			return 0, err
		}
		g.out = []byte(line)
	}
	n := copy(p, g.out)
	g.out = g.out[n:]
	return n, nil
}

// line reads one reply line, adds it to the last reply and returns it in the
// form that textproto understands, which is stricter than some servers about a
// code without text.
func (g *guard) line() (string, error) {
	if g.err != nil {
		return "", g.err
	}
	raw, err := g.in.ReadSlice('\n')
	g.spent += len(raw)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		err = errTooLong
	case err == nil && g.spent > maxReply:
		err = errTooMuch
	}
	var code int
	var more bool
	var text string
	if err == nil {
		code, more, text, err = parseLine(string(raw))
	}
	if g.ended {
		g.last, g.ended = answer{}, false
	}
	if err == nil && g.last.code != 0 && g.last.code != code {
		err = errMixed
	}
	if err != nil {
		g.err = err
		return "", err
	}
	g.last.code = code
	g.last.lines = append(g.last.lines, text)
	g.ended = !more
	mark := " "
	if more {
		mark = "-"
	}
	return strconv.Itoa(code) + mark + text + "\r\n", nil
}

// parseLine takes a reply line apart (RFC 5321 §4.2). The code has a first digit
// from 2 to 5; a line that is a code alone counts as the last one.
func parseLine(s string) (code int, more bool, text string, err error) {
	s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
	if len(s) < 3 || s[0] < '2' || s[0] > '5' || !digit(s[1]) || !digit(s[2]) {
		return 0, false, "", errGarbage
	}
	code = int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
	if s = s[3:]; s == "" {
		return code, false, "", nil
	}
	if s[0] != ' ' && s[0] != '-' {
		return 0, false, "", errGarbage
	}
	return code, s[0] == '-', s[1:], nil
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// Write sends p, which is a command or a part of the content. What the remote
// says before it was asked must not be taken for the answer to p: then nothing
// is sent.
func (g *guard) Write(p []byte) (int, error) {
	if g.muted {
		g.muted = false
		return len(p), nil
	}
	g.sent = false
	if g.err == nil {
		g.err = g.unread()
	}
	if g.err != nil {
		return 0, g.err
	}
	g.forget()
	deadline := time.Now().Add(g.patience)
	if !g.until.IsZero() && g.until.Before(deadline) {
		deadline = g.until
	}
	err := g.Conn.SetWriteDeadline(deadline)
	n := 0
	if err == nil {
		n, err = g.Conn.Write(p)
	}
	if err != nil && !g.until.IsZero() && !time.Now().Before(g.until) {
		err = errTooSlow
	}
	g.err = err
	g.sent = err == nil
	return n, err
}

// forget makes room for the reply to the next command.
func (g *guard) forget() { g.last, g.ended, g.spent = answer{}, false, 0 }

// unread reports what is there to be read now: nil is nothing, errUnasked
// something, io.EOF the remote's end. It does not wait, but for ticketWait under
// TLS when octets have come that may be no more than session tickets.
func (g *guard) unread() error {
	if g.in.Buffered() > 0 {
		return errUnasked
	}
	waiting := peek(g.socket)
	if g.Conn == g.socket {
		return waiting
	}
	// TLS may hold records that it has read and not decrypted yet. With a deadline
	// in the past it looks at those alone.
	until := time.Unix(1, 0)
	if waiting == errUnasked {
		until = time.Now().Add(ticketWait)
	}
	if err := g.Conn.SetReadDeadline(until); err != nil {
		return err
	}
	_, err := g.in.Peek(1)
	if restored := g.Conn.SetReadDeadline(g.deadline); restored != nil {
		return restored
	}
	switch {
	case err == nil:
		return errUnasked
	case !timedOut(err):
		return err
	case waiting == errUnasked:
		return nil
	}
	return waiting
}

// ticketWait is how long TLS has to decrypt what has already arrived.
const ticketWait = 5 * time.Millisecond

// peek looks into a socket's receive buffer as unread describes.
func peek(conn net.Conn) error {
	sys, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var peeked error
	// Control and not Read, which would fail on a read deadline long past.
	if err := raw.Control(func(fd uintptr) {
		n, _, peeked = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}); err != nil {
		return err
	}
	switch {
	case errors.Is(peeked, syscall.EAGAIN), errors.Is(peeked, syscall.EINTR):
		return nil
	case peeked != nil:
		return peeked
	case n == 0:
		return io.EOF
	}
	return errUnasked
}

// command sends one line and reads the whole reply to it, in at most timeout.
func (g *guard) command(line string, timeout time.Duration) (answer, error) {
	if err := g.SetDeadline(time.Now().Add(timeout)); err != nil {
		return answer{}, err
	}
	if _, err := g.Write([]byte(line + "\r\n")); err != nil {
		return answer{}, err
	}
	return g.answer()
}

// answer reads a whole reply, under the deadline that is set.
func (g *guard) answer() (answer, error) {
	for {
		if _, err := g.line(); err != nil {
			return answer{}, err
		}
		if g.ended {
			return g.last, nil
		}
	}
}

// early reads the reply that a remote gave before it was asked, after a write
// failed: it often says why. The session is over whatever it is.
func (g *guard) early() (answer, bool) {
	failed := g.err
	defer func() { g.err = failed }()
	g.err = nil
	g.forget()
	if g.SetDeadline(time.Now().Add(earlyWait)) != nil {
		return answer{}, false
	}
	a, err := g.answer()
	return a, err == nil
}

// earlyWait is how long a reply is waited for that should be there already.
const earlyWait = 2 * time.Second
