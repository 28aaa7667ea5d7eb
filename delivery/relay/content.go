package relay

import (
	"bytes"
	"fmt"
	"io"

	"postino/spool"
)

// smallContent is the largest content that is read before MAIL and may be sent
// before the remote has answered it, in octets: as much as the spool keeps in one
// record. The window of a connection is so many times its depth.
const smallContent = 64 << 10

// openContent opens the content of b. A small one is read whole and verified, so
// that nothing of a message that is damaged is ever sent.
func openContent(b *spool.Batch) (content, error) {
	r, err := b.Open()
	if err != nil || b.Message.Size > smallContent {
		return content{ReadCloser: r}, err
	}
	defer r.Close()
	text := make([]byte, 0, b.Message.Size+1)
	for err == nil {
		if len(text) == cap(text) {
			return content{}, fmt.Errorf("it is longer than %d octets", b.Message.Size)
		}
		var n int
		n, err = r.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
	}
	switch {
	case err != io.EOF:
		return content{}, err
	case int64(len(text)) != b.Message.Size:
		return content{}, fmt.Errorf("it has %d octets, not %d", len(text), b.Message.Size)
	}
	return content{text: text}, nil
}

// lines writes content with every line ended by CRLF, be it for BDAT or, with
// dots, for DATA (RFC 5321 §4.5.2). What came in was made so already; a CR or LF
// that stands alone is nevertheless never sent, since receivers differ in what
// they take it for, and the end of the content must be one thing to all of them.
type lines struct {
	dots bool
	mid  bool // in the middle of a line
	cr   bool // a CR was the last octet, and has not been written
}

// add appends p to out.
func (l *lines) add(out, p []byte) []byte {
	for len(p) > 0 {
		if l.cr {
			out = l.newline(out)
			if p[0] == '\n' {
				p = p[1:]
				continue
			}
		}
		if l.dots && !l.mid && p[0] == '.' {
			out = append(out, '.')
		}
		n := len(p)
		if i := bytes.IndexByte(p, '\r'); i >= 0 {
			n = i
		}
		if i := bytes.IndexByte(p[:n], '\n'); i >= 0 {
			n = i
		}
		out = append(out, p[:n]...)
		l.mid = l.mid || n > 0
		if n == len(p) {
			break
		}
		if p[n] == '\r' {
			l.cr = true
		} else {
			out = l.newline(out)
		}
		p = p[n+1:]
	}
	return out
}

func (l *lines) newline(out []byte) []byte {
	l.mid, l.cr = false, false
	return append(out, '\r', '\n')
}

// end ends the last line, and with dots the content.
func (l *lines) end(out []byte) []byte {
	if l.cr || l.mid {
		out = l.newline(out)
	}
	if l.dots {
		out = append(out, ".\r\n"...)
	}
	return out
}
