// Package header reads the header section of a message and changes no more of
// it than a submission agent must (RFC 6409 §8): what the caller wrote is kept
// octet for octet but for line ends, NUL and what cannot be a message.
//
// It is imported by the front end, so it uses only the light part of the
// standard library.
package header

import (
	"bytes"
	"errors"
	"io"
)

// MaxSection is the largest header section accepted, in octets, line ends
// included. It holds 10,000 recipients with room to spare, and it bounds what
// is kept in memory.
const MaxSection = 1 << 20

// MaxFields is how many fields are accepted: each takes some 40 octets of memory,
// and no message has so many.
const MaxFields = 20_000

// SmallSection is the size of a section, in octets, beyond which Options.Large is
// asked.
const SmallSection = 16 << 10

// maxName is how far from the start of a line its colon may be, in octets: the
// longest line of RFC 5322 §2.1.1. It lets a body without any line end, read
// without a header, be told from a field early.
const maxName = 998

// bufferSize is how much is read at once, in octets: what a pipe holds.
const bufferSize = 64 << 10

// ErrTooLarge says that the header section is larger than MaxSection, or has more
// than MaxFields.
var ErrTooLarge = errors.New("header section is larger than 1 MiB or 20000 fields: is it a message?")

// Options say how the end of the input is found. The zero value reads to EOF.
type Options struct {
	DotEnds bool // a line of a single dot, also ".\r" or "." at EOF, ends the input
	// Large is called once before more than SmallSection octets of the section are
	// kept in memory; its error is Read's. Nil is no objection.
	Large func() error
}

// Read reads the header section of a message, and returns it with a reader of
// the body. Both come out in canonical form: each line ends with CRLF, the last
// one too, and nowhere else is there a CR, LF or NUL. A bare CR becomes a blank
// in the section and a line end in the body.
//
// Leading mbox lines ("From ", ">From ") are dropped. A blank line ends the
// section, and so does the first line that is no field, which then begins the
// body. Read wants no more input than it takes to know that, and with DotEnds
// neither it nor the body waits for input after the dot.
//
// The error is ErrTooLarge or what r returned instead of io.EOF. The reader is
// there even so, and gives what is left of the input; it passes on errors of r,
// so that a truncated stream never looks complete.
func Read(r io.Reader, o Options) (*Section, io.Reader, error) {
	p := parser{in: source{r: r}, dotEnds: o.DotEnds, large: o.Large}
	err := p.run()
	b := &body{in: p.in, dotEnds: o.DotEnds, done: p.dot, lineStart: true, outStart: true}
	if err != nil {
		return nil, b, err
	}
	return &Section{fields: p.fields()}, b, nil
}

// parser reads lines until it knows that the section is over.
type parser struct {
	in      source
	dotEnds bool
	dot     bool   // the dot was seen: the input is over
	text    []byte // the fields so far, canonical
	starts  []int  // where in text each field begins
	size    int    // octets that count against MaxSection
	large   func() error
}

// keep says whether n octets of a section may be kept, and so many fields.
func (p *parser) keep(n int) error {
	if n > MaxSection || len(p.starts) > MaxFields {
		return ErrTooLarge
	}
	if n > SmallSection && p.large != nil {
		ask := p.large
		p.large = nil
		return ask()
	}
	return nil
}

func (p *parser) run() error {
	for {
		line, complete, err := p.line()
		if err != nil {
			return err
		}
		if complete && p.dotEnds && isDot(line) {
			p.dot = true
			p.in.drop(len(line))
			return nil
		}
		clean := canonical(line, complete)
		kind := p.kind(clean, complete)
		if kind == kindBody {
			return nil
		}
		// Of the blank line only what is not canonical counts: what Read
		// accepted it must accept again when it is read back.
		p.size += max(len(line), len(clean)+len("\r\n"))
		if kind == kindSeparator {
			p.size -= len("\r\n")
		}
		if err := p.keep(p.size); err != nil {
			return err
		}
		p.in.drop(len(line))
		switch kind {
		case kindSeparator:
			return nil
		case kindField:
			p.starts = append(p.starts, len(p.text))
			fallthrough
		case kindContinuation:
			p.text = append(append(p.text, clean...), "\r\n"...)
		}
	}
}

