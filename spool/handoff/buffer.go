package handoff

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

const (
	// maxMemory octets of a body are kept in memory. Most mail is far smaller; what
	// is larger costs a copy more and spares the machine.
	maxMemory = 1 << 20
	// copySize octets are moved at once between files.
	copySize = 128 << 10
)

// MaxBody octets is the longest body the front end takes, so that an endless input
// ends. The limit meant for people is the runner's max_message_size.
const MaxBody = 1 << 30

// ErrTooLarge is returned for a body longer than MaxBody.
var ErrTooLarge = errors.New("the message is larger than 1 GiB: send a link instead")

// Buffer collects a body whose length is not known before its end: the first MiB
// in memory, the rest in a file without a name, which is gone when the process
// is. A nil Buffer is an empty one. Close it.
type Buffer struct {
	dir    string // the spool directory
	memory []byte
	file   int // descriptor; valid while spilled > 0
	// spilled octets are in file.
	spilled int64
	max     int64
	eight   bool
}

// NewBuffer returns an empty Buffer that spills into drop/ of the spool directory
// dir.
func NewBuffer(dir string) *Buffer { return &Buffer{dir: dir, file: -1, max: MaxBody} }

// Size is the number of octets collected.
func (b *Buffer) Size() int64 {
	if b == nil {
		return 0
	}
	return int64(len(b.memory)) + b.spilled
}

// EightBit reports whether an octet above 127 was collected.
func (b *Buffer) EightBit() bool { return b != nil && b.eight }

// Close gives the file back.
func (b *Buffer) Close() {
	if b != nil && b.file >= 0 {
		unix.Close(b.file)
		b.file = -1
	}
}

// ReadFrom collects r to its end. The error is ErrTooLarge, a *Failure when the
// file could not be written, or r's own.
func (b *Buffer) ReadFrom(r io.Reader) (n int64, err error) {
	if b.memory == nil {
		b.memory = make([]byte, 0, 16<<10)
	}
	for len(b.memory) < maxMemory {
		if len(b.memory) == cap(b.memory) {
			grown := make([]byte, len(b.memory), min(4*cap(b.memory), maxMemory))
			copy(grown, b.memory)
			b.memory = grown
		}
		m, err := r.Read(b.memory[len(b.memory):cap(b.memory)])
		b.look(b.memory[len(b.memory) : len(b.memory)+m])
		b.memory = b.memory[:len(b.memory)+m]
		n += int64(m)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	m, err := b.spill(r)
	return n + m, err
}

// spill collects the rest of r in the file.
func (b *Buffer) spill(r io.Reader) (n int64, err error) {
	chunk := make([]byte, copySize)
	for {
		m, err := r.Read(chunk)
		if m > 0 {
			n += int64(m)
			if b.Size()+int64(m) > b.max {
				return n, ErrTooLarge
			}
			b.look(chunk[:m])
			if err := b.append(chunk[:m]); err != nil {
				return n, err
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// append adds chunk to the file, which it creates when there is none yet.
func (b *Buffer) append(chunk []byte) error {
	if b.file < 0 {
		d, failure := openDrop(b.dir)
		if failure != nil {
			return failure
		}
		defer d.close()
		if b.file, failure = d.createNameless(unix.O_RDWR, 0o600); failure != nil {
			b.file = -1
			return failure
		}
	}
	if err := writeAll(b.file, chunk); err != nil {
		return writeFailure(b.dir, err)
	}
	b.spilled += int64(len(chunk))
	return nil
}

// look notes what kind of octets there are.
func (b *Buffer) look(chunk []byte) {
	if b.eight {
		return
	}
	for _, c := range chunk {
		if c > 127 {
			b.eight = true
			return
		}
	}
}

// writeTo writes lead and then what was collected to the descriptor fd, in as
// few writes as may be. It may be called again.
func (b *Buffer) writeTo(fd int, lead ...[]byte) error {
	if b == nil {
		return writeAll(fd, lead...)
	}
	if err := writeAll(fd, append(lead, b.memory)...); err != nil || b.spilled == 0 {
		return err
	}
	chunk := make([]byte, copySize)
	for at := int64(0); at < b.spilled; {
		n, err := retry(func() (int, error) {
			return unix.Pread(b.file, chunk[:min(copySize, b.spilled-at)], at)
		})
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if err := writeAll(fd, chunk[:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// writeAll writes all of chunks to fd.
func writeAll(fd int, chunks ...[]byte) error {
	for {
		for len(chunks) > 0 && len(chunks[0]) == 0 {
			chunks = chunks[1:]
		}
		if len(chunks) == 0 {
			return nil
		}
		n, err := inTurns(func() (int, error) { return unix.Writev(fd, chunks) })
		if err != nil {
			return err
		}
		for n > 0 {
			m := min(n, len(chunks[0]))
			chunks[0] = chunks[0][m:]
			n -= m
			if len(chunks[0]) == 0 {
				chunks = chunks[1:]
			}
		}
	}
}

// inTurns repeats a system call on a socket as often as it has turns to wait; a file
// never asks for that.
func inTurns(call func() (int, error)) (int, error) {
	for turn := 1; ; turn++ {
		if n, err := retry(call); err != unix.EAGAIN || turn == ioTurns {
			return n, err
		}
	}
}

// retry repeats a system call that a signal interrupted; Go's runtime sends
// itself signals, and a socket with a timeout is not restarted by the kernel.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}
