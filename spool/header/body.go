package header

import (
	"bytes"
	"io"
)

// source is the input as the caller wrote it, with a look at what comes next.
// The zero value with r set is ready to use.
type source struct {
	r          io.Reader
	buf        []byte
	start, end int   // buf[start:end] is read and not consumed
	err        error // what r ended with; it counts when the data is consumed
}

func (s *source) data() []byte { return s.buf[s.start:s.end] }

func (s *source) drop(n int) { s.start += n }

// fill reads once, and makes room for that first: it moves what is left to the
// front, and doubles the buffer if that is full of it. It must not be called
// after an error.
func (s *source) fill() {
	switch {
	case s.start == s.end:
		s.start, s.end = 0, 0
	case s.start > 0 && s.end == len(s.buf):
		s.end = copy(s.buf, s.data())
		s.start = 0
	}
	if s.end == len(s.buf) {
		grown := make([]byte, max(bufferSize, 2*len(s.buf)))
		copy(grown, s.buf[:s.end])
		s.buf = grown
	}
	// A reader may return nothing and no error, but not for ever.
	for range 100 {
		var n int
		n, s.err = s.r.Read(s.buf[s.end:])
		s.end += n
		if n > 0 || s.err != nil {
			return
		}
	}
	s.err = io.ErrNoProgress
}

// body makes the rest of the input canonical.
type body struct {
	in      source
	dotEnds bool
	done    bool // nothing more comes from in
	err     error

	lineStart bool // in stands behind an LF
	crs       int  // CRs seen just now: before an LF they are part of it
	owed      int  // line ends to be written for bare CRs
	outStart  bool // the output stands behind a line end

	out   []byte // canonical, to be given to the caller
	given int    // octets of out that were
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for b.given == len(b.out) {
		b.out, b.given = b.out[:0], 0
		switch {
		case b.owed > 0:
			b.payLineEnds()
		case b.done:
			if b.err != nil {
				return 0, b.err
			}
			return 0, io.EOF
		default:
			b.step()
		}
	}
	n := copy(p, b.out[b.given:])
	b.given += n
	return n, nil
}

// payLineEnds writes a few at a time: a gigabyte of bare CRs costs no memory.
func (b *body) payLineEnds() {
	n := min(b.owed, 1024)
	b.owed -= n
	for range n {
		b.lineEnd()
	}
}

// step takes what is at hand from the input to out, and reads only if there is
// nothing. It stops early when line ends are owed.
func (b *body) step() {
	if len(b.in.data()) == 0 && b.in.err == nil {
		b.in.fill()
	}
	for len(b.in.data()) > 0 && b.owed == 0 {
		if b.dotEnds && b.lineStart && b.atDot() {
			b.done = true
			return
		}
		data := b.in.data()
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			b.in.drop(b.text(data))
			continue
		}
		if n := b.text(data[:i]); n < i {
			b.in.drop(n)
			continue
		}
		b.in.drop(i + 1)
		b.crs = 0
		b.lineEnd()
		b.lineStart = true
	}
	if len(b.in.data()) == 0 && b.in.err != nil && b.owed == 0 {
		b.finish()
	}
}

// finish ends the last line if the caller did not. A stream that broke off is
// left as it is.
func (b *body) finish() {
	b.done = true
	if b.in.err != io.EOF {
		b.err = b.in.err
		return
	}
	if b.crs > 0 || !b.outStart {
		b.lineEnd()
	}
}

// atDot reports whether a line of a single dot comes next, and waits for no
// more input than that takes.
func (b *body) atDot() bool {
	for {
		data := b.in.data()
		if i := bytes.IndexByte(data[:min(len(data), len(".\r\n"))], '\n'); i >= 0 {
			return isDot(data[:i+1])
		}
		if data[0] != '.' || len(data) > 2 || len(data) == 2 && data[1] != '\r' {
			return false
		}
		if b.in.err != nil {
			return b.in.err == io.EOF
		}
		b.in.fill()
	}
}

// text writes part of a line, and returns how much of it was taken: all, unless
// line ends are owed first.
func (b *body) text(data []byte) int {
	b.lineStart = b.lineStart && len(data) == 0
	plain := bytes.TrimRight(data, "\r")
	if b.crs > 0 || bytes.IndexByte(plain, '\r') >= 0 || bytes.IndexByte(plain, 0) >= 0 {
		return b.oddText(data)
	}
	b.crs = len(data) - len(plain)
	if len(plain) > 0 {
		b.out = append(b.out, plain...)
		b.outStart = false
	}
	return len(data)
}

// oddText is text for what has NUL or CR in it.
func (b *body) oddText(data []byte) int {
	for i, c := range data {
		switch {
		case c == 0:
		case c == '\r':
			b.crs++
		case b.crs > 0:
			b.owed, b.crs = b.crs, 0
			return i
		default:
			b.out = append(b.out, c)
			b.outStart = false
		}
	}
	return len(data)
}

func (b *body) lineEnd() {
	b.out = append(b.out, '\r', '\n')
	b.outStart = true
}
