package handoff

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// socketName is where the runner listens, in the spool directory.
	socketName = "submit.sock"
	// ioTimeout bounds each read and write. A healthy runner answers in
	// milliseconds; the drop file is ready for every other one. It is waited for in
	// turns: of a machine that stood still, as a virtual one may for half a minute, a
	// wait in one piece says nothing about the runner.
	ioTimeout = 20 * time.Second
	ioTurns   = 20
	// window is how many recipients are sent before their replies are read, and
	// pipelined how many octets a session may have, content included, to be sent in
	// one go. Both fit the socket's buffer (208 KiB by default), so that we never
	// wait for the runner to read while it waits for us to read its replies.
	window    = 100
	pipelined = 64 << 10
)

// errNobody: there is no runner to talk to, which is no fault.
var errNobody = errors.New("nobody listens")

// send hands s to the runner that listens in the spool directory dir, and returns
// the queue ID it was given. The error is a *Refused when the runner refused for
// good; after any other the runner may have it or not.
func send(dir string, s *Submission, timeout time.Duration) (id string, err error) {
	fd, err := dial(path.Join(dir, socketName), timeout)
	if err != nil {
		return "", errNobody
	}
	defer unix.Close(fd)
	if err := trust(fd, dir); err != nil {
		return "", err
	}
	c := &conn{fd: fd, in: bufio.NewReaderSize(reader(fd), maxReplyLine)}
	return c.submit(s)
}

// dial connects without waiting: a runner whose backlog is full has enough to do.
func dial(socket string, timeout time.Duration) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err = connect(fd, socket); err == nil {
		err = unix.SetNonblock(fd, false)
	}
	limit := unix.NsecToTimeval(int64(timeout / ioTurns))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// connect connects to a socket by its path or, where that is too long for an
// address, by a descriptor of its directory.
func connect(fd int, socket string) error {
	const longest = 107 // octets in an address, the last one being NUL
	if len(socket) > longest {
		dir, err := unix.Open(path.Dir(socket), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		socket = "/proc/self/fd/" + strconv.Itoa(dir) + "/" + path.Base(socket)
	}
	return unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
}

// trust asks the kernel who listens: mail is for root, the owner of the spool
// directory or ourselves, and for nobody else who found a place for a socket.
func trust(fd int, dir string) error {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	if peer.Uid == 0 || peer.Uid == st.Uid || int(peer.Uid) == os.Geteuid() {
		return nil
	}
	return errors.New(socketName + " is served by uid " + strconv.Itoa(int(peer.Uid)) +
		", which neither owns the spool directory nor is root")
}

// conn is a session with the runner.
type conn struct {
	fd int
	in *bufio.Reader
	// broken is the first error of a write; nil while all went out.
	broken error
}

// submit goes through the whole session. A small message travels together with
// its envelope; for a larger one the runner is asked first, since it may refuse.
func (c *conn) submit(s *Submission) (id string, err error) {
	out, rest, sent := s.opening(), s.Recipients, false
	for hello := true; hello || len(rest) > 0; hello = false {
		some := rest[:min(window, len(rest))]
		rest = rest[len(some):]
		out = appendRecipients(out, some)
		if sent = len(rest) == 0 && int64(len(out))+s.size() <= pipelined; sent {
			c.broken = s.writeContent(c.fd, out)
		} else {
			c.broken = writeAll(c.fd, out)
		}
		if err := c.envelope(s, hello, len(some)); err != nil {
			return "", err
		}
		out = out[:0]
	}
	if !sent {
		c.broken = s.writeContent(c.fd, nil)
	}
	text, err := c.reply("the end of the content")
	if err != nil {
		return "", err
	}
	if c.broken != nil {
		return "", c.broken
	}
	id, ok := strings.CutPrefix(text, "Ok: queued as ")
	if !ok {
		id = s.proposedID() // no runner of ours, but the message is taken
	}
	return id, nil
}

// envelope reads the replies to some recipients and, with hello, to what precedes
// the first. The runner takes all recipients or none, so the first refusal ends
// the session, as a closed connection without content leaves nothing.
func (c *conn) envelope(s *Submission, hello bool, recipients int) error {
	if hello {
		commands := []string{"the connection", "EHLO", "NOOP"}
		if !s.NoAliases {
			commands = commands[:2]
		}
		for _, command := range commands {
			var refused *Refused
			_, err := c.reply(command)
			if errors.As(err, &refused) {
				// It refused us, not the message: the drop file is for that.
				return errors.New(command + " was " + err.Error())
			}
			if err != nil {
				return err
			}
		}
		if _, err := c.reply("MAIL"); err != nil {
			return err
		}
	}
	for range recipients {
		if _, err := c.reply("RCPT"); err != nil {
			return err
		}
	}
	return nil
}

// reply reads the reply to command and returns the text of a positive one. A runner
// that refuses may close before it has read everything, so its reply is looked
// for after a failed write too.
func (c *conn) reply(command string) (text string, err error) {
	if c.broken != nil && c.broken != unix.EPIPE {
		return "", c.broken // it is still there, and would let us wait
	}
	r, err := readReply(c.in)
	switch {
	case err == nil && r.code/100 == 5:
		return "", &Refused{Code: r.code, Status: r.status, Text: r.text}
	case err != nil:
		return "", err
	case r.code/100 != 2:
		return "", errors.New(strconv.Itoa(r.code) + " " + r.status + " " + r.text + ", in answer to " + command)
	}
	return r.text, nil
}

// reader reads from a descriptor.
type reader int

func (fd reader) Read(b []byte) (int, error) {
	n, err := inTurns(func() (int, error) { return unix.Read(int(fd), b) })
	switch {
	case err == unix.EAGAIN:
		return 0, os.ErrDeadlineExceeded
	case err != nil:
		return 0, err
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}