// line returns the next line with its line end, as the caller wrote it, without
// consuming it. A line too long to wait for its end is returned incomplete once
// its beginning shows that it is no field. At the end of the input the line is
// empty and complete.
func (p *parser) line() (line []byte, complete bool, err error) {
	seen, asked := 0, false // octets searched for LF; whether kind was asked
	for {
		data := p.in.data()
		if i := bytes.IndexByte(data[seen:], '\n'); i >= 0 {
			return data[:seen+i+1], true, nil
		}
		seen = len(data)
		if p.in.err == io.EOF {
			return data, true, nil
		}
		if p.in.err != nil {
			return nil, false, p.in.err
		}
		if seen > maxName && !asked {
			asked = true
			if p.kind(canonical(data[:maxName+1], false), false) == kindBody {
				return data, false, nil
			}
		}
		if seen > maxName {
			if err := p.keep(p.size + seen); err != nil {
				return nil, false, err
			}
		}
		p.in.fill()
	}
}

type kind int

const (
	kindUnknown kind = iota // more of the line is needed
	kindField
	kindContinuation
	kindMbox
	kindSeparator
	kindBody
)

// kind says what a line is, without its line end. What it says of the beginning
// of a line, if not kindUnknown, holds for the whole of it.
func (p *parser) kind(line []byte, complete bool) kind {
	switch {
	case len(line) == 0 && complete:
		return kindSeparator
	case len(line) == 0:
		return kindUnknown
	case line[0] == ' ' || line[0] == '\t':
		if len(p.starts) > 0 {
			return kindContinuation
		}
		if !complete && len(bytes.Trim(line, " ")) == 0 {
			return kindUnknown // it may be all CR, and so a blank line
		}
		return kindBody
	case len(p.starts) == 0 && isMbox(line):
		return kindMbox
	}
	switch n, known := nameEnd(line); {
	case n > 0:
		return kindField
	case !known && !complete:
		return kindUnknown
	}
	return kindBody
}

// fields cuts the text into its fields.
func (p *parser) fields() []Field {
	fields := make([]Field, len(p.starts))
	for i, start := range p.starts {
		end := len(p.text)
		if i+1 < len(p.starts) {
			end = p.starts[i+1]
		}
		raw := p.text[start:end:end]
		n, _ := nameEnd(raw)
		fields[i] = Field{Name: string(raw[:n]), Raw: raw}
	}
	return fields
}

// nameEnd returns the length of the field name that line begins with
// (RFC 5322 §2.2; §4.5 allows blanks before the colon), or 0. Known is false if
// line is too short to say.
func nameEnd(line []byte) (n int, known bool) {
	for i, c := range line {
		switch {
		case i > maxName:
			return 0, true
		case c == ':':
			if n == 0 {
				n = i
			}
			return n, true
		case c == ' ' || c == '\t':
			if n == 0 {
				n = i
			}
		case c < '!' || c > '~' || n > 0:
			return 0, true
		}
	}
	return 0, len(line) > maxName
}

// isMbox reports whether line begins as the separator of an mbox file does,
// quoted or not. "From : a@b" is a field.
func isMbox(line []byte) bool {
	line = line[:min(len(line), maxName)] // as far as kind may look
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(line, ">"), []byte("From "))
	return ok && !bytes.HasPrefix(bytes.TrimLeft(rest, " \t"), []byte(":"))
}

// isDot reports whether line, as the caller wrote it, is a single dot.
func isDot(line []byte) bool {
	line = bytes.TrimSuffix(line, []byte("\n"))
	return string(bytes.TrimSuffix(line, []byte("\r"))) == "."
}

// canonical returns line without NUL and its bare CRs as blanks. Of a complete
// line its line end goes too, however many CRs are before the LF.
func canonical(line []byte, complete bool) []byte {
	if bytes.IndexByte(line, 0) >= 0 {
		line = bytes.ReplaceAll(line, []byte{0}, nil)
	}
	if complete {
		line = bytes.TrimRight(bytes.TrimSuffix(line, []byte("\n")), "\r")
	}
	if bytes.IndexByte(line, '\r') >= 0 {
		line = bytes.ReplaceAll(line, []byte("\r"), []byte(" "))
	}
	return line
}
