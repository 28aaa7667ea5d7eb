package dsn

import (
	"bytes"
	"fmt"
	"io"
	"mime/quotedprintable"
)

// original is the message that is reported about, as far as it was read.
type original struct {
	text  []byte // at most maxReturned octets, in CRLF lines
	whole bool   // that is all of it
	head  []byte // its header section, without the empty line
}

func readOriginal(content io.Reader) (*original, error) {
	text, err := io.ReadAll(io.LimitReader(content, maxReturned+1))
	if err != nil {
		return nil, err
	}
	o := &original{text: text, whole: len(text) <= maxReturned}
	if !o.whole {
		o.text = text[:maxReturned]
	}
	o.head = o.text
	if end := bytes.Index(o.text, []byte("\r\n\r\n")); end >= 0 {
		o.head = o.text[:end+2]
	} else if !o.whole {
		o.head = o.text[:bytes.LastIndexByte(o.text, '\n')+1] // no half line
	}
	return o, nil
}

// returnable reports whether the message can be given back as it is: nothing in it
// may be encoded to fit (RFC 6522 §3).
func (o *original) returnable() bool { return o.whole && longestLine(o.text) <= maxLine }

// write writes the part with the message, or with its header section.
func (o *original) write(b *bytes.Buffer, boundary string, full, utf8 bool) {
	kind, what := "text/rfc822-headers", "Header section of the message"
	text := o.head
	switch {
	case full && utf8:
		kind, what, text = "message/global", "Undelivered message", o.text
	case full:
		kind, what, text = "message/rfc822", "Undelivered message", o.text
	case utf8:
		kind = "message/global-headers"
	}
	if !full {
		part(b, boundary, what, kind, string(text))
		return
	}
	raw(b, boundary, what, kind, text)
}

// raw writes a part whose text must not be encoded.
func raw(b *bytes.Buffer, boundary, what, kind string, text []byte) {
	open(b, boundary, what, kind)
	if has8bit(text) {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	b.WriteString("\r\n")
	b.Write(text)
}

func open(b *bytes.Buffer, boundary, what, kind string) {
	fmt.Fprintf(b, "\r\n--%s\r\nContent-Description: %s\r\nContent-Type: %s\r\n", boundary, what, kind)
}

// part writes a part whose text may be encoded, and is where it has to be.
func part(b *bytes.Buffer, boundary, what, kind, text string) {
	open(b, boundary, what, kind)
	if !has8bit([]byte(text)) && longestLine([]byte(text)) <= maxLine {
		fmt.Fprintf(b, "\r\n%s", text)
		return
	}
	b.WriteString("Content-Transfer-Encoding: quoted-printable\r\n\r\n")
	q := quotedprintable.NewWriter(b)
	_, _ = io.WriteString(q, text) // a buffer takes it
	_ = q.Close()
}

func has8bit(text []byte) bool {
	return bytes.ContainsFunc(text, func(c rune) bool { return c >= 0x80 })
}

// longestLine is the length of the longest line, in octets, its end not counted.
func longestLine(text []byte) int {
	longest := 0
	for line := range bytes.Lines(text) {
		longest = max(longest, len(bytes.TrimRight(line, "\r\n")))
	}
	return longest
}
