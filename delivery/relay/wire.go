package relay

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxReplyLine is the longest reply line taken, in octets with its line end.
	// RFC 5321 §4.5.3.1.5 allows 512, and servers that explain themselves use more.
	maxReplyLine = 2000
	// maxReply is how many octets one reply may have: far more than any EHLO,
	// little enough for a runner with many connections.
	maxReply = 64 << 10
)

// What a remote can do wrong in a reply. All of them end the session.
var (
	errGarbage  = errors.New("not an SMTP reply")
	errMixed    = errors.New("a reply whose lines have different codes")
	errTooLong  = errors.New("a reply line that is too long")
	errTooMuch  = errors.New("a reply that is too long")
	errUnasked  = errors.New("a reply that nobody asked for")
	errProtocol = []error{errGarbage, errMixed, errTooLong, errTooMuch, errUnasked}
)

// answer is a whole reply of the remote: its code and the text of its lines.
type answer struct {
	code  int
	lines []string
}

// wire is the connection: replies are read from it whole and strictly, and what
// is written is gathered in out until flush. One goroutine may read while another
// writes.
type wire struct {
	net.Conn // the socket, or TLS over it
	socket   net.Conn
	in       *bufio.Reader

	out    []byte // not yet written
	queued int64  // octets ever added to out
	// written is how many of them the kernel has taken. What is beyond has not
	// left this machine, so the remote cannot have seen it.
	written atomic.Int64
}

// newWire is a wire over conn, which is socket or TLS over it.
func newWire(conn, socket net.Conn) *wire {
	return &wire{Conn: conn, socket: socket, in: bufio.NewReaderSize(conn, maxReplyLine)}
}

// append has add put something behind what is to be written.
func (w *wire) append(add func([]byte) []byte) {
	before := len(w.out)
	w.out = add(w.out)
	w.queued += int64(len(w.out) - before)
}

// line adds a command line.
func (w *wire) line(s string) {
	w.out = append(append(w.out, s...), '\r', '\n')
	w.queued += int64(len(s)) + 2
}

// flush writes what was added, until deadline.
func (w *wire) flush(deadline time.Time) error {
	if len(w.out) == 0 {
		return nil
	}
	if err := w.SetWriteDeadline(deadline); err != nil {
		return err
	}
	n, err := w.Write(w.out)
	w.written.Add(int64(n))
	w.out = w.out[:0]
	return err
}

// reply reads a whole reply, under the deadline of reading that is set.
func (w *wire) reply() (answer, error) {
	var a answer
	for size := 0; ; {
		raw, err := w.in.ReadSlice('\n')
		size += len(raw)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return answer{}, errTooLong
		case err != nil:
			return answer{}, err
		case size > maxReply:
			return answer{}, errTooMuch
		}
		code, more, text, err := parseLine(string(raw))
		switch {
		case err != nil:
			return answer{}, err
		case len(a.lines) > 0 && code != a.code:
			return answer{}, errMixed
		}
		a.code = code
		a.lines = append(a.lines, text)
		if !more {
			return a, nil
		}
	}
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

// command sends one line and reads the whole reply to it, in at most timeout:
// how a session is opened, a command at a time. What the remote says before it
// was asked must not be taken for the answer.
func (w *wire) command(line string, timeout time.Duration) (answer, error) {
	deadline := time.Now().Add(timeout)
	if err := w.unread(); err != nil {
		return answer{}, err
	}
	w.line(line)
	if err := w.flush(deadline); err != nil {
		return answer{}, err
	}
	return w.await(deadline)
}

// await reads a reply until deadline, however many reads that takes.
func (w *wire) await(deadline time.Time) (answer, error) {
	if err := w.SetReadDeadline(deadline); err != nil {
		return answer{}, err
	}
	return w.reply()
}

// unread reports what there is to be read now: nil is nothing, errUnasked
// something, io.EOF the remote's end. It does not wait. Under TLS it sees no more
// than what has been decrypted.
func (w *wire) unread() error {
	if w.in.Buffered() > 0 {
		return errUnasked
	}
	if w.Conn != w.socket {
		return nil
	}
	return peek(w.socket)
}

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
